"""The rules of relevance on matrices: cases worked by hand, and two streams."""

import pytest
import torch

from attnscope.attention import DenseAttention
from attnscope.metrics import (
    MetricError,
    co_attention_rule,
    normalized_relevance,
    self_attention_rule,
)
from tests.metrics.patterns import close


def influence(values: list[list[float]]) -> DenseAttention:
    matrix = torch.tensor([values])
    return DenseAttention(matrix, offset=0 if matrix.shape[-1] == matrix.shape[-2] else None)


def test_two_self_attentions_by_hand() -> None:
    layer = influence([[0.5, 0.0], [0.0, 0.0]])
    relevance = self_attention_rule(self_attention_rule(torch.eye(2), layer), layer)
    close(relevance, [[2.25, 0.0], [0.0, 1.0]])


def test_a_relevance_that_nothing_was_added_to_is_its_own_normalization() -> None:
    close(normalized_relevance(torch.eye(3)), torch.eye(3))
    close(normalized_relevance(torch.tensor([[1.1, 0.3], [0.0, 1.0]])), [[1.25, 0.75], [0.0, 1.0]])


def test_two_streams_by_hand() -> None:
    """One word, two regions; the word reads the regions, then they read the word."""
    own, regions = torch.eye(1), self_attention_rule(torch.eye(2), influence([[0, 0.5], [0, 0]]))
    to_regions, to_word = torch.zeros(1, 2), torch.zeros(2, 1)
    own, to_regions = co_attention_rule(influence([[0.2, 0.6]]), own, regions, to_regions, to_word)
    # regions normalized: [[1, 1], [0, 1]]; [.2, .6] of them: [.2, .8]
    close(own, [[1.0]])
    close(to_regions, [[0.2, 0.8]])
    read_word = influence([[0.5], [0.0]])
    regions_after, to_word = co_attention_rule(read_word, regions, own, to_word, to_regions)
    # R_ss + Abar R_qs = [[1, .5], [0, 1]] + [[.5], [0]] [.2, .8]
    close(regions_after, [[1.1, 0.9], [0.0, 1.0]])
    # [[1, 1], [0, 1]]^T [[.5], [0]] 1
    close(to_word, [[0.5], [0.5]])


def test_a_later_layer_carries_the_other_stream_on() -> None:
    to_other = torch.tensor([[0.2, 0.6], [0.0, 0.0]])
    carried = self_attention_rule(to_other, influence([[0.0, 0.0], [0.5, 0.0]]))
    close(carried, [[0.2, 0.6], [0.1, 0.3]])


def test_matrices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MetricError, match=r"cannot be followed by a matrix \(3, 3\): it needs 2 r"):
        self_attention_rule(torch.eye(3), influence([[0.5, 0.0], [0.0, 0.0]]))
