"""`ConvolutionAttention` against a map built entry by entry, and torch's own convolutions."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import ConvolutionAttention, OperatorError
from tests.attention.agreement import assert_agrees
from tests.attention.strategies import normal


def matrix_of(kernel: Tensor, grid: Sequence[int], dilation: int, causal: bool) -> Tensor:
    """Return the map, kernel entry by kernel entry."""
    axes = len(grid)
    window = kernel.shape[-axes:]
    places = list(product(*map(range, grid)))
    matrix = kernel.new_zeros(*kernel.shape[:-axes], len(places), len(places))
    for row, place in enumerate(places):
        for slot in product(*map(range, window)):
            middle = [size - 1 if causal else size // 2 for size in window]
            steps = [dilation * (s - m) for s, m in zip(slot, middle, strict=True)]
            reached = tuple(p + step for p, step in zip(place, steps, strict=True))
            if reached in places:
                matrix[..., row, places.index(reached)] = kernel[(..., *slot)]
    return matrix


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Tensor, list[int], int, bool]:
    axes = draw(st.sampled_from([1, 1, 2, 3]))
    grid = [draw(st.integers(1, 5 if axes < 3 else 3)) for _ in range(axes)]
    causal = axes == 1 and draw(st.booleans())
    window = [draw(st.sampled_from([1, 2, 3, 5] if causal else [1, 3, 5])) for _ in range(axes)]
    batch = draw(st.sampled_from([(), (2,)]))
    kernel = normal(draw(st.integers(0, 99)), *batch, draw(st.integers(1, 3)), *window)
    return kernel if draw(st.booleans()) else kernel.abs(), grid, draw(st.integers(1, 2)), causal


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_every_method_is_that_of_the_map(case: tuple[Tensor, list[int], int, bool]) -> None:
    kernel, grid, dilation, causal = case
    attention = ConvolutionAttention(kernel, grid, dilation=dilation, causal=causal)
    assert_agrees_but_for_kernel_signs(attention, matrix_of(kernel, grid, dilation, causal))


def assert_agrees_but_for_kernel_signs(attention: ConvolutionAttention, matrix: Tensor) -> None:
    """A negative weight that never lies on a small grid still makes the kernel signed."""
    if attention.signed and not bool((matrix < 0).any()):
        torch.testing.assert_close(attention.dense(), matrix)
    else:
        assert_agrees(attention, matrix)


def test_it_is_the_depthwise_convolution_of_torch() -> None:
    layer = torch.nn.Conv2d(3, 3, 5, padding=4, dilation=2, groups=3, bias=False).double()
    image = normal(0, 2, 3, 6, 7)
    kernel = layer.weight.detach()[:, 0].expand(2, -1, -1, -1)
    attention = ConvolutionAttention(kernel, (6, 7), dilation=2)
    expected = layer(image).flatten(2).unsqueeze(-1)
    torch.testing.assert_close(attention.apply(image.flatten(2).unsqueeze(-1)), expected)


def test_a_kernel_shared_by_the_batch_is_the_same_kernel_for_each_item() -> None:
    kernel, values = normal(0, 2, 3, 3), normal(1, 4, 1, 12, 5)
    shared = ConvolutionAttention(kernel.expand(4, -1, -1, -1), (3, 4))
    own = ConvolutionAttention(kernel.repeat(4, 1, 1, 1), (3, 4))
    torch.testing.assert_close(shared.apply(values), own.apply(values))
    torch.testing.assert_close(shared.apply_transpose(values), own.apply_transpose(values))


def test_a_mean_of_neighbors_reads_nine_of_twenty_five_at_a_corner() -> None:
    attention = ConvolutionAttention(torch.full((1, 5, 5), 1 / 25), (5, 5))
    mass = attention.row_mass()[0]
    assert float(mass[0]) == pytest.approx(9 / 25)
    assert float(mass[12]) == pytest.approx(1.0)
    assert float(attention.power_sum(2.0)[0, 0]) == pytest.approx(9 / 625)
    assert float(attention.normalized().rows([0])[0, 0, 0]) == pytest.approx(1 / 9)


def test_gradients_reach_kernel_and_values() -> None:
    kernel, values = normal(0, 2, 3, 3).requires_grad_(), normal(1, 2, 6, 2).requires_grad_()
    apply = lambda k, v: ConvolutionAttention(k, (2, 3)).apply(v)  # noqa: E731
    transpose = lambda k, v: ConvolutionAttention(k, (2, 3)).apply_transpose(v)  # noqa: E731
    assert torch.autograd.gradcheck(apply, (kernel, values))
    assert torch.autograd.gradcheck(transpose, (kernel, values))


def test_an_item_is_cut_from_batch_and_graph() -> None:
    kernel = normal(0, 3, 5).requires_grad_()
    item = ConvolutionAttention(kernel.expand(2, -1, -1), [7], causal=True, dilation=2).item(1)
    torch.testing.assert_close(item.kernel, kernel.detach())
    assert not item.kernel.requires_grad
    assert (item.causal, item.dilation, item.grid) == (True, 2, (7,))
    with pytest.raises(OperatorError, match="no batch axis"):
        item.item(0)


@pytest.mark.parametrize(
    ("window", "grid"), [((3,), (4,)), ((3, 5), (2, 3)), ((3, 1, 3), (2, 2, 2))]
)
def test_it_is_built_again_from_its_parts(window: tuple[int, ...], grid: tuple[int, ...]) -> None:
    attention = ConvolutionAttention(
        normal(0, 2, *window), grid, dilation=2, query_axis="patch", key_axis="patch"
    )
    again = ConvolutionAttention.from_parts(*attention.parts())
    torch.testing.assert_close(again.dense(), attention.dense())
    assert again.key_axis == "patch"


def test_length_costs_what_the_window_costs() -> None:
    attention = ConvolutionAttention(torch.ones(2, 3, 3), (400, 400))
    values = torch.ones(1, 160_000, 1)
    assert attention.apply(values).sum() == attention.apply_transpose(values).sum()
    assert attention.column_mass()[0, :2].tolist() == [4.0, 6.0]
    assert attention.rows([401])[0].sum() == 9
    with pytest.raises(OperatorError, match="over the limit"):
        attention.dense()


def test_rows_are_no_distributions_until_normalized() -> None:
    attention = ConvolutionAttention(torch.full((1, 3), 1 / 3), [4])
    with pytest.raises(OperatorError, match=r"ask its normalized\(\)"):
        attention.entropy()
    normalized = attention.normalized().entropy()
    torch.testing.assert_close(normalized.exp(), torch.tensor([[2.0, 3.0, 3.0, 2.0]]))
    with pytest.raises(OperatorError, match="entries that are not negative"):
        ConvolutionAttention(-torch.ones(1, 3), [4]).power_sum(2.0)


def test_sixteen_bit_kernels_have_statistics_in_thirty_two() -> None:
    attention = ConvolutionAttention(normal(0, 1, 3, dtype=torch.bfloat16), [4])
    assert attention.dtype == attention.row_mass().dtype == attention.dense().dtype == torch.float32
    assert attention.apply(torch.ones(1, 4, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kernel", "grid", "options", "message"),
    [
        ((2, 4), (5,), {}, r"window \(4,\) has no middle; its lengths must be odd"),
        ((2, 3, 3), (5, 5), {"causal": True}, "causal is for a grid of one axis"),
        ((3,), (5,), {}, r"needed are a kernel \(\*batch, head, \*window\)"),
        ((1, 3, 3, 3, 3), (2, 2, 2, 2), {}, "a grid of 1 to 3 axes"),
        ((1, 3), (5,), {"dilation": 0}, "a dilation of at least 1"),
        ((1, 3), (5,), {"key_axis": "patch"}, "queries and keys are the same positions"),
    ],
)
def test_what_does_not_fit_is_refused(
    kernel: tuple[int, ...], grid: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OperatorError, match=message):
        ConvolutionAttention(torch.ones(kernel), grid, **options)
