"""Recordings of heads while a model learns."""

import pytest
import torch

import attnscope
from attnscope.credit import (
    REV,
    Coupled,
    CreditError,
    FlightRecorder,
    credit_aware,
    read_flight,
    recording_callback,
)
from attnscope.probes import Subject, capture
from tests.credit.conftest import tiny_policy
from tests.credit.training import made, same, trained, word_tokenizer

PROBES = {"short": "w3 w4 w5 w6", "long": "w9 w10 " * 9}


@pytest.fixture
def recorder(tmp_path):
    return FlightRecorder(folder=tmp_path / "flight", probes=PROBES, processor=word_tokenizer())


def test_a_recording_holds_what_measuring_gives(recorder, policy):
    path = recorder.record(policy, step=7)
    assert path.name == "flight-000000007.parquet"
    table = read_flight(recorder.folder)
    assert list(table.columns) == ["step", "probe", "metric", "layer", "head", "value"]
    assert len(table) == 2 * 4 * 6 * 4
    trace = capture(Subject(policy, word_tokenizer()), PROBES["long"])
    for metric, reduced in (("head_span", ()), ("entropy", ("query",))):
        expected = attnscope.measure(trace, metric).mean(*reduced).values
        rows = table[(table.metric == metric) & (table.probe == "long")]
        found = torch.tensor(rows.sort_values(["layer", "head"]).value.to_numpy())
        torch.testing.assert_close(found.reshape(6, 4), expected, atol=1e-5, rtol=1e-5)


def test_parts_add_up_and_a_repeated_step_replaces_its_own(recorder, policy):
    for step in (10, 2, 10):
        recorder.record(policy, step)
    (recorder.folder / ".left.tmp").write_bytes(b"half a file")
    table = read_flight(recorder.folder)
    assert table.step.unique().tolist() == [2, 10]
    assert not table.duplicated(["step", "probe", "metric", "layer", "head"]).any()


def test_modes_are_left_alone(recorder):
    policy = tiny_policy().train()
    policy.model.layers[1].eval()
    before = [module.training for module in policy.modules()]
    recorder.record(policy, 0)
    assert [module.training for module in policy.modules()] == before


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_training_run_is_recorded_and_is_what_it_is_without(recorder, tmp_path):
    from trl import GRPOTrainer

    rule = Coupled(preset=REV.changed(near=2, far=8))
    kind = credit_aware(GRPOTrainer)
    plain, _ = trained(made(kind, tmp_path, steps=3, credit=rule))
    callback = recording_callback(recorder, every=2)
    recorded, _ = trained(made(kind, tmp_path, steps=3, credit=rule, callbacks=[callback]))
    assert same(plain, recorded)
    table = read_flight(recorder.folder)
    assert table.step.unique().tolist() == [0, 2, 3]
    spans = table[table.metric == "head_span"].pivot_table(index="step", values="value")
    assert spans.value.nunique() == 3


def test_what_cannot_be_recorded_is_refused(tmp_path):
    with pytest.raises(CreditError, match="a probe text and a metric at least"):
        FlightRecorder(folder=tmp_path, probes={})
    with pytest.raises(CreditError, match="sink_rate has the axes"):
        FlightRecorder(folder=tmp_path, probes=PROBES, metrics=["sink_rate"])
    with pytest.raises(CreditError, match="every is 0"):
        recording_callback(FlightRecorder(folder=tmp_path, probes=PROBES), every=0)
    with pytest.raises(CreditError, match="holds no recording"):
        read_flight(tmp_path)
