"""L2ViT's two attentions entry by entry, its local module by an impulse, and its sizes."""

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnscope.models.l2vit import (
    LinearAttention,
    LocalConcentration,
    WindowAttention,
    linear_operator,
)
from attnscope.models.l2vit_network import GlobalBlock, L2ViT, LocalBlock, l2vit
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).reshape(1, -1, 1)


def test_a_map_worked_by_hand() -> None:
    """Query 2, keys (3, 1, -4): S = 8 is below the floor of 100, so the row sums to 0.08."""
    attention = linear_operator(column(2), column(3, 1, -4), torch.ones(1))
    torch.testing.assert_close(attention.dense(), torch.tensor([[[0.06, 0.02, 0.0]]]).double())
    assert attention.row_mass().item() == pytest.approx(0.08)
    assert (attention.signed, attention.stochastic) == (False, False)


def test_the_floor_is_a_minimum() -> None:
    """Above it rows sum to the temperature, below it to that times S / 100."""
    temperature = torch.tensor([0.3], dtype=torch.float64)
    for query, share in [(100, 1.0), (25, 1.0), (12.5, 0.5), (-1, 0.0)]:  # S = 400, 100, 50, 0
        attention = linear_operator(column(query), column(3, 1, -4), temperature)
        assert attention.row_mass().item() == pytest.approx(0.3 * share)


def slow_linear(module: LinearAttention, features: Tensor) -> Tensor:
    """Return the module's output with the map built first, by a loop over its entries."""
    query, key, value = module.query_key_value(features).chunk(3, dim=-1)
    width = features.shape[-1] // module.heads
    output = torch.zeros_like(features)
    for item, head in product(range(len(features)), range(module.heads)):
        own = slice(head * width, (head + 1) * width)
        products = query[item, :, own].relu() @ key[item, :, own].relu().T
        for i in range(features.shape[1]):
            total = products[i].sum().maximum(torch.tensor(100.0))
            for j in range(features.shape[1]):
                weight = module.temperature[head] * products[i, j] / total
                output[item, i, own] += weight * value[item, j, own]
    return module.projection(output)


@pytest.mark.parametrize("size", [1.0, 30.0])  # sums below and above the floor
def test_keys_first_is_queries_first(size: float) -> None:
    torch.manual_seed(0)
    module = LinearAttention(6, 2).double()
    features = size * normal(0, 2, 6, 6)
    torch.testing.assert_close(module(features, (2, 3)), slow_linear(module, features))


def slow_windows(module: WindowAttention, features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the module's output from one softmax per patch over its window, padding included."""
    rows, columns, width = *grid, features.shape[-1] // module.heads
    bottom, right = (-(-length // module.window) * module.window for length in grid)
    image = features.new_zeros(len(features), bottom, right, features.shape[-1])
    image[:, :rows, :columns] = features.unflatten(1, grid)
    query, key, value = module.query_key_value(image).chunk(3, dim=-1)
    output = torch.zeros_like(features)
    for item, head, y, x in product(
        range(len(features)), range(module.heads), range(rows), range(columns)
    ):
        own = slice(head * width, (head + 1) * width)
        top, left = y // module.window * module.window, x // module.window * module.window
        window = (item, slice(top, top + module.window), slice(left, left + module.window), own)
        scores = key[window] @ query[item, y, x, own] * width**-0.5
        weights = scores.flatten().softmax(-1)
        output[item, y * columns + x, own] = weights @ value[window].flatten(0, 1)
    return module.projection(output)


@pytest.mark.parametrize("grid", [(4, 6), (3, 5), (1, 1)])
def test_patches_attend_within_their_window(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = WindowAttention(6, 2, window=2).double()
    features = normal(0, 2, grid[0] * grid[1], 6)
    torch.testing.assert_close(module(features, grid), slow_windows(module, features, grid))


def test_an_impulse_reaches_thirteen_by_thirteen_patches() -> None:
    torch.manual_seed(0)
    module = LocalConcentration(2).double().eval()
    still = normal(0, 1, 2, 21, 21)
    moved = still.clone()
    moved[0, 1, 10, 10] += 1.0
    with torch.no_grad():
        changed = (module(moved) - module(still)).abs() > 0
    reached = torch.zeros(21, 21, dtype=torch.bool)
    reached[4:17, 4:17] = True
    assert torch.equal(changed[0, 1], reached)
    assert not changed[0, 0].any()  # depthwise


@pytest.mark.parametrize("kind", [LinearAttention, WindowAttention])
def test_gradients_are_those_of_finite_differences(
    kind: type[LinearAttention | WindowAttention],
) -> None:
    torch.manual_seed(0)
    module = kind(2, 1).double()
    features = (20 * normal(0, 1, 4, 2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x, (2, 2)), features)


@pytest.mark.parametrize(
    ("variant", "count"), [("tiny", 28_596_781), ("small", 50_199_157), ("base", 88_577_188)]
)
def test_published_sizes(variant: str, count: int) -> None:
    with torch.device("meta"):
        network = l2vit(variant)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    with pytest.raises(ValueError, match="there are tiny, small, base"):
        l2vit("huge")


def tiny() -> L2ViT:
    torch.manual_seed(0)
    return L2ViT((8, 16), (1, 2), (2, 2), window=2, classes=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_trains(dtype: torch.dtype) -> None:
    network = tiny().to(dtype)
    logits = network.train()(normal(0, 2, 3, 15, 22, dtype=dtype))  # not of whole patches
    logits.logsumexp(-1).sum().backward()
    assert logits.shape == (2, 3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_blocks_take_turns() -> None:
    kinds = [type(block) for stage in tiny().stages for block in stage.children()]
    assert kinds == [LocalBlock, GlobalBlock] * 2


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    pixels = normal(0, 1, 3, 16, 24, dtype=torch.float32)
    trace = assert_capture_keeps_the_contract(tiny(), {"pixel_values": pixels}, tmp_path)
    shapes = [tuple(observation.attention.shape) for observation in trace.observations]
    # Windows of the second stage pad 2 x 3 patches to 2 x 4.
    assert shapes == [(1, 24, 24), (1, 24, 24), (2, 8, 8), (2, 6, 6)]
    assert {site.stack.split(".", 2)[2] for site in trace.sites} == {
        "linear_attention.mixing",
        "window_attention.mixing",
    }
