"""The rhythm of a whole model against its parts."""

import torch

from attnscope.attention import DenseAttention
from attnscope.metrics import (
    anchor_tokens,
    fai,
    group_mean,
    head_groups,
    head_span,
    measure,
    preplan_tokens,
    readings_of,
    receiver_heads,
    receiver_score,
    sentence_attention,
    sentence_spans,
    vertical_scores,
    waad,
    waad_change,
)
from attnscope.traces import TokenSequence
from tests.metrics.patterns import NAN, RESPONSE, TOKENS, close, observation, sequence, small_trace

ROWS = list(RESPONSE)
LAYERS = (2, 5, 7)
MAPS = {layer: DenseAttention(observation(layer).attention.dense()) for layer in LAYERS}
SPANS = torch.stack([head_span(A, ROWS) for A in MAPS.values()])


def test_local_waad_is_that_of_the_mean_map_of_the_local_heads() -> None:
    members = head_groups(SPANS).local_heads
    patterns = torch.stack([A.pattern for A in MAPS.values()])
    mean_map = DenseAttention(patterns[members].mean(0, keepdim=True))
    close(measure(small_trace(), "local_waad").values, waad(mean_map)[0])


def test_global_fai_is_that_of_the_mean_map_of_the_global_heads() -> None:
    members = head_groups(SPANS, 0.2).global_heads
    patterns = torch.stack([A.pattern for A in MAPS.values()])
    mean_map = DenseAttention(patterns[members].mean(0, keepdim=True))
    options = {"near": 2, "far": 9, "quantile": 0.2}
    close(measure(small_trace(), "global_fai", **options).values, fai(mean_map, 2, 9, ROWS)[0])


def test_receiver_fai_is_that_of_the_receiver_heads() -> None:
    sentences = sentence_spans(sequence().tokens, 12, TOKENS)
    scores = [
        receiver_score(vertical_scores(sentence_attention(A, sentences))) for A in MAPS.values()
    ]
    members = receiver_heads(torch.stack(scores), 2)
    expected = group_mean(torch.stack([fai(A, 2, 9, ROWS) for A in MAPS.values()]), members)
    found = measure(small_trace(), "receiver_fai", near=2, far=9, heads=2)
    close(found.values, expected)


def test_tokens_are_selected_within_the_response() -> None:
    trace = small_trace()
    change = measure(trace, "preplan").values
    local = measure(trace, "local_waad").values
    assert bool(change[:12].isnan().all())
    close(change[12:], waad_change(local[12:]))
    preplan = measure(trace, "preplan_token").values
    assert bool(preplan[:12].isnan().all())
    close(preplan[12:], preplan_tokens(local[12:]).double())
    received = measure(trace, "global_fai").values
    anchor = measure(trace, "anchor_token", share=0.3).values
    close(anchor[12:], anchor_tokens(received[12:], 0.3).double())
    assert int(anchor.nansum()) == 11  # 0.3 of 36, nearest


def test_without_a_response_all_tokens_are_taken() -> None:
    plain = TokenSequence(name="text", tokens=sequence().tokens)
    layers = [observation(layer, queries=plain, keys=plain) for layer in LAYERS]
    readings = readings_of(layers, ["preplan_token", "anchor_token"])
    assert int(readings["preplan_token"].values.sum()) == round(0.4 * TOKENS)
    assert not bool(readings["anchor_token"].values.isnan().any())


def test_the_last_token_of_each_run_of_queries_has_no_change() -> None:
    change = measure(small_trace(), "preplan", queries=[20, 21, 22, 30, 31]).values
    assert (~change.isnan()).nonzero().flatten().tolist() == [20, 21, 30]
    chosen = measure(small_trace(), "preplan_token", queries=[20, 21, 22, 30, 31]).values
    assert float(chosen.nansum()) == 2
    close(chosen[[0, 47]], [NAN, NAN])
