"""A store holds what was put there, exactly, and its index says so to every query engine."""

from concurrent.futures import ThreadPoolExecutor

import duckdb
import polars
import pytest
import torch

from attnscope.traces import (
    Deposit,
    RunFacts,
    StoredReading,
    StoreError,
    TraceError,
    TraceStore,
    open_trace,
    stored_readings,
)

pytest.importorskip("pyarrow")


@pytest.fixture
def store(tmp_path):
    return TraceStore(tmp_path / "store")


def reading(dtype=torch.float32, seed=0):
    values = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
    values[0, 0, 0] = torch.nan
    return StoredReading(
        name="waad",
        values=values,
        axes=("layer", "head", "query"),
        unit="tokens",
        bounds=(0.0, None),
        coordinates={"layer": (4, 9), "query": tuple("abcde")},
        stack="model.layers",
        options={"window": 3},
    )


def rows(store, *columns):
    return store.index().select(list(columns)).to_pylist()


def test_a_trace_comes_back_bit_by_bit_and_the_index_knows_it(store, make_trace):
    trace = make_trace(length=24)
    number = store.add(trace, name="first", tags=["a", "b"])
    (row,) = store.index().to_pylist()
    assert (row["id"], row["name"], row["kind"], row["tags"]) == (
        number,
        "first",
        "trace",
        ["a", "b"],
    )
    assert (row["model"], row["dtype"], row["tokens"]) == ("tiny", "float32", 24)
    assert (row["layers"], row["heads"]) == (2, 4)
    assert row["segments"] == [{"name": "prompt", "tokens": 22}]
    file = store.files.local / row["path"]
    assert file.stat().st_size == row["bytes"]
    for back in (store.open(number), store.open("first"), open_trace(file)):
        for layer in (0, 1):
            assert torch.equal(back.attention[layer].query, trace.attention[layer].query)
        assert torch.equal(back.log_probabilities[1:], trace.log_probabilities[1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_readings_come_back_exactly_with_all_that_they_mean(store, dtype):
    given = reading(dtype)
    scalar = StoredReading(name="coupling", values=torch.tensor(0.1, dtype=dtype), axes=())
    grid = StoredReading(
        name="dense", values=torch.rand(2, 2, 4, 3), axes=("layer", "head", "query", "key")
    )
    turned = StoredReading(name="turned", values=torch.rand(5, 2), axes=("query", "head"))
    (number,) = store.append([Deposit(readings=[given, scalar, grid, turned])])
    table = store.readings("waad")
    assert table.num_rows == 6  # one per layer and head
    assert table["layer"].to_pylist() == [4, 4, 4, 9, 9, 9]
    assert table["values"].to_pylist()[4] == given.values[1, 1].double().tolist()
    found = stored_readings(store.readings())[number]
    assert list(found) == ["waad", "coupling", "dense", "turned"]
    for before in (given, scalar, grid, turned):
        after = found[before.name]
        assert after.values.dtype == before.values.dtype
        assert torch.equal(after.values.nan_to_num(9), before.values.nan_to_num(9))
        for name, fact in before.facts():
            assert name == "values" or getattr(after, name) == fact, name


def test_readings_of_a_trace_are_indexed_with_it(store, make_trace):
    from dataclasses import replace

    trace = replace(make_trace(length=8), readings={"waad": reading()})
    store.add(trace)
    assert rows(store, "metrics") == [{"metrics": ["waad"]}]
    assert store.readings().num_rows == 6


def test_tags_of_several_writers_add_up(store, make_trace):
    number = store.add(make_trace(length=8), tags=["a", "b"])
    other = TraceStore(store.address)
    other.tag([number], add=["c"], remove=["a"])
    store.tag([number], add=["d", "c"])
    assert rows(store, "tags") == [{"tags": ["b", "c", "d"]}]
    with pytest.raises(StoreError, match="no item of the id nothing"):
        store.tag(["nothing"], add=["e"])


def test_of_an_item_the_earliest_capture_counts(store):
    first, second = (
        store.append([Deposit(readings=[reading(seed=seed)], item="q")])[0] for seed in (1, 2)
    )
    assert rows(store, "id") == [{"id": first}]
    assert set(store.readings()["id"].to_pylist()) == {first}
    store.delete([first])  # the later one goes, too
    assert rows(store, "id") == []
    assert store.readings().num_rows == 0
    assert second not in store.log().filter([False] * store.log().num_rows)["id"].to_pylist()
    third = store.append([Deposit(readings=[reading()], item="q")])[0]
    assert rows(store, "id") == [{"id": third}]


def test_a_deleted_trace_is_gone_with_its_file(store, make_trace):
    kept, gone = (store.add(make_trace(length=8), name=name) for name in ("kept", "gone"))
    path = store.files.local / store.find(gone)["path"]
    store.delete([gone])
    assert not path.exists()
    assert rows(store, "id") == [{"id": kept}]
    with pytest.raises(StoreError, match=r"no item of .* called 'gone'"):
        store.open("gone")


def test_failures_are_listed_until_the_item_succeeds(store):
    def fail(error, item="q"):
        store.append([Deposit(item=item, name=f"item {item}", error=error)])

    fail("out of memory")
    fail("too long")
    fail("no text", item="r")
    assert [(row["item"], row["error"]) for row in store.failures().to_pylist()] == [
        ("q", "too long"),
        ("r", "no text"),
    ]
    assert store.index().num_rows == 0
    store.append([Deposit(item="q", readings=[reading()])])
    assert [row["item"] for row in store.failures().to_pylist()] == ["r"]


def test_pandas_polars_and_duckdb_read_the_index(store):
    facts = RunFacts(model="m", tokens=7, segments={"prompt": 3})
    store.append(
        [
            Deposit(readings=[reading()], name=str(number), facts=facts, tags=["x"] * (number % 2))
            for number in range(4)
        ]
    )
    store.compact()
    store.append([Deposit(readings=[reading()], name="4", facts=facts, tags=["x"])])
    assert list(store.index().to_pandas()["name"]) == list("01234")
    frame = polars.from_arrow(store.index())
    assert frame.filter(polars.col("tags").list.contains("x")).height == 3
    assert polars.scan_parquet(store.index_glob).select("tokens").collect().height == 5
    counted = duckdb.read_parquet(store.index_glob).filter("list_contains(tags, 'x')")
    assert counted.count("*").fetchall() == [(3,)]
    mean = duckdb.sql(
        f"SELECT round(avg(v), 6) FROM (SELECT unnest(values) AS v FROM '{store.readings_glob}') "  # noqa: S608
        "WHERE NOT isnan(v)"
    ).fetchall()
    assert mean[0][0] == pytest.approx(float(reading().values.nanmean()), abs=1e-6)


def test_many_writers_and_compactions_at_once_lose_nothing(store):
    store.record([])
    ids: list[str] = []

    def write():
        own = TraceStore(store.address)
        for _ in range(6):
            ids.extend(own.append([Deposit(readings=[reading()]), Deposit(error="no")]))

    def compact():
        own = TraceStore(store.address)
        for _ in range(6):
            own.compact()
            own.index()

    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(call) for call in (write, write, write, compact, compact)]
    for one in running:
        one.result()
    log = store.log()
    assert sorted(log["id"].to_pylist()) == sorted(ids)
    assert log.num_rows == 36
    assert store.readings().num_rows == 18 * 6
    store.compact()
    assert len(store.files.names("index")) == 1
    assert sorted(store.log()["id"].to_pylist()) == sorted(ids)


def test_a_commit_that_fails_commits_nothing(store, make_trace):
    class Unstorable:
        pass

    good = Deposit(trace=make_trace(length=8))
    store.record([])
    with pytest.raises(AttributeError):
        store.append([good, Deposit(readings=[Unstorable()])])
    assert store.index().num_rows == 0


def test_what_is_no_store_says_so(store, tmp_path):
    for call in (store.index, store.compact, store.failures, store.readings):
        with pytest.raises(StoreError, match="there is no store at"):
            call()
    marker = tmp_path / "store" / "attnscope-store.json"
    marker.parent.mkdir()
    marker.write_text('{"format": "attnscope-store", "version": 99}')
    with pytest.raises(StoreError, match=r"version 99 .* reads up to 1"):
        store.index()
    marker.write_text("{}")
    with pytest.raises(StoreError, match="does not describe a store"):
        store.index()
    with pytest.raises(StoreError, match="is no address"):
        TraceStore("nonsense://somewhere")


def test_a_name_that_several_bear_opens_none(store, make_trace):
    for _ in range(2):
        store.add(make_trace(length=8), name="same")
    with pytest.raises(StoreError, match="2 items of"):
        store.open("same")
    (number,) = store.append([Deposit(readings=[reading()])])
    with pytest.raises(StoreError, match="was measured only"):
        store.open(number)


def test_a_store_error_is_a_trace_error():
    assert issubclass(StoreError, TraceError)
