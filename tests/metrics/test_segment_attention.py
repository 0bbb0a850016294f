"""Attention to segments against loops, and the catalog's measures of pictures."""

import pytest
import torch

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.metrics import (
    METRICS,
    Accumulator,
    MetricError,
    attention_to_segments,
    head_outputs,
    layer_saliency,
    measure,
    sink_dimension_value,
    visual_nonsink_ratio,
)
from attnscope.metrics.picture_catalog import PICTURE_CATALOG
from attnscope.traces import Segment, Segments, TokenSequence
from tests.metrics.patterns import (
    IMAGE,
    RESPONSE,
    TOKENS,
    close,
    lists,
    normal,
    observation,
    pattern,
    sequence,
    small_trace,
)

NAMES = ["image", "prompt", "response"]


def test_agrees_with_a_loop_over_lists() -> None:
    attention = DenseAttention(pattern(0, 2, 9, 9))
    spans = [("image", 0, 2), ("prompt", 3, 5), ("image", 5, 6), ("response", 6, 9)]
    runs = Segments(tuple(Segment(name=name, start=a, stop=b) for name, a, b in spans))
    members = {"image": [0, 1, 5], "prompt": [3, 4], "response": [6, 7, 8]}
    slow = [
        [sum(head[t][j] for t in (4, 7) for j in keys) / 2 for keys in members.values()]
        for head in lists(attention.dense())
    ]
    close(attention_to_segments(attention, runs, [4, 7]), slow)
    with pytest.raises(MetricError, match="has none"):
        attention_to_segments(attention, Segments())


def test_batches_and_fused_operators_give_the_same() -> None:
    fused = SoftmaxAttention(normal(0, 2, 4, TOKENS, 8), normal(1, 2, 2, TOKENS, 8))
    both = attention_to_segments(fused, sequence().segments, RESPONSE)
    for item in range(2):
        close(both[item], attention_to_segments(fused.item(item), sequence().segments, RESPONSE))
    assert float(both.sum(-1).max()) < 1.0  # the first token has no role


@pytest.mark.parametrize("name", [metric.name for metric in PICTURE_CATALOG])
def test_a_stream_gives_what_a_trace_gives(name: str) -> None:
    trace, running = small_trace(), Accumulator(METRICS[name])
    for layer in trace.observe():
        running.update(layer)
    stored, streamed = measure(trace, name), running.finish()
    torch.testing.assert_close(stored.values, streamed.values, equal_nan=True)
    assert stored.coordinates == streamed.coordinates


def test_readings_are_those_of_the_functions() -> None:
    trace = small_trace((3,))
    seen = next(iter(trace.observe()))
    segments = measure(trace, "segment_attention")
    assert segments.coordinates["segment"] == tuple(NAMES)
    close(segments.values[0], attention_to_segments(seen.attention, trace.segments, RESPONSE))
    image = measure(trace, "image_attention").select(query=list(RESPONSE)).mean("query")
    close(segments.values[..., 0], image.values)
    assert seen.hidden is not None
    value = sink_dimension_value(seen.hidden, [2])
    options = {"dimensions": (2,), "tau": 1.2}
    marks = measure(trace, "visual_sink", **options).values[0]
    assert bool(marks[list(IMAGE)].equal((value >= 1.2)[list(IMAGE)].double()))
    assert 0 < float(marks.nansum()) < len(IMAGE)
    ratio = measure(trace, "visual_nonsink_ratio", **options).values[0]
    close(ratio, visual_nonsink_ratio(seen.attention, list(IMAGE), value >= 1.2))
    mass = measure(trace, "image_attention").values[0]
    chosen = (mass >= 0.1) & (ratio >= 0.6)
    share = measure(trace, "image_centric_share", rho=0.6, least_mass=0.1, **options).values[0]
    close(share, chosen[:, list(RESPONSE)].double().mean(-1))
    assert 0 < float(share.mean()) < 1


def test_saliency_is_of_the_row_that_predicts_the_last_target() -> None:
    reached = normal(200, 4, TOKENS, 8)
    reached[:, 31:] = 0.0
    seen = observation(0, gradient=reached)
    assert seen.value is not None
    row = METRICS["saliency"].measure(seen)
    close(row, layer_saliency(seen.attention, seen.value, reached, [30])[0])
    close(METRICS["saliency"].measure(seen, query=5).norm(), 1.0)


def test_what_is_missing_is_named_with_the_segments_that_exist() -> None:
    words = (Segment(name="prompt", start=0, stop=TOKENS),)
    text = TokenSequence(name="text", tokens=("a",) * TOKENS, segments=Segments(words))
    plain = observation(0, queries=text, keys=text)
    with pytest.raises(MetricError, match=r"needs an image segment. .* the segments \['prompt'\]"):
        Accumulator("image_attention").update(plain)
    with pytest.raises(MetricError, match=r"no image segment in sequence 'text'; it has \['pro"):
        METRICS["image_attention"].measure(plain)


def test_heads_that_share_values_have_an_output_each() -> None:
    attention, value = DenseAttention(pattern(0, 4, 5, 5)), normal(1, 2, 5, 3)
    dense = attention.dense()
    slow = [
        [(dense[h, t, :, None] * value[h // 2]).sum(0).tolist() for t in (4, 1)] for h in range(4)
    ]
    close(head_outputs(attention, value, [-1, 1]), slow)
    with pytest.raises(MetricError, match=r"no queries \[5\]"):
        head_outputs(attention, value, [5])
    with pytest.raises(MetricError, match="do not fit"):
        head_outputs(attention, normal(1, 3, 5, 3), [0])
