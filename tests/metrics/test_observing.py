"""What metrics of operators take from an observation."""

from dataclasses import replace

import pytest
import torch

from attnscope.metrics import MetricError, measure, nonlocality, patch_distance, received_attention
from attnscope.metrics.observing import (
    induction_of,
    massive_activations_of,
    of_hidden,
    of_patches,
    response_rows,
    sentence_labels,
    sink_rate_of,
    vertical_score_of,
)
from attnscope.traces import Segment, Segments, TokenSequence
from tests.metrics.patterns import IMAGE, RESPONSE, TOKENS, close, observation, small_trace

PLAIN = TokenSequence(name="text", tokens=tuple("abcdefgh"))


def test_the_response_is_all_its_segments_or_nothing() -> None:
    turns = (Segment(name="response", start=1, stop=3), Segment(name="response", start=5, stop=6))
    chat = TokenSequence(name="text", tokens=PLAIN.tokens, segments=Segments(turns))
    assert response_rows(observation(0)) == list(RESPONSE)
    assert response_rows(observation(0, queries=chat)) == [1, 2, 5]
    assert response_rows(observation(0, queries=PLAIN)) is None


def test_patches_are_those_of_the_image_that_was_asked_for() -> None:
    seen = observation(0)
    close(of_patches(patch_distance)(seen), patch_distance(seen.attention, (2, 3), IMAGE))
    close(
        measure(small_trace((0,)), "nonlocality").values[0],
        nonlocality(seen.attention, (2, 3), IMAGE),
    )
    with pytest.raises(MetricError, match="no image 1 in sequence 'text'; it has 1 segments"):
        of_patches(patch_distance)(seen, image=1)


def test_patches_that_are_read_from_another_grid_have_no_distances() -> None:
    seen = observation(0)
    pooled = replace(seen, site=replace(seen.site, query_sequence="image 1x1"))
    with pytest.raises(MetricError, match=r"reads 'text' from 'image 1x1'; distances between"):
        of_patches(patch_distance)(pooled)


def test_sentences_are_those_of_the_response_unless_given() -> None:
    seen = observation(0)
    texts = sentence_labels(seen)["sentence"]
    assert texts[:2] == (".", "w3 w4 w0.")
    assert vertical_score_of(seen).shape == (4, len(texts))
    assert vertical_score_of(seen, sentences=[(0, 3), (3, TOKENS)]).shape == (4, 2)
    assert sentence_labels(observation(0, keys=PLAIN))["sentence"] == ("abcdefgh",)


def test_the_sink_rate_of_a_layer_counts_its_heads() -> None:
    seen = observation(0)
    above = (received_attention(seen.attention)[:, 0] > 0.05).sum()
    close(sink_rate_of(seen, threshold=0.05), 25 * above)


def test_massive_activations_are_counted_by_position() -> None:
    counts = massive_activations_of(observation(0))
    assert counts.shape == (TOKENS,)
    assert counts.nonzero().tolist() == [[0]]
    assert float(massive_activations_of(observation(0), threshold=0.0, ratio=0.0)[1]) == 6


def test_what_was_not_captured_is_said() -> None:
    bare = observation(0, hidden=None, keys=PLAIN)
    with pytest.raises(MetricError, match=r"no hidden states were captured at layers\.0\.attn"):
        of_hidden(torch.Tensor.sum)(bare)
    with pytest.raises(MetricError, match="sequence 'text' has no token ids"):
        induction_of(bare)
