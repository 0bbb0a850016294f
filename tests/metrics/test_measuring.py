"""Measuring stored traces and running models by the same code."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from attnscope.attention import DenseAttention, OuterAttention, SoftmaxAttention
from attnscope.metrics import (
    METRICS,
    Accumulator,
    Metric,
    MetricError,
    head_span,
    measure,
    readings_of,
    waad,
)
from attnscope.traces import Observation, Site, Trace, open_trace
from tests.metrics.patterns import (
    RESPONSE,
    TOKENS,
    close,
    normal,
    observation,
    random_operator,
    sequence,
    small_trace,
)

LAYERS = (2, 5, 7)
OPTIONS: dict[str, dict[str, Any]] = {"receiver_fai": {"heads": 3}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    path: Path = tmp_path_factory.mktemp("traces") / "small.safetensors"
    small_trace(LAYERS).save(path)
    return open_trace(path)


@pytest.mark.parametrize("name", METRICS)
def test_stored_and_streamed_readings_agree(stored: Trace, name: str) -> None:
    options = OPTIONS.get(name, {})
    from_file = measure(stored, name, **options)
    if not METRICS[name].streams:
        with pytest.raises(MetricError, match=f"{name} needs all layers at once; collect a trace"):
            Accumulator(name)
        return
    running = Accumulator(name, options)
    for layer in LAYERS:
        running.update(observation(layer))
    streamed = running.finish()
    torch.testing.assert_close(streamed.values, from_file.values, equal_nan=True)
    assert streamed.axes == from_file.axes
    assert dict(streamed.coordinates) == dict(from_file.coordinates)
    assert streamed.options == from_file.options


@pytest.mark.parametrize("name", METRICS)
def test_the_fused_operator_gives_the_readings_of_its_map(name: str) -> None:
    layers = [observation(layer) for layer in LAYERS]
    dense = [observation(o.site.layer, DenseAttention(o.attention.dense())) for o in layers]
    options = {name: OPTIONS.get(name, {})}
    fused = readings_of(layers, [name], options)[name]
    close(fused.values, readings_of(dense, [name], options)[name].values, 1e-8)


def test_the_layers_of_a_reading_are_the_functions_of_the_operators() -> None:
    reading = measure(small_trace(LAYERS), "waad", window=4)
    expected = [waad(observation(layer).attention, 4) for layer in LAYERS]
    close(reading.values, torch.stack(expected))
    assert reading.axes == ("layer", "head", "query")
    assert reading.coordinates["layer"] == LAYERS
    assert reading.coordinates["query"] == sequence().tokens
    assert reading.bounds == (0.0, 4.0)
    assert (reading.stack, reading.unit) == ("layers", "tokens")
    assert reading.options == {"window": 4}


def test_metrics_of_the_response_take_its_rows_unless_told_otherwise() -> None:
    A = observation(2).attention
    trace = small_trace((2,))
    close(measure(trace, "head_span").values[0], head_span(A, RESPONSE))
    close(measure(trace, "head_span", queries=[3, 4]).values[0], head_span(A, [3, 4]))


def test_several_metrics_take_one_pass_and_nothing_is_held() -> None:
    alive: list[weakref.ref[object]] = []

    def layers() -> Iterator[Observation]:
        for layer in LAYERS:
            seen = observation(layer)
            assert all(other() is None for other in alive)
            alive.append(weakref.ref(seen.attention))
            yield seen
            del seen
            gc.collect()

    readings = readings_of(layers(), ["waad", "fai", "head_span", "local_waad"])
    assert list(readings) == ["waad", "fai", "head_span", "local_waad"]


def test_sentences_are_coordinates() -> None:
    reading = measure(
        small_trace(), "vertical_score", sentences=[(0, 2), (2, 9), (9, 12)], proximity=1
    )
    assert reading.coordinates["sentence"][0] == ". w1"
    assert reading.values.shape == (3, 4, 3)


def test_readings_carry_no_gradient() -> None:
    query = normal(0, 2, TOKENS, 4).requires_grad_()
    live = observation(0, SoftmaxAttention(query, normal(1, 2, TOKENS, 4)))
    assert not readings_of([live], ["waad"])["waad"].values.requires_grad


def test_rows_beside_learned_sinks_may_be_rescaled() -> None:
    def sunk(layer: int) -> Observation:
        factors = normal(layer, 2, TOKENS, 4), normal(layer + 9, 2, TOKENS, 4)
        return observation(layer, SoftmaxAttention(*factors, sinks=normal(3, 2)))

    with pytest.raises(
        MetricError, match=r"entropy at layers\.0\.attn needs rows that sum to 1 \(pa"
    ):
        readings_of([sunk(0)], ["entropy"])
    reading = readings_of([sunk(0)], ["entropy"], {"entropy": {"renormalize": True}})["entropy"]
    close(reading.values[0], sunk(0).attention.normalized().entropy())
    assert reading.options == {"renormalize": True}
    signed = observation(0, OuterAttention(normal(0, 2, TOKENS, 3), normal(1, 2, TOKENS, 3)))
    with pytest.raises(
        MetricError, match=r"entropy at layers\.0\.attn: OuterAttention.* is signed"
    ):
        readings_of([signed], ["entropy"], {"entropy": {"renormalize": True}})


def test_an_operators_refusal_names_the_metric_and_the_site() -> None:
    asks = Metric(
        name="asks",
        title="",
        axes=("layer",),
        paper="",
        measure=lambda o: o.attention.log_normalizer(),
    )
    dense = observation(1, random_operator(0, 2, TOKENS, TOKENS))
    with pytest.raises(MetricError, match=r"asks at layers\.1\.attn: DenseAttention.* has no log"):
        readings_of([dense], [asks])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wad", {}, r"no metric 'wad'; the catalog has \['anchor_token', "),
        ("waad", {"windw": 3}, r"waad has no option windw; it has \['window'\]"),
        ("waad", {"window": 0}, "waad window is 0"),
        ("patch_distance", {"image": 1}, "no image 1 in sequence 'text'; it has 1 segments"),
    ],
)
def test_unknown_names_and_options_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        measure(small_trace(), name, **options)


def test_layers_of_different_shapes_make_no_reading() -> None:
    running = Accumulator("head_span")
    running.update(observation(0))
    with pytest.raises(
        MetricError,
        match=r"head_span has shape \(4,\) in the layers before and \(2,\) at layers\.1",
    ):
        running.update(observation(1, random_operator(0, 2, TOKENS, TOKENS)))


def test_one_stack_is_measured_at_a_time() -> None:
    running = Accumulator("waad")
    running.update(observation(0))
    other = Site(stack="cross", layer=0, path="cross.0")
    with pytest.raises(
        MetricError, match=r"waad is measured on stack 'layers'; cross\.0 belongs to"
    ):
        running.update(observation(0, site=other))


def test_a_layer_is_measured_once() -> None:
    running = Accumulator("waad")
    running.update(observation(0))
    with pytest.raises(
        MetricError, match=r"waad was measured on layer 0 before: layers\.0\.attn has"
    ):
        running.update(observation(0))
    running.update(observation(1))
    assert running.finish().coordinates["layer"] == (0, 1)


@pytest.mark.parametrize("name", ["waad", "local_waad", "rollout"])
def test_no_layer_makes_no_reading(name: str) -> None:
    with pytest.raises(MetricError, match=f"{name} was given no layer to measure"):
        readings_of([], [name])
