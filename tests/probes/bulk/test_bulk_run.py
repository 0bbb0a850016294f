"""A run over a dataset captures each item exactly once, whatever fails, wherever it is killed."""

from dataclasses import replace

import pytest
import torch

from attnscope.probes import CaptureError, Measuring, capture
from attnscope.probes.bulk import BadItem, Item, capture_dataset, read_items
from attnscope.traces import stored_readings


def run(worker, items, *more):
    return list(capture_dataset(worker, items, *more).outcomes)


def names(store):
    return sorted(store.index()["name"].to_pylist())


def test_every_item_is_there_as_capture_would_make_it(make_worker, subject, items):
    worker = make_worker(tags=("set",))
    outcomes = run(worker, items)
    assert [outcome.tokens for outcome in outcomes] == [6, 5, 2, 1, 1, 1]  # the longest first
    store = worker.store
    assert names(store) == [item.name for item in items]
    assert store.index()["tags"].to_pylist() == [["set"]] * 6
    for item in items:
        trace = store.open(item.name)
        plain = capture(subject, item.text, response=item.response)
        assert trace.tokens == plain.tokens
        assert torch.equal(trace.attention[1].query, plain.attention[1].query)
    assert store.find("3")["segments"] == [
        {"name": "prompt", "tokens": 4},
        {"name": "response", "tokens": 2},
    ]
    assert len(store.files.names("index")) == 1  # compacted at the end


def test_metrics_leave_readings_and_no_trace(make_worker, subject, items):
    worker = make_worker(metrics=("waad", "head_span"), layers=(-1,))
    run(worker, items[:4])
    store = worker.store
    assert store.files.sizes("traces") == {}
    row = store.find("3")
    assert (row["kind"], row["tokens"], row["layers"], row["heads"]) == ("readings", 6, 1, 2)
    measured = Measuring("waad", "head_span")
    plain = capture(subject, items[3].text, [-1], None, measured, response=items[3].response)
    found = stored_readings(store.readings(ids=[row["id"]]))[row["id"]]
    assert set(found) == {"waad", "head_span"}
    for name, reading in found.items():
        assert torch.equal(reading.values, plain[name].values)
        assert reading.coordinates == plain[name].coordinates


def test_gradients_and_answers_are_as_planned(make_worker):
    worker = make_worker(gradient="loss", layers=(0,), generate=2)
    run(worker, [Item(name="a", text="one two"), Item(name="b", text="one", response="two")])
    asked, given = worker.store.open("a"), worker.store.open("b")
    assert len(asked.segments["response"]) == 2
    assert given.tokens == ("one", "two")
    assert [site.layer for site in asked.sites] == [0]
    assert asked.observed.summaries[0].has_gradient
    assert worker.store.find("a")["gradient"] == "loss"


def test_a_trace_that_does_not_prove_itself_is_kept_and_tagged(make_worker, monkeypatch):
    from attnscope.probes import verification

    worker = make_worker(verify=True, tags=("set",))
    run(worker, [Item(name="good", text="one two")])
    assert worker.store.open("good").card.verification.passed
    check = next(iter(worker.store.open("good").card.verification.checks))
    failed = replace(check, passed=False)
    plain = verification.verify
    monkeypatch.setattr(
        verification,
        "verify",
        lambda *given, **options: replace(plain(*given, **options), checks=(failed,)),
    )
    run(worker, [Item(name="bad", text="one three")])
    assert worker.store.find("good")["tags"] == ["set"]
    assert worker.store.find("bad")["tags"] == ["set", "unproven"]


def test_what_fails_is_recorded_and_the_run_goes_on(make_worker, monkeypatch):
    worker = make_worker()
    bad = BadItem(name="line 7", reason="is not JSON")
    broken = Item(name="broken", text="one", images=(b"no picture",))
    found = capture_dataset(worker, [broken, Item(name="good", text="one"), bad])
    outcomes = list(found.outcomes)
    assert {outcome.name for outcome in outcomes if outcome.error} == {"broken"}
    assert found.bad == [bad]
    assert names(worker.store) == ["good"]
    told = {row["name"]: row["error"] for row in worker.store.failures().to_pylist()}
    assert told["line 7"] == "is not JSON"
    assert told["broken"].startswith("UnidentifiedImageError: ")
    again = capture_dataset(worker, [broken, Item(name="good", text="one")])
    assert (again.total, again.already) == (1, 1)  # what failed is tried again


class Killed(BaseException):
    """Stands for a process that is gone: nothing catches it, nothing is cleaned up after it."""


class Mortal:
    """The writing calls of a store, until a number of them is used up."""

    def __init__(self, files, patch, writes):
        self.writes = writes
        for name in ("put", "put_by", "remove"):
            patch.setattr(files, name, self.limited(getattr(files, name)))

    def limited(self, call):
        def write(*arguments):
            if not self.writes:
                raise Killed
            self.writes -= 1
            return call(*arguments)

        return write


@pytest.mark.parametrize("metrics", [(), ("waad",)])
def test_killed_at_any_write_it_resumes_exactly(make_worker, items, monkeypatch, metrics):
    worker = make_worker(metrics=metrics)
    store, kills = worker.store, 0
    for point in range(40):
        with monkeypatch.context() as patch:
            Mortal(store.files, patch, point % 7)
            try:
                run(worker, items)
                break
            except Killed:
                kills += 1
    run(worker, items)
    assert kills >= 3
    assert names(store) == [item.name for item in items]
    log = store.log()
    assert log.num_rows == len(items)  # nothing was captured twice
    if metrics:
        assert store.readings().num_rows == len(items) * 4
    else:
        assert all(store.open(name).attention[1].shape[0] == 2 for name in names(store))


def test_nothing_to_do_needs_no_model(make_worker, items):
    run(make_worker(), items)
    worker = make_worker()
    object.__setattr__(worker, "load", lambda: pytest.fail("loaded"))
    found = capture_dataset(worker, items)
    assert (found.total, found.already, list(found.outcomes)) == (0, 6, [])


def test_a_model_that_cannot_be_loaded_is_no_fault_of_the_items(make_worker, items):
    def fail():
        raise CaptureError("no such model")

    worker = make_worker()
    object.__setattr__(worker, "load", fail)
    with pytest.raises(CaptureError, match="no such model"):
        run(worker, items)
    assert not worker.store.exists or worker.store.failures().num_rows == 0


def test_an_empty_dataset_is_refused(make_worker, tmp_path):
    (tmp_path / "in.jsonl").write_text("\n")
    with pytest.raises(CaptureError, match="holds no item"):
        capture_dataset(make_worker(), read_items(str(tmp_path / "in.jsonl")))
