"""Local attention in overlapping patches against loops that add patches up and halve overlaps."""

import pytest
import torch
from torch import Tensor

from attnscope.models.token_aggregation_local import LocalAttention, overlapping_patches


def starts_of(length: int, size: int) -> list[tuple[int, int]]:
    """Return where each patch starts and where it would, had it not been moved back."""
    step = size - 2
    return [(min(mark, length - size), mark) for mark in range(0, length + step - size, step)]


def averaged(patches: list[Tensor], grid: tuple[int, int], size: int) -> Tensor:
    """Add patches `(channel, down, right)` up in raster order and halve each overlap."""
    output, numbers = torch.zeros(patches[0].shape[0], *grid, dtype=patches[0].dtype), iter(patches)
    for top, _ in starts_of(grid[0], size):
        for left, _ in starts_of(grid[1], size):
            output[:, top : top + size, left : left + size] += next(numbers)
    for top, mark in starts_of(grid[0], size)[1:]:
        output[:, top : mark + 2] /= 2
    for left, mark in starts_of(grid[1], size)[1:]:
        output[:, :, left : mark + 2] /= 2
    return output


def patches_of(image: Tensor, size: int) -> list[Tensor]:
    return [
        image[:, top : top + size, left : left + size]
        for top, _ in starts_of(image.shape[1], size)
        for left, _ in starts_of(image.shape[2], size)
    ]


def output_by_loops(module: LocalAttention, image: Tensor) -> Tensor:
    size, grid, outputs = module.size, (image.shape[1], image.shape[2]), []
    for patch in patches_of(image, size):
        tokens = patch.flatten(1).T
        normal = module.norm(tokens)
        query, key, value = (
            part(normal).unflatten(-1, (module.heads, -1)).transpose(0, 1)
            for part in (module.query, module.key, module.value)
        )
        pattern = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        mixed = module.projection((pattern @ value).transpose(0, 1).flatten(1))
        outputs.append((tokens + mixed).T.reshape(patch.shape))
    tokens = averaged(outputs, grid, size).flatten(1).T
    tokens = tokens + module.mlp(module.mlp_norm(tokens)[None], grid)[0]
    return tokens.T.reshape(image.shape)


@pytest.mark.parametrize("grid", [(5, 5), (5, 8), (6, 9), (7, 6)])
def test_it_is_what_loops_make_of_it(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = LocalAttention(8, 4, 6, 2, size=5).double()
    images = torch.randn(2, 8, *grid, dtype=torch.float64)
    expected = torch.stack([output_by_loops(module, image) for image in images])
    torch.testing.assert_close(module(images), expected)


def test_the_operator_is_the_mean_of_the_patches_maps() -> None:
    torch.manual_seed(0)
    module, grid = LocalAttention(8, 4, 6, 2, size=4).double(), (5, 7)
    tokens = torch.randn(1, 35, 8, dtype=torch.float64)
    overlap = overlapping_patches(grid, 4)
    attention = module.attention(tokens, overlap)
    query, key = (part(tokens[0]).chunk(2, dim=-1) for part in (module.query, module.key))
    expected = torch.zeros(2, 35, 35, dtype=torch.float64)
    for head in range(2):
        for patch in overlap.tokens:
            scores = query[head][patch] @ key[head][patch].T / 2**0.5
            expected[head, patch[:, None], patch] += scores.softmax(-1)
        expected[head] *= overlap.shares[:, None]
    torch.testing.assert_close(attention.dense()[0], expected)
    torch.testing.assert_close(attention.row_mass()[0, 0], overlap.cover.double())
    assert not attention.stochastic  # 7 columns: three patches meet
    assert module.attention(tokens[:, :24], overlapping_patches((4, 6), 4)).stochastic


@pytest.mark.parametrize("grid", [(16, 16), (16, 30), (31, 44), (17, 45), (33, 20)])
def test_patches_and_places_are_those_of_loops(grid: tuple[int, int]) -> None:
    overlap = overlapping_patches(grid, 16)
    numbers = torch.arange(grid[0] * grid[1]).reshape(1, *grid)
    expected = torch.stack([patch.flatten() for patch in patches_of(numbers, 16)])
    assert torch.equal(overlap.tokens, expected)
    for token in range(0, grid[0] * grid[1], 37):
        places = overlap.places[token]
        standing = (expected.flatten() == token).nonzero().flatten().tolist()
        assert sorted(places[places >= 0].tolist()) == standing


@pytest.mark.parametrize(
    ("length", "least"), [(16, 1.0), (30, 1.0), (44, 1.0), (31, 0.5625), (45, 0.5625)]
)
def test_the_mean_is_whole_unless_the_last_patch_was_moved_back(length: int, least: float) -> None:
    cover = overlapping_patches((length, length), 16).cover
    assert (float(cover.min()), float(cover.max())) == (least, 1.0)
    ones = [torch.ones(1, 16, 16)] * len(starts_of(length, 16)) ** 2
    assert torch.equal(cover, averaged(ones, (length, length), 16).flatten())


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    module = LocalAttention(4, 4, 6, 2, size=3).double()
    images = torch.randn(1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (images,), fast_mode=True)


def test_a_map_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="patches of 16 tokens do not fit into 15"):
        overlapping_patches((15, 20), 16)
