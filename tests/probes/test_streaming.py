"""Measuring as the model runs gives what measuring a stored trace gives."""

import pytest
import torch

import attnscope
from attnscope.metrics import METRICS, MetricError
from attnscope.probes import CaptureError, Collector, Measuring, Subject, capture

STREAMED = [
    name
    for name, metric in METRICS.items()
    if metric.streams
    and not {"grid", "gradient", "image", "response"} & set(metric.needs)
    and name != "receiver_fai"
]


@pytest.mark.parametrize("name", STREAMED)
def test_store_equals_stream(subject, name):
    torch.manual_seed(2)
    tokens = {"input_ids": torch.randint(6, 40, (1, 70))}
    stored = attnscope.measure(capture(subject, tokens, into=Collector(hidden=True)), name)
    streamed = capture(subject, tokens, into=Measuring(name))[name]
    assert streamed.axes == stored.axes
    torch.testing.assert_close(streamed.values, stored.values, equal_nan=True, atol=1e-5, rtol=1e-5)


def test_several_metrics_share_one_forward_pass(subject, model, tokens):
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    readings = capture(
        subject,
        {"input_ids": tokens},
        into=Measuring("waad", "fai", "head_span", options={"waad": {"window": 3}}),
    )
    handle.remove()
    assert len(passes) == 1
    assert list(readings) == ["waad", "fai", "head_span"]
    assert float(readings["waad"].values.max()) <= 3


def test_a_measuring_recorder_can_be_used_again(subject, tokens):
    recorder = Measuring("head_span")
    first = capture(subject, {"input_ids": tokens}, into=recorder)["head_span"]
    capture(subject, {"input_ids": tokens[:, :5]}, into=recorder)
    again = capture(subject, {"input_ids": tokens}, into=recorder)["head_span"]
    torch.testing.assert_close(first.values, again.values)


def test_a_vision_tower_does_not_spoil_the_language_model_s_readings():
    from benchmarks.tiny_models import tiny

    model, inputs = tiny("LLaVA")
    reading = capture(Subject(model), inputs, into=Measuring("waad"))["waad"]
    assert reading.stack == "model.language_model.layers.self_attn"
    with pytest.raises(MetricError, match="causal"):
        capture(
            Subject(model),
            inputs,
            into=Measuring("waad", stack="model.vision_tower.encoder.layers.self_attn"),
        )


def test_requests_that_cannot_be_streamed_are_refused(subject, tokens):
    with pytest.raises(MetricError, match="all layers at once"):
        Measuring("rollout")
    with pytest.raises(MetricError, match="waad"):
        Measuring("waadd")
    with pytest.raises(MetricError, match="at least one metric"):
        Measuring()
    with pytest.raises(MetricError, match="no stack 'encoder'"):
        capture(subject, {"input_ids": tokens}, into=Measuring("waad", stack="encoder"))


def test_no_factor_is_kept_while_streaming(subject, tokens):
    import gc
    import weakref

    kept = []

    class Watching(Measuring):
        def record(self, observation):
            super().record(observation)
            kept.append(weakref.ref(observation.attention.query))

    capture(subject, {"input_ids": tokens}, into=Watching("waad", "head_span", "entropy"))
    gc.collect()
    assert kept
    assert not any(reference() is not None for reference in kept)


def test_gradient_metrics_ask_for_a_target(subject, tokens):
    class Wanting(Collector):
        def __init__(self):
            super().__init__()
            self.needs = frozenset({"gradient"})

    with pytest.raises(CaptureError, match="gradient='loss' or 'logit'"):
        capture(subject, {"input_ids": tokens}, into=Wanting())
