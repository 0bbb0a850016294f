"""Smaller traces say what they lost, and what is left is what it was."""

import json
from dataclasses import replace

import pytest
import torch

from attnscope.attention import SoftmaxAttention, TruncatedAttention
from attnscope.metrics import MetricError, attention_entropy, head_span, measure
from attnscope.traces import (
    Card,
    Check,
    StoredReading,
    TraceError,
    Verification,
    open_trace,
    reduce,
)
from attnscope.traces.layout import seal, unseal


def saved(trace, tmp_path):
    trace.save(tmp_path / "reduced.safetensors")
    return open_trace(tmp_path / "reduced.safetensors")


def test_the_largest_weights_come_back_with_what_the_others_were(make_trace, tmp_path):
    trace = make_trace(length=20)
    found = saved(reduce(trace, top_k=4), tmp_path)
    for layer in (0, 1):
        dense, kept = trace.attention[layer].dense(), found.attention[layer]
        assert isinstance(kept, TruncatedAttention)
        threshold = dense.topk(4, dim=-1).values[..., -1:]
        expected = torch.where(dense >= threshold, dense, 0.0)
        torch.testing.assert_close(kept.dense(), expected)
        torch.testing.assert_close(kept.lost, (dense - expected).sum(-1))
    assert torch.equal(found.observations[1].value, trace.observations[1].value)
    card = found.card.sites["model.layers.self_attn", 0]
    assert card.operator == "TruncatedAttention"
    assert card.lost[0].startswith("all but the 4 largest weights of each row (at most 0.")
    assert "lost: all but the 4" in repr(found)
    heads = found.attention.heads(1, [2])
    assert torch.equal(heads.lost, found.attention[1].lost[2:3])


@pytest.mark.parametrize("metric", ["head_span", "entropy", "waad", "sink_mass"])
def test_metrics_refuse_rows_whose_weights_are_gone(make_trace, metric):
    trace = make_trace(length=20)
    reduced = reduce(trace, top_k=4)
    with pytest.raises(MetricError, match="only the 4 largest weights of each row are left"):
        measure(reduced, metric)
    with pytest.raises(MetricError, match="only the 4 largest"):
        measure(reduced, metric, renormalize=True)
    exact = measure(trace, metric)
    torch.testing.assert_close(measure(reduce(trace, top_k=20), metric).values, exact.values)


@pytest.mark.parametrize("metric", [head_span, attention_entropy])
def test_functions_refuse_them_too(make_trace, metric):
    with pytest.raises((MetricError, ValueError), match="largest weights"):
        metric(reduce(make_trace(length=20), top_k=4).attention[0])


def test_readings_stand_in_for_lost_weights(make_trace, tmp_path):
    trace = make_trace(length=20)
    exact = measure(trace, "head_span")
    found = saved(reduce(trace, top_k=4, readings=[exact]), tmp_path)
    kept = measure(found, "head_span")
    assert torch.equal(kept.values, exact.values)
    assert (kept.axes, dict(kept.coordinates), kept.unit) == (
        exact.axes, dict(exact.coordinates), exact.unit,
    )  # fmt: skip
    with pytest.raises(MetricError, match="largest weights"):
        measure(found, "head_span", queries=[3])
    with pytest.raises(MetricError, match="largest weights"):  # of other layers
        measure(found.select(layers=1), "head_span")


def test_readings_alone(make_trace, tmp_path):
    trace = make_trace(length=20)
    kept = [measure(trace, name) for name in ("waad", "fai")]
    found = saved(reduce(trace, readings=kept, readings_only=True), tmp_path)
    assert found.sites == ()
    assert found.tokens == trace.tokens
    assert found.segments == trace.segments
    torch.testing.assert_close(found.entropies, trace.entropies)
    for reading in kept:
        again = measure(found, reading.name)
        torch.testing.assert_close(again.values, reading.values, equal_nan=True)
        assert again.coordinates["layer"] == (0, 1)
    with pytest.raises(MetricError, match=r"keeps no attention\. It keeps the readings waad"):
        measure(found, "head_span")
    with pytest.raises(MetricError, match="keeps no attention"):
        measure(found, "waad", window=3)
    assert "lost: all attention" in repr(found)
    assert found.nbytes < trace.nbytes
    with pytest.raises(TraceError, match="would be empty"):
        reduce(trace, readings_only=True)


