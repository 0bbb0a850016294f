"""Shifted windows by hand and against a masked map; a U-Net that is changed, and then is itself."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnscope.models.hidiffusion import (
    ShiftedWindowProcessor,
    random_draw,
    shifted_window_attention,
    window_shift,
)
from attnscope.models.hidiffusion_settings import (
    SETTINGS,
    HiDiffusionSettings,
    PooledResize,
    StridedResize,
)
from attnscope.models.hidiffusion_unet import Run, hidiffusion
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed"
)
SMALL = {
    "sample_size": 16,
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "attention_head_dim": 4,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def make_unet() -> Callable[..., Any]:
    diffusers = pytest.importorskip("diffusers")
    return lambda **options: diffusers.UNet2DConditionModel(**(SMALL | options)).eval()


@pytest.fixture(scope="module")
def sd(make_unet: Callable[..., Any]) -> Any:
    """Return a random network of the blocks of Stable Diffusion 1.5 and 2.1."""
    return make_unet(block_out_channels=(8, 16, 16, 16))


@pytest.fixture(scope="module")
def sdxl(make_unet: Callable[..., Any]) -> Any:
    """Return a random network of the blocks of SDXL, with three transformer blocks at the end."""
    return make_unet(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 3, 2),
    )


class Denoiser(nn.Module):
    """One step of a network under a fixed prompt."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet, self.prompt = unet, torch.ones(1, 3, 8)

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        prompt = self.prompt.expand(len(pixel_values), -1, -1)
        return self.unet(pixel_values, 7, prompt).sample


@contextmanager
def inner_sizes(unet: Any) -> Iterator[list[int]]:
    """Note how many rows the deepest map has in each call."""
    rows: list[int] = []
    hook = unet.mid_block.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[2]))
    yield rows
    hook.remove()


def test_a_shift_of_two_joins_the_corners_by_hand() -> None:
    """An 8 x 8 map in windows of 4 x 4: position (0, 0) sees rows and columns 6, 7, 0, 1."""
    assert [window_shift((8, 8), draw) for draw in range(4)] == [(k, k) for k in range(4)]
    nothing = torch.zeros(1, 2, 64, 4)
    row = shifted_window_attention(nothing, nothing, (8, 8), (2, 2)).rows([0])[0, 1].reshape(8, 8)
    expected = torch.zeros(8)
    expected[[6, 7, 0, 1]] = 0.25
    torch.testing.assert_close(row, expected[:, None] * expected)
    with pytest.raises(ValueError, match="the draw is 4; it is one of 0, 1, 2, 3"):
        window_shift((8, 8), 4)


def test_a_small_window_never_moves() -> None:
    assert {window_shift((6, 6), draw) for draw in range(4)} == {(0, 0)}


@pytest.mark.parametrize("draw", range(4))
def test_the_attention_is_softmax_within_rolled_windows(draw: int) -> None:
    grid = (8, 16)
    shift = window_shift(grid, draw)
    query, key = normal(0, 2, 2, 128, 4), normal(1, 2, 2, 128, 4)
    window = torch.tensor(
        [
            (row - shift[0]) % 8 // 4 * 2 + (column - shift[1]) % 16 // 8
            for row in range(8)
            for column in range(16)
        ]
    )
    scores = query @ key.mT / 2
    pattern = scores.masked_fill(window[:, None] != window, -torch.inf).softmax(-1)
    attention = shifted_window_attention(query, key, grid, shift)
    torch.testing.assert_close(attention.dense(), pattern)
    assert attention.stochastic


def test_each_draw_is_as_likely() -> None:
    draw = random_draw(torch.Generator().manual_seed(0))
    counts = torch.bincount(torch.tensor([draw() for _ in range(2000)]), minlength=4)
    assert counts.min() > 430
    assert len(counts) == 4


