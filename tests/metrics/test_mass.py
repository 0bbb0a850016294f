"""Row sums, negative shares and the diagonal, for operators of every kind."""

import pytest
import torch

from attnscope.attention import DenseAttention, OuterAttention, SoftmaxAttention
from attnscope.metrics import MetricError, negative_share, own_share, row_sum


def test_a_distribution_sums_to_one_and_is_nowhere_negative() -> None:
    A = SoftmaxAttention(torch.randn(2, 5, 3), torch.randn(2, 5, 3))
    torch.testing.assert_close(row_sum(A), torch.ones(2, 5))
    assert negative_share(A).abs().max() < 1e-6
    torch.testing.assert_close(own_share(A), A.dense().diagonal(dim1=-2, dim2=-1))


def test_a_signed_operator_is_measured_as_its_matrix_is() -> None:
    A = OuterAttention(torch.randn(2, 6, 3), torch.randn(2, 6, 3))
    pattern = A.dense()
    torch.testing.assert_close(row_sum(A), pattern.sum(-1))
    below = pattern.clamp_max(0).abs().sum(-1) / pattern.abs().sum(-1)
    torch.testing.assert_close(negative_share(A), below, rtol=1e-4, atol=1e-5)
    own = pattern.diagonal(dim1=-2, dim2=-1).abs() / pattern.abs().sum(-1)
    torch.testing.assert_close(own_share(A), own)


def test_rows_that_cancel_are_half_negative_and_empty_ones_undefined() -> None:
    A = DenseAttention(torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]))
    assert negative_share(A)[0, 0] == 0.5
    assert negative_share(A)[0, 1].isnan()
    assert own_share(A)[0, 1].isnan()


def test_a_query_that_sees_nothing_has_no_row_sum() -> None:
    A = DenseAttention(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    assert row_sum(A)[0, 1].isnan()


def test_the_own_position_needs_one_sequence() -> None:
    A = DenseAttention(torch.ones(1, 2, 2) / 2, offset=None, key_axis="memory")
    with pytest.raises(MetricError, match="own_share needs queries and keys that are positions"):
        own_share(A)