def test_layers_and_heads_keep_their_numbers(make_trace, tmp_path):
    trace = make_trace(layers=3, length=20)
    found = saved(reduce(reduce(trace, layers=[-1, 0]), heads=[3, 1]), tmp_path)
    assert [site.layer for site in found.sites] == [0, 2]
    torch.testing.assert_close(
        found.attention[2].dense(), trace.attention[2].dense()[[3, 1]], atol=1e-6, rtol=1e-5
    )
    torch.testing.assert_close(
        found.gradient[2].dense(), trace.gradient[2].dense()[[3, 1]], atol=1e-5, rtol=1e-5
    )
    assert found.card.sites["model.layers.self_attn", 2].heads == (3, 1)
    assert found.card.lost == ("layers 1 of model.layers.self_attn",)
    again = reduce(found, heads=[-1])
    assert again.card.sites["model.layers.self_attn", 2].heads == (1,)
    with pytest.raises(TraceError, match=r"heads \[4\]: .* has 4, from 0"):
        reduce(trace, heads=[4])
    with pytest.raises(TraceError, match="no layer 7"):
        reduce(trace, layers=[7])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_states_its_error(make_trace, tmp_path, dtype):
    trace = make_trace(length=20)
    found = saved(reduce(trace, dtype=dtype), tmp_path)
    attention = found.attention[0]
    assert isinstance(attention, SoftmaxAttention)
    assert str(attention.query.dtype) == f"torch.{dtype}"
    assert found.observations[0].value.dtype == attention.query.dtype
    torch.testing.assert_close(attention.row_mass(), torch.ones(4, 20))
    card = found.card.sites["model.layers.self_attn", 0]
    stated = float(card.lost[0].split("at most ")[1].split(" on")[0])
    error = float((attention.dense() - trace.attention[0].dense()).abs().max())
    assert 0 < stated <= error * 1.05
    assert stated == pytest.approx(error, rel=0.9)
    assert card.dtype == dtype
    assert found.nbytes < 0.7 * trace.nbytes


def test_every_kind_of_operator_can_be_reduced_or_says_why(build, make_trace, tmp_path):
    trace = make_trace(build, layers=1, length=16)
    narrow = saved(reduce(trace, dtype="bfloat16"), tmp_path)
    whole, found = trace.attention[0].dense(), narrow.attention[0].dense()
    scale = float(whole.abs().max())
    torch.testing.assert_close(found, whole.to(found.dtype), atol=0.1 * scale, rtol=0)
    if trace.attention[0].signed:
        with pytest.raises(TraceError, match=r"cannot be reduced: .* nowhere negative"):
            reduce(trace, top_k=3)
    elif not isinstance(trace.attention[0], TruncatedAttention):
        kept = saved(reduce(trace, top_k=3), tmp_path).attention[0]
        torch.testing.assert_close(
            kept.row_mass(), trace.attention[0].row_mass().to(kept.dtype), atol=2e-2, rtol=1e-2
        )


def test_what_was_verified_is_the_trace_before(make_trace):
    check = Check(what="weights", where="x", passed=True, error=1e-7, tolerance=1e-5)
    proof = Verification(checks=(check,), rows=3, seed=0, against="tiny")
    trace = replace(make_trace(length=20), card=Card(verification=proof))
    reduced = reduce(trace, top_k=4)
    assert reduced.card.verification == proof
    assert "the verification is of the trace before it was reduced" in reduced.card.lost


def test_nothing_asked_for_and_unknown_types_are_refused(make_trace):
    with pytest.raises(TraceError, match="nothing to reduce by"):
        reduce(make_trace(length=20))
    with pytest.raises(TraceError, match=r"cannot be reduced: .* positive count"):
        reduce(make_trace(length=20), top_k=0)


def test_a_damaged_reading_and_a_damaged_table_are_noticed(make_trace, tmp_path, place_of, flip):
    trace = make_trace(length=20)
    reduced = reduce(trace, top_k=4, readings=[measure(trace, "head_span")])
    for tensor in ("reading.0", "0.attention.index", "0.attention.lost"):
        path = tmp_path / f"{tensor}.safetensors"
        reduced.save(path)
        flip(path, place_of(path, tensor)[0], 1)
        with pytest.raises(TraceError, match="does not fit its checksum"):
            open_trace(path).attention[0]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("card", []),
        ("card", {"sites": [], "lost": [], "verification": {"checks": [1]}}),
        ("card", {"sites": [{"stack": "x"}], "lost": [], "verification": None}),
        ("card", {"sites": [], "lost": [5], "verification": None}),
        ("readings", [{"key": "waad"}]),
        ("readings", 5),
    ],
)
def test_cards_and_readings_of_another_kind_are_refused(stored, part, value):
    with stored.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        stream.seek(0)
        sealed, data = stream.read(8 + length), stream.read()
    text, entries = unseal(sealed)
    content = json.loads(text)
    stored.write_bytes(seal(json.dumps({**content, part: value}), entries) + data)
    with pytest.raises(TraceError):
        open_trace(stored)


def test_an_old_file_opens_with_an_unknown_card(stored):
    with stored.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        stream.seek(0)
        sealed, data = stream.read(8 + length), stream.read()
    text, entries = unseal(sealed)
    content = json.loads(text)
    del content["card"], content["readings"], content["provenance"]["weights"]
    stored.write_bytes(seal(json.dumps(content), entries) + data)
    trace = open_trace(stored)
    assert not trace.card.is_known
    assert trace.provenance.weights is None
    assert "card: unknown" in repr(trace)
    assert "unknown (the trace does not say" in trace._repr_html_()


def test_a_reading_has_axes_that_fit():
    with pytest.raises(TraceError, match="has the axes"):
        StoredReading(name="x", values=torch.ones(2, 3), axes=("head",))
    with pytest.raises(TraceError, match="coordinates"):
        StoredReading(
            name="x", values=torch.ones(2), axes=("head",), coordinates={"head": (1, 2, 3)}
        )