@pytest.mark.parametrize(
    ("key", "resizes"),
    [
        (("sd1.5", 1024), [("strided", 0, 20), ("pooled", 0, 0)]),
        (("sd2.1", 2048), [("strided", 0, 35), ("pooled", 0, 15)]),
        (("sdxl", 2048), [("pooled", 8, 20), ("strided", 0, 8)]),
        (("sdxl", 4096), [("pooled", 0, 35), ("strided", 0, 15)]),
        (("sdxl-turbo", 1024), [("pooled", 0, 25), ("strided", 0, 0)]),
    ],
)
def test_thresholds_of_fifty_steps_are_the_published_ones(
    key: tuple[str, int], resizes: list[tuple[str, int, int]]
) -> None:
    found = []
    for resize in SETTINGS[key].resizes:
        within = [step for step in range(50) if Run(50, calls=step + 1).is_within(resize)]
        kind = "strided" if isinstance(resize, StridedResize) else "pooled"
        found.append((kind, within[0] if within else 0, within[-1] + 1 if within else 0))
    assert found == resizes


@needs_diffusers
def test_windows_stand_in_the_published_blocks(sd: Any, sdxl: Any) -> None:
    with hidiffusion(sd, SETTINGS["sd1.5", 1024], steps=2) as run:
        assert list(run.processors) == [
            f"{block}.attentions.{place}.transformer_blocks.0"
            for block, count in (("down_blocks.0", 2), ("up_blocks.3", 3))
            for place in range(count)
        ]
    with hidiffusion(sdxl, SETTINGS["sdxl", 2048], steps=2) as run:
        assert list(run.processors) == [
            f"{block}.attentions.{place}.transformer_blocks.{number}"
            for block, count in (("down_blocks.1", 2), ("up_blocks.1", 3))
            for place in range(count)
            for number in range(2)
        ]


@needs_diffusers
@pytest.mark.parametrize(
    ("key", "rows"),
    [
        (("sd1.5", 1024), [2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 2]),
        (("sd1.5", 2048), [1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 1]),
    ],
)
def test_the_deep_maps_shrink_in_the_first_steps(
    sd: Any, key: tuple[str, int], rows: list[int]
) -> None:
    """Of 32 rows the deepest block has 4; after all ten steps the count begins anew."""
    network = Denoiser(sd)
    settings = replace(SETTINGS[key], transformers=())
    with inner_sizes(sd) as found, hidiffusion(sd, settings, steps=10):
        for _ in rows:
            assert network(torch.randn(2, 4, 32, 32)).shape == (2, 4, 32, 32)
    assert found == rows


@needs_diffusers
def test_sdxl_is_strided_first_and_pooled_then(sdxl: Any) -> None:
    network, calls = Denoiser(sdxl), []
    hook = (
        sdxl.down_blocks[1]
        .downsamplers[0]
        .register_forward_hook(
            lambda _, given, output: calls.append((given[0].shape[2], output.shape[2]))
        )
    )
    settings = replace(SETTINGS["sdxl", 2048], transformers=())
    with hidiffusion(sdxl, settings, steps=25):
        for _ in range(11):
            network(torch.zeros(1, 4, 16, 16))
    hook.remove()
    assert calls == 4 * [(8, 2)] + 6 * [(4, 2)] + [(8, 4)]


@needs_diffusers
@pytest.mark.filterwarnings("ignore:a map of")
@pytest.mark.parametrize("grid", [(26, 38), (24, 20)])
def test_maps_that_cannot_be_halved_come_back_to_their_size(
    sd: Any, sdxl: Any, grid: tuple[int, int]
) -> None:
    for unet, key in ((sd, ("sd1.5", 2048)), (sdxl, ("sdxl", 4096))):
        network = Denoiser(unet)
        with hidiffusion(unet, SETTINGS[key], steps=1, draw=lambda: 1):
            output = network(torch.randn(1, 4, *grid))
        assert output.shape == (1, 4, *grid)
        assert output.isfinite().all()


