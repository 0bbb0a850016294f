"""Factorization self-attention against unfolding, padding and pooling layers of torch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, pad, unfold

from attnscope.attention import DenseAttention, GroupedAttention, Mixing, SoftmaxAttention
from attnscope.models.factorization import (
    FactorizedAttention,
    WindowGroup,
    per_channel_mean,
    released_pool,
)
from attnscope.models.factorization_network import FaViT, favit
from attnscope.models.factorization_spread import (
    spread_over_patches,
    spread_over_windows,
    window_slots,
)
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = {"channels": (16, 32, 64, 64), "depths": (1, 1, 1, 2), "reductions": (2, 2, 2, 1)}


def pooled_by_layers(windows: Tensor, released: bool) -> Tensor:
    """Pool `(batch, head, slot, window, dim)` as the released code does, or by channel."""
    if not released:
        return windows.mean(-2)
    return adaptive_avg_pool2d(windows.flatten(-2), (None, windows.shape[-1]))


def window_output(
    group: WindowGroup, query: Tensor, features: Tensor, released: bool = True
) -> Tensor:
    """Return what a window group gives, by layers of torch; `query (batch, head, token, dim)`."""
    span, heads = 6 * group.dilation + 1, group.heads
    below, right = (-length % span for length in features.shape[-2:])
    padded = pad(features, (0, right, 0, below), mode="reflect")
    columns = unfold(padded, 7, dilation=group.dilation, stride=span)
    windows = columns.reshape(len(features), heads, -1, 49, columns.shape[-1])
    slots = pooled_by_layers(windows.permute(0, 1, 3, 4, 2), released)
    key, value = group.key_value(group.mean(slots)).chunk(2, dim=-1)
    image = value.transpose(2, 3).reshape(len(features), -1, 7, 7)
    value = value + group.enhance(image).reshape(len(features), heads, -1, 49).transpose(2, 3)
    pattern = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
    return (pattern @ value).transpose(1, 2).flatten(2)


def pooled_output(module: FactorizedAttention, query: Tensor, features: Tensor) -> Tensor:
    group = module.pooled
    patches = group.norm(group.reduce(features).flatten(2).mT)
    key, value = group.key_value(patches).chunk(2, dim=-1)
    down = features.shape[-2] // group.reduce.stride[0]
    image = value.mT.unflatten(-1, (down, -1))
    value = value + group.enhance(image).flatten(2).mT
    return (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1) @ value


def whole_output(
    module: FactorizedAttention, features: Tensor, grid: tuple[int, int], released: bool
) -> Tensor:
    image = features.mT.unflatten(-1, grid)
    pooled = module.widths[0]
    query = module.query(features)
    local = module.local(image[:, pooled:])
    heads = query[..., pooled:].unflatten(-1, (module.heads, -1)).transpose(1, 2)
    outputs = [pooled_output(module, query[..., :pooled], image[:, :pooled])]
    groups = [group for group in (module.near, module.far) if group is not None]
    half, width = local.shape[1] // len(groups), heads.shape[-1] // len(groups)
    for number, group in enumerate(groups):
        part = heads[..., number * width : (number + 1) * width]
        own = local[:, number * half : (number + 1) * half]
        outputs.append(window_output(group, part, own, released))
    return module.projection(torch.cat(outputs, dim=-1))


@pytest.mark.parametrize("pool", [released_pool, per_channel_mean])
@pytest.mark.parametrize(
    ("channels", "heads", "reduction", "grid"),
    [(32, 2, 2, (8, 10)), (16, 1, 1, (7, 9)), (16, 1, 3, (12, 12))],
)
def test_it_is_what_layers_of_torch_make_of_it(
    channels: int,
    heads: int,
    reduction: int,
    grid: tuple[int, int],
    pool: Callable[[Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    module = FactorizedAttention(channels, heads, reduction, pool=pool).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    features = torch.randn(2, grid[0] * grid[1], channels, dtype=torch.float64)
    expected = whole_output(module, features, grid, pool is released_pool)
    torch.testing.assert_close(module(features, grid), expected)


def heard(module: nn.Module, *arguments: object) -> dict[str, tuple[SoftmaxAttention, Tensor]]:
    """Return operator and output of each `Mixing`, by the name of its group."""
    seen = {}
    for name, part in module.named_modules():
        if isinstance(part, Mixing):
            part.register_forward_hook(
                lambda _, given, output, name=name: seen.update({name: (given, output)})
            )
    module(*arguments)
    return seen


def test_every_map_is_a_distribution_and_the_operator_gives_the_output() -> None:
    torch.manual_seed(0)
    module = FactorizedAttention(32, 2, 2).double()
    seen = heard(module, torch.randn(2, 64, 32, dtype=torch.float64), (8, 8))
    shapes = {name: tuple(given[0].shape) for name, (given, _) in seen.items()}
    assert shapes == {
        "pooled.mixing": (2, 1, 64, 16),
        "near.mixing": (2, 2, 64, 49),
        "far.mixing": (2, 2, 64, 49),
    }
    for (attention, values), output in seen.values():
        assert attention.stochastic
        torch.testing.assert_close(attention.dense() @ values, output)


def test_the_two_ways_of_pooling_agree_for_one_window_only() -> None:
    windows = torch.arange(12.0).reshape(4, 3)
    assert released_pool(windows).tolist() == [1.5, 5.5, 9.5]
    assert per_channel_mean(windows).tolist() == [4.5, 5.5, 6.5]
    one = torch.randn(2, 49, 1, 5)
    torch.testing.assert_close(released_pool(one), per_channel_mean(one))


def test_a_map_of_one_window_is_attended_to_whole() -> None:
    assert window_slots((7, 7), 1).flatten().tolist() == list(range(49))
    pattern = torch.rand(1, 2, 49, 49).softmax(-1)
    spread = spread_over_windows(DenseAttention(pattern), (7, 7), 1)
    torch.testing.assert_close(spread.dense(), pattern)


@pytest.mark.parametrize(
    ("length", "dilation", "missing"), [(56, 8, 42), (28, 4, 22), (14, 2, 12), (56, 1, 0)]
)
def test_an_image_of_224_is_reflected_within_its_size(
    length: int, dilation: int, missing: int
) -> None:
    slots = window_slots((length, length), dilation)
    assert slots.shape[1] == ((length + missing) // (6 * dilation + 1)) ** 2
    numbers = torch.arange(length**2, dtype=torch.float64).reshape(1, 1, length, length)
    padded = pad(numbers, (0, missing, 0, missing), mode="reflect")
    unfolded = unfold(padded, 7, dilation=dilation, stride=6 * dilation + 1)
    assert slots.tolist() == unfolded[0].long().tolist()


def test_an_image_of_96_is_too_small_for_the_first_stage() -> None:
    with pytest.raises(ValueError, match=r"windows of 49 tokens need 25 more than the 24 of this"):
        favit("b0")(torch.zeros(1, 3, 96, 96))


def test_pooled_keys_are_spread_evenly_over_their_patches() -> None:
    pattern = torch.rand(1, 1, 20, 4).softmax(-1)
    spread = spread_over_patches(DenseAttention(pattern, query_axis="patch"), (4, 5), 2)
    expected = torch.zeros(1, 1, 20, 20)
    for row in range(4):
        for column in range(4):  # the fifth column fills no patch
            expected[..., 5 * row + column] = pattern[..., 2 * (row // 2) + column // 2] / 4
    torch.testing.assert_close(spread.dense(), expected)
    assert isinstance(spread, GroupedAttention)
    assert spread.is_partition


def test_slots_are_spread_evenly_over_windows_and_reflections_come_home() -> None:
    pattern = torch.rand(1, 1, 80, 49).softmax(-1)
    spread = spread_over_windows(DenseAttention(pattern), (8, 10), 1)
    expected = torch.zeros(1, 1, 80, 80)
    for slot in range(49):
        for top in (0, 7):
            for left in (0, 7):
                row, column = top + slot // 7, left + slot % 7
                row, column = min(row, 14 - row), min(column, 18 - column)
                expected[..., 10 * row + column] += pattern[..., slot] / 4
    torch.testing.assert_close(spread.dense(), expected)
    assert spread.stochastic


def test_spreading_is_exact_where_slots_are_channel_means() -> None:
    """Pooling commutes with a linear value path, so tokens give the same output as slots."""
    torch.manual_seed(0)
    features = torch.randn(1, 1, 80, 3, dtype=torch.float64)
    pattern = torch.rand(1, 1, 80, 49, dtype=torch.float64).softmax(-1)
    slots = per_channel_mean(features[:, :, window_slots((8, 10), 1)])
    spread = spread_over_windows(DenseAttention(pattern), (8, 10), 1)
    torch.testing.assert_close(spread.apply(features), pattern @ slots)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    module = FactorizedAttention(16, 1, 2).double()
    features = torch.randn(1, 64, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: module(x, (8, 8)), (features,), fast_mode=True)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [((32, 1, 8), 5_860), ((64, 2, 4), 15_164), ((128, 4, 2), 50_956), ((256, 8, 1), 192_452)],
)
def test_a_layer_has_the_released_number_of_parameters(
    sizes: tuple[int, int, int], count: int
) -> None:
    assert sum(part.numel() for part in FactorizedAttention(*sizes).parameters()) == count


@pytest.mark.parametrize(
    ("name", "count"),
    [("b0", 3_427_704), ("b1", 12_958_568), ("b2", 24_919_896), ("b3", 48_746_440)],
)
def test_a_network_has_the_published_number_of_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        network = favit(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_a_network_runs_in_training_and_evaluation(dtype: torch.dtype, training: bool) -> None:
    network = FaViT(**TINY, classes=5).to(dtype).train(training)
    logits = network(torch.randn(2, 3, 128, 128, dtype=dtype))
    assert (logits.shape, logits.dtype) == ((2, 5), dtype)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_it_keeps_the_contract_of_capture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = {"pixel_values": torch.randn(1, 3, 128, 128)}
    trace = assert_capture_keeps_the_contract(FaViT(**TINY, classes=5), inputs, tmp_path)
    assert "stages.0.blocks.0.attention.far.mixing" in [site.path for site in trace.sites]


def test_what_does_not_exist_or_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no FaViT 'b9'; there are b0, b1, b2, b3"):
        favit("b9")
    with pytest.raises(ValueError, match="24 channels cannot be cut into 16 equal parts"):
        FactorizedAttention(24, 1, 2)
