"""Halo attention against loops over pixels, against timm, and by hand."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnscope.models.halo import HaloAttention, HaloBlocks
from attnscope.models.halo_network import VARIANTS, HaloNet, HaloNetShape
from attnscope.models.neighborhood_index import Neighborhood
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract

PUBLISHED = {
    "h0": 5_500_952,
    "h1": 8_100_056,
    "h2": 9_404_312,
    "h3": 11_841_304,
    "h4": 19_101_976,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def slow_pattern(module: HaloAttention, features: Tensor) -> Tensor:
    """Return each query's row by loops over its window, padding left out or dropped afterwards."""
    blocks, (batch, _, height, width) = module.blocks, features.shape
    query, key = module.query(features), module.key(features)
    query = query.unflatten(1, (module.heads, -1)).flatten(-2)
    key = key.unflatten(1, (module.heads, -1))
    columns = width // blocks.stride
    pattern = features.new_zeros(batch, module.heads, query.shape[-1], height * width)
    for b, h, t in product(range(batch), range(module.heads), range(query.shape[-1])):
        y, x = t // columns * blocks.stride, t % columns * blocks.stride
        top, left = (place // blocks.size * blocks.size - blocks.halo for place in (y, x))
        q, scores, places = query[b, h, :, t], [], []
        for down, right in product(range(blocks.window), repeat=2):
            j, i = top + down, left + right
            inside = 0 <= j < height and 0 <= i < width
            if not inside and not module.leaks_padding:
                continue
            # A query stands `halo` inside its window; the tables count from the block's own corner.
            row = module.relative_row[down - y % blocks.size + blocks.window - 1]
            column = module.relative_column[right - x % blocks.size + blocks.window - 1]
            score = float(q @ (row + column))
            score += float(q @ key[b, h, :, j, i]) / math.sqrt(len(q)) if inside else 0.0
            scores.append(score)
            places.append(j * width + i if inside else None)
        weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
        for weight, place in zip(weights, places, strict=True):
            if place is not None:
                pattern[b, h, t, place] += weight
    return pattern


@pytest.mark.parametrize("leaks", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_attention_is_that_of_loops_over_windows(stride: int, leaks: bool) -> None:
    blocks = HaloBlocks(size=2, halo=1, stride=stride)
    module = HaloAttention(6, 4, blocks, heads=2, leaks_padding=leaks).double()
    features = normal(1, 2, 6, 4, 6)
    with torch.no_grad():
        attention, expected = module.attend(features), slow_pattern(module, features)
        torch.testing.assert_close(attention.dense(), expected)
        values = module.value(features).unflatten(1, (2, -1)).flatten(-2).mT
        read = (expected @ values).mT.unflatten(-1, (4 // stride, 6 // stride))
        torch.testing.assert_close(module(features), read.flatten(1, 2))
    assert attention.stochastic == (not leaks)


def test_without_scores_a_corner_reads_nine_of_sixteen() -> None:
    """Block 2, halo 1: 16 keys in a window, of which a corner block has 9 in the image."""
    leaking = HaloAttention(4, 4, HaloBlocks(size=2, halo=1), heads=1, leaks_padding=True)
    masked = HaloAttention(4, 4, HaloBlocks(size=2, halo=1), heads=1)
    nothing = torch.zeros(1, 4, 6, 6)
    with torch.no_grad():
        leaked, kept = leaking.attend(nothing), masked.attend(nothing)
    corner = [0, 1, 2, 6, 7, 8, 12, 13, 14]
    expected = torch.zeros(36)
    expected[corner] = 1 / 16
    torch.testing.assert_close(leaked.rows([0])[0, 0, 0], expected)
    torch.testing.assert_close(leaked.row_mass()[0, 0, 0], torch.tensor(9 / 16))
    torch.testing.assert_close(leaked.row_mass()[0, 0, 14], torch.tensor(1.0))  # the middle block
    torch.testing.assert_close(kept.rows([0])[0, 0, 0], expected * 16 / 9)
    assert kept.stochastic
    assert not leaked.stochastic


@pytest.mark.parametrize(("size", "halo"), [(2, 1), (4, 1), (4, 2)])
def test_inside_it_is_the_neighborhood_of_a_window_in_strides_of_a_block(
    size: int, halo: int
) -> None:
    blocks, grid = HaloBlocks(size=size, halo=halo), (4 * size, 5 * size)
    strided = Neighborhood.of(grid, blocks.window, stride=size).keys()
    inside = (blocks.keys(grid) >= 0).all(-1)
    assert int(inside.sum()) == 2 * 3
    for queries, keys in zip(blocks.queries(grid)[inside], blocks.keys(grid)[inside], strict=True):
        assert all(torch.equal(strided[query], keys) for query in queries)


@pytest.mark.parametrize("size", [(2, 1), (4, 2), (4, 3)])
def test_the_leaking_form_is_that_of_timm(size: tuple[int, int]) -> None:
    layers = pytest.importorskip("timm.layers.halo_attn")
    block, halo = size
    theirs = layers.HaloAttn(
        16, 24, num_heads=4, dim_head=4, block_size=block, halo_size=halo
    ).double()
    ours = HaloAttention(16, 24, HaloBlocks(size=block, halo=halo), 4, leaks_padding=True).double()
    by_head = theirs.kv.weight.unflatten(0, (4, 10))  # each head's key, then its value
    with torch.no_grad():
        ours.query.weight.copy_(theirs.q.weight)
        ours.key.weight.copy_(by_head[:, :4].flatten(0, 1))
        ours.value.weight.copy_(by_head[:, 4:].flatten(0, 1))
        ours.relative_row.copy_(theirs.pos_embed.height_rel)
        ours.relative_column.copy_(theirs.pos_embed.width_rel)
    features = normal(2, 2, 16, 8, 12)
    torch.testing.assert_close(ours(features), theirs(features))


def test_gradients_reach_every_parameter() -> None:
    module = HaloAttention(2, 2, HaloBlocks(size=2, halo=1, stride=2), heads=1).double()
    names, parameters = zip(*module.named_parameters(), strict=True)

    def read(features: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), features)

    features = normal(3, 1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(read, (features, *parameters))


def test_a_map_that_is_not_whole_blocks_is_refused() -> None:
    module = HaloAttention(8, 8, HaloBlocks())
    with pytest.raises(ValueError, match=r"12 x 16 pixels is not whole blocks; .* multiples of 8"):
        module(torch.zeros(1, 8, 12, 16))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name: str) -> None:
    with torch.device("meta"):
        network = HaloNet(VARIANTS[name])
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "millions"), [("h5", 30.72), ("h6", 43.46), ("h7", 67.43)])
def test_the_large_members_have_the_size_of_the_formula(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = HaloNet(VARIANTS[name])
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 2) == millions


def test_a_network_learns_on_a_batch() -> None:
    network = HaloNet(HaloNetShape(block=2, halo=1, block_width=0.25, depth=1), classes=3)
    pixels = torch.randn(2, 3, 64, 64)
    logits = network(pixels)
    assert logits.shape == (2, 3)
    logits.square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert network.double().eval()(pixels.double()).dtype == torch.float64


@pytest.mark.parametrize("leaks", [False, True])
def test_capture_keeps_the_contract(leaks: bool, tmp_path: Path) -> None:
    network = HaloNet(HaloNetShape(block=2, halo=1, block_width=0.25, depth=1), classes=3)
    for module in network.modules():
        if isinstance(module, HaloAttention):
            module.leaks_padding = leaks
    trace = assert_capture_keeps_the_contract(
        network, {"pixel_values": torch.randn(1, 3, 64, 64)}, tmp_path
    )
    assert len(trace.sites) == 10
    assert all(site.attention.stochastic != leaks for site in trace.observations)