@needs_diffusers
def test_afterwards_the_network_is_what_it_was(sd: Any) -> None:
    network, latents = Denoiser(sd), torch.randn(1, 4, 32, 32)
    before, names = network(latents), [name for name, _ in network.named_modules()]
    processors, weights = sd.attn_processors, list(sd.state_dict())
    with hidiffusion(sd, SETTINGS["sd1.5", 2048], steps=4):
        assert not torch.equal(network(latents), before)
        assert list(sd.state_dict()) == weights
    with (
        pytest.raises(KeyError, match="in the middle"),
        hidiffusion(sd, SETTINGS["sd1.5", 2048], steps=4),
    ):
        raise KeyError("in the middle")
    assert torch.equal(network(latents), before)
    assert [name for name, _ in network.named_modules()] == names
    assert sd.attn_processors == processors
    hooked = [m for m in sd.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooked
    assert all("forward" not in vars(module) for module in sd.modules())


@needs_diffusers
def test_a_failure_to_enter_leaves_nothing_behind(sd: Any) -> None:
    settings = SETTINGS["sd1.5", 1024]
    wrong = PooledResize(down="down_blocks.9", up="up_blocks.2", stop=1.0)
    other = StridedResize(down="down_blocks.3.resnets.0", up="up_blocks.2", stop=1.0)
    for resize, message in ((wrong, "is no module of this network"), (other, "has no stride")):
        with (
            pytest.raises(ValueError, match=message),
            hidiffusion(sd, replace(settings, resizes=(resize,)), steps=2),
        ):
            pass
    assert not any(isinstance(module, ShiftedWindowProcessor) for module in sd.modules())
    assert not sd._forward_pre_hooks


@needs_diffusers
def test_shifts_are_drawn_for_each_call_and_known(sd: Any) -> None:
    network, draws = Denoiser(sd), iter([0, 1, 2, 3, 0, 3, 3, 3, 3, 3])
    windows = HiDiffusionSettings(transformers=SETTINGS["sd1.5", 1024].transformers)
    with hidiffusion(sd, windows, steps=2, draw=lambda: next(draws)) as run:
        assert all(processor.shift is None for processor in run.processors.values())
        network(torch.randn(1, 4, 16, 16))
        shifts = [processor.shift for processor in run.processors.values()]
        assert shifts == [(0, 0), (2, 2), (4, 4), (6, 6), (0, 0)]
        assert run.step == 0
        network(torch.randn(1, 4, 16, 16))
        assert run.step == 1
        assert {processor.shift for processor in run.processors.values()} == {(6, 6)}


@needs_diffusers
def test_a_processor_is_the_modules_own_attention_within_windows(sd: Any) -> None:
    module = sd.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    states = torch.randn(2, 16, 8)
    processor = ShiftedWindowProcessor(lambda: 0)
    processor.grid = (4, 4)
    with torch.no_grad():
        output = processor(module, states)
        windows = states.unflatten(1, (2, 2, 2, 2)).transpose(2, 3)  # down right row column
        expected = module(windows.reshape(8, 4, 8)).reshape(windows.shape).transpose(2, 3)
    torch.testing.assert_close(output, expected.flatten(1, 4))


@needs_diffusers
def test_what_a_processor_cannot_do_is_refused(sd: Any) -> None:
    module = sd.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    processor, states = ShiftedWindowProcessor(lambda: 0), torch.randn(1, 9, 8)
    with pytest.raises(ValueError, match="set `grid` first"):
        processor(module, states)
    with pytest.raises(ValueError, match="self-attention without a mask"):
        processor(module, states, states)
    processor.grid = (3, 3)
    with pytest.warns(UserWarning, match="a map of 3 x 3 cannot be halved and is resized to 4 x 4"):
        output = processor(module, states)
    assert output.shape == states.shape


@needs_diffusers
def test_capture_keeps_the_contract(sd: Any, tmp_path: Path) -> None:
    with hidiffusion(sd, SETTINGS["sd1.5", 1024], steps=1, draw=lambda: 3):
        trace = assert_capture_keeps_the_contract(
            Denoiser(sd), {"pixel_values": torch.randn(1, 4, 16, 16)}, tmp_path
        )
    windowed = [o for o in trace.observations if "processor.mixing" in o.site.path]
    assert len(windowed) == 5
    assert all(observation.attention.shape[-1] == 256 for observation in windowed)
