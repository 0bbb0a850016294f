"""`attnscope capture MODEL DATASET` and `attnscope store`, as they are typed."""

import json

import pytest

from attnscope.traces import TraceStore

ROWS = [
    {"id": "a", "text": "zero one", "response": "two"},
    {"id": "b", "text": "three"},
]


@pytest.fixture(scope="module")
def filled(run, model_folder, tmp_path_factory):
    """Return a store of two items and a line that is none, and the dataset."""
    folder = tmp_path_factory.mktemp("bulk")
    file = folder / "in.jsonl"
    file.write_text("\n".join([*map(json.dumps, ROWS), "{oops"]))
    result = run("capture", model_folder, file, "-o", folder / "store", "--tag", "mine")
    assert result.exit_code == 1, result.output
    assert "error: item 3: is not JSON" in result.stderr
    assert "2 items captured (4 tokens), 1 failed" in result.stdout
    return folder / "store", file


def test_a_dataset_becomes_a_store_and_is_captured_once(run, filled, model_folder):
    store, file = filled
    index = TraceStore(store).index()
    assert sorted(index["name"].to_pylist()) == ["a", "b"]
    result = run("capture", model_folder, file, "-o", store)
    assert result.exit_code == 1
    assert "0 items captured (0 tokens), 2 there before, 1 failed" in result.stdout
    assert TraceStore(store).index().num_rows == 2


def test_metrics_of_a_dataset_are_readings(run, filled, model_folder):
    store, file = filled
    good = file.with_name("good.jsonl")
    good.write_text(json.dumps(ROWS[0]))
    wanted = ("--metrics", "waad, head_span", "--layers", "0", "--tag", "read")
    result = run("capture", model_folder, good, "-o", store.with_name("other"), *wanted)
    assert result.exit_code == 0, result.output
    other = TraceStore(store.with_name("other"))
    assert other.index()["metrics"].to_pylist() == [["waad", "head_span"]]
    sql = "SELECT metric, count(*) AS n FROM readings GROUP BY metric ORDER BY metric"
    result = run("store", "query", other.address, sql)
    assert [line.split() for line in result.stdout.splitlines()[3:5]] == [
        ["head_span", "4"],
        ["waad", "4"],
    ]


def test_items_and_errors_are_listed(run, filled):
    store, _ = filled
    listed = run("store", "list", store, "--tag", "mine").stdout
    assert "mine" in listed
    assert len([line for line in listed.splitlines() if " trace " in line]) == 2
    assert " trace " not in run("store", "list", store, "--tag", "other").stdout
    errors = run("store", "list", store, "--errors").stdout
    assert errors.startswith("3: is not JSON")
    assert errors.endswith("1 items failed\n")


def test_sql_goes_to_the_screen_and_into_a_file(run, filled, tmp_path):
    store, _ = filled
    sql = "SELECT name, tokens FROM items ORDER BY tokens"
    result = run("store", "query", store, sql, "--csv", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.csv").read_text() == "name,tokens\nb,1\na,3\n"
    bad = run("store", "query", store, "SELECT nothing FROM nowhere")
    assert bad.exit_code == 2
    assert bad.stderr.startswith("error: DuckDB cannot answer: ")


def test_tags_deletion_compaction_and_repair(run, filled, model_folder, tmp_path):
    file = filled[1].with_name("more.jsonl")
    file.write_text("\n".join(map(json.dumps, ROWS)))
    address = tmp_path / "store"
    assert run("capture", model_folder, file, "-o", address).exit_code == 0
    store = TraceStore(address)
    first, second = store.index()["id"].to_pylist()
    assert run("store", "tag", address, first, "--add", "kept").exit_code == 0
    assert store.find(first)["tags"] == ["kept"]
    assert run("store", "tag", address, first).exit_code == 2
    assert run("store", "delete", address, second, "--yes").exit_code == 0
    assert store.index()["id"].to_pylist() == [first]
    assert "index: 3 files became 1 (4 rows)" in run("store", "compact", address).stdout
    repaired = run("store", "repair", address, "--check")
    assert (repaired.exit_code, repaired.stdout) == (0, "1 items\n")
    lost = address / store.find(first)["path"]
    hidden = lost.with_name("aa.orphan.safetensors")
    lost.rename(hidden)
    repaired = run("store", "repair", address)
    assert repaired.exit_code == 1
    assert "missing or of another length" in repaired.stderr
    assert f"orphan, which no event names: {hidden.relative_to(address)}" in repaired.stdout
    assert "listed anew" in run("store", "repair", address, "--adopt").stdout
    assert store.find("aa")["item"] == "orphan"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("x.jsonl", "--text", "one"), "error: a dataset goes with no --text"),
        (("nowhere.jsonl",), "error: there is no nowhere.jsonl"),
        (("x.jsonl", "--metrics", "nothing"), "error: no metric 'nothing'"),
        (("--text", "one", "--metrics", "waad"), "error: --metrics, --split, --tag"),
    ],
)
def test_what_cannot_be_is_said_before_a_model_is_loaded(run, tmp_path, words, message):
    result = run("capture", "./no-model", *words, "-o", tmp_path / "store")
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


def test_no_store_is_said(run, tmp_path):
    result = run("store", "list", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: there is no store at ")
