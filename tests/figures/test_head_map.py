import pytest
import torch

from attnscope.attention import DenseAttention, OuterAttention, SoftmaxAttention
from attnscope.figures import (
    FigureError,
    difference_map,
    gradient_map,
    pattern_map,
    saliency_map,
)


def softmax(length: int, heads: int = 2, seed: int = 0) -> SoftmaxAttention:
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(heads, length, 4, generator=generator) for _ in range(2))
    return SoftmaxAttention(query, key)


def gradient(attention: SoftmaxAttention, seed: int = 9) -> OuterAttention:
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.randn(attention.heads, attention.queries, 3, generator=generator) for _ in range(2)
    )
    return OuterAttention(left, right)


def test_a_pattern_is_the_mean_over_heads() -> None:
    attention = softmax(9)
    found = pattern_map(attention).block(range(2, 7), range(1, 5))
    torch.testing.assert_close(found, attention.dense().mean(0)[2:7, 1:5])


def test_heads_that_see_nothing_at_a_query_do_not_count_there() -> None:
    pattern = torch.zeros(2, 2, 2)
    pattern[0, 0, 0] = pattern[0, 1, 1] = pattern[1, 1, 0] = 1.0

    class Blind(DenseAttention):
        @property
        def valid_queries(self) -> torch.Tensor:
            return torch.tensor([[True, True], [False, True]])

    found = pattern_map(Blind(pattern)).block(range(2), range(2))
    assert found.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_a_gradient_exists_where_the_attention_does() -> None:
    attention = softmax(6, heads=1)
    own = gradient_map(attention, gradient(attention))
    expected = gradient(attention).dense()[0].tril()
    torch.testing.assert_close(own.block(range(6), range(6)), expected)
    assert own.signed
    assert own.offset == 0


def test_saliency_is_the_mean_size_of_the_heads_products() -> None:
    attention = softmax(6)
    own = saliency_map(attention, gradient(attention))
    expected = (attention.dense() * gradient(attention).dense()).abs().mean(0)
    torch.testing.assert_close(own.block(range(6), range(6)), expected)
    assert not own.signed


def test_a_difference_is_of_the_positions_that_both_maps_have() -> None:
    long, short = softmax(8), softmax(5, seed=1)
    own = difference_map(pattern_map(long), pattern_map(short))
    expected = long.dense().mean(0)[:5, :5] - short.dense().mean(0)
    assert (own.queries, own.keys, own.signed) == (5, 5, True)
    torch.testing.assert_close(own.block(range(5), range(5)), expected)


def test_a_difference_to_a_map_that_looks_ahead_shows_what_lies_ahead() -> None:
    ahead = DenseAttention(torch.full((1, 4, 4), 0.25))
    own = difference_map(pattern_map(softmax(4)), pattern_map(ahead))
    assert own.offset is None
    assert float(own.block(range(1), range(4))[0, 3]) == -0.25


def test_unlike_quantities_have_no_difference() -> None:
    attention = softmax(4)
    with pytest.raises(FigureError, match="have no difference; choose two maps of one kind"):
        difference_map(pattern_map(attention), gradient_map(attention, gradient(attention)))


def test_a_gradient_of_other_heads_is_refused() -> None:
    with pytest.raises(FigureError, match=r"shape \(1, 4, 4\), the attention \(2, 4, 4\)"):
        saliency_map(softmax(4), gradient(softmax(4, heads=1)))


def test_a_batch_is_refused() -> None:
    with pytest.raises(FigureError, match=r"batch axes \(2,\)"):
        pattern_map(SoftmaxAttention(torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4)))
