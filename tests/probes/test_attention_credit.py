"""Credit that is read off attention, in models of several streams."""

import pytest
import torch

from attnscope.metrics import MetricError, measure, trace_relevance
from attnscope.probes import CaptureError, Logit, Subject, attribute, capture
from attnscope.traces import open_trace
from benchmarks.tiny_models import tiny

TARGET = Logit(7, position=-1)


def slow_influence(observation):
    """Return the mean over heads of the positive part of attention times gradient, as a matrix."""
    value = observation.value.repeat_interleave(
        observation.attention.heads // observation.value.shape[0], 0
    )
    gradient = observation.gradient @ value.mT
    return (observation.attention.dense() * gradient).clamp_min(0).mean(0)


def test_relevance_is_that_of_whole_matrices(subject, tokens, tmp_path):
    encoded = subject.encode({"input_ids": tokens[:, :7]})
    trace = capture(subject, encoded, gradient=TARGET)
    relevance = torch.eye(7)
    for observation in trace.observations:
        relevance = relevance + slow_influence(observation) @ relevance
    last = slow_influence(trace.observations[-1])  # behind it, a row reaches its own logits only
    assert float(last[:-1].abs().max()) == 0
    assert float(last[-1].max()) > 0
    found = attribute(subject, encoded, target=TARGET, method="relevance")
    torch.testing.assert_close(found.values, relevance[-1], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(measure(trace, "relevance").values, relevance[-1])
    torch.testing.assert_close(found.values, trace_relevance(trace)["text"].values)
    rolled = attribute(subject, encoded, target=TARGET, method="gradient_rollout")
    torch.testing.assert_close(measure(trace, "gradient_rollout").values, rolled.values)
    assert float(rolled.values.sum()) == pytest.approx(1.0)
    trace.save(tmp_path / "run.safetensors")
    stored = trace_relevance(open_trace(tmp_path / "run.safetensors"))["text"].values
    torch.testing.assert_close(stored, found.values)


def test_relevance_needs_a_gradient(subject, tokens):
    trace = capture(subject, {"input_ids": tokens[:, :4]})
    with pytest.raises(MetricError, match=r"needs the gradient of the target, .* gradient='logit'"):
        trace_relevance(trace)


def test_attention_and_rollout_are_rows_of_the_captured_maps(subject, tokens):
    encoded = subject.encode({"input_ids": tokens[:, :7]})
    trace = capture(subject, encoded)
    rows = torch.stack([seen.attention.dense()[:, -1] for seen in trace.observations])
    found = attribute(subject, encoded, target=TARGET, method="attention")
    torch.testing.assert_close(found.values, rows.mean((0, 1)))
    rolled = attribute(subject, encoded, target=TARGET, method="rollout")
    torch.testing.assert_close(rolled.values, measure(trace, "rollout").values)


def test_an_encoder_s_tokens_get_credit_through_cross_attention():
    model, inputs = tiny("T5")
    subject = Subject(model)
    encoded = subject.encode(inputs)
    trace = capture(subject, encoded, gradient=TARGET)
    outer = torch.eye(len(trace.sequences["encoder"]))
    own = torch.eye(len(trace.sequences["decoder"]))
    crossing = torch.zeros(len(own), len(outer))
    for seen in trace.observations:
        influence = slow_influence(seen)
        kind = (seen.site.query_sequence, seen.site.key_sequence)
        if kind == ("encoder", "encoder"):
            outer = outer + influence @ outer
        elif kind == ("decoder", "decoder"):
            crossing, own = crossing + influence @ crossing, own + influence @ own
        else:
            crossing = crossing + normalized(own).mT @ influence @ normalized(outer)
    found = attribute(subject, encoded, target=TARGET, method="relevance")
    assert found.sequence.name == "encoder"
    torch.testing.assert_close(found.values, crossing[-1], atol=1e-6, rtol=1e-3)
    decoder = trace_relevance(trace)["decoder"].values
    torch.testing.assert_close(decoder, own[-1], atol=1e-6, rtol=1e-4)
    for method in ("attention", "saliency"):
        credit = attribute(subject, encoded, target=TARGET, method=method).values
        assert bool((credit >= 0).all())
    with pytest.raises(CaptureError, match=r"rollout follows one sequence .* 'encoder'"):
        attribute(subject, encoded, target=TARGET, method="rollout")


def normalized(relevance):
    excess = relevance - torch.eye(len(relevance))
    mass = excess.sum(-1, keepdim=True)
    return torch.where(mass == 0, 0.0, excess / mass) + torch.eye(len(relevance))


def test_a_classifier_has_to_be_told_where_its_target_is_read():
    model, inputs = tiny("ViT")
    encoded = Subject(model).encode(inputs)
    with pytest.raises(CaptureError, match="query=0 for the class token"):
        attribute(Subject(model), encoded, target=Logit(1), method="relevance")
    found = attribute(Subject(model), encoded, target=Logit(1), method="relevance", query=0)
    assert found.values[0].isnan()  # the class token is no patch
    assert bool((found.values[1:] >= 0).all())
    assert len(found.values) == 17


def test_words_and_patches_of_a_vision_language_model_get_credit():
    model, inputs = tiny("LLaVA")
    subject = Subject(model)
    found = attribute(subject, subject.encode(inputs), target=TARGET, method="relevance")
    image = found.sequence.segments["image"]
    assert bool((found.values[image] >= 0).all())
    assert float(found.values[image].sum()) > 0
