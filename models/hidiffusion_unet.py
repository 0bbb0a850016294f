"""HiDiffusion in a U-Net of diffusers: shifted windows and resolution-aware resizing (RAU-Net).

    strided: a down-sampler's 3x3 runs with stride 4, padding 2, dilation 2 instead of 2, 1, 1;
             what its up-sampler returns is resized to the size that went in
    pooled:  2x2 mean after the first transformer of a down block, and after the second transformer
             of the up block the map is resized back

Deep blocks then see the map sizes they were trained on. Each resizing runs in a share of the steps,
from the first on; afterwards the network is its own again. No parameters, no training.

Reference: Zhang et al. 2023, arXiv:2311.17528; modules and thresholds are those of the released
code. It doubles maps on their way up; here they return to the size they had, the same if even.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from attnscope.models.hidiffusion import ShiftedWindowProcessor, random_draw
from attnscope.models.hidiffusion_settings import (
    HiDiffusionSettings,
    PooledResize,
    StridedResize,
)

__all__ = ["Run", "hidiffusion"]


@dataclass(slots=True)
class Run:
    """What has happened since the network was changed.

    Attributes:
        steps: Number of denoising steps; the count begins anew after as many calls.
        calls: Calls of the network so far.
        processors: The shifted windows by the path of their transformer block; each knows the
            `shift` of its last call.
    """

    steps: int
    calls: int = 0
    processors: dict[str, ShiftedWindowProcessor] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Return the number of the present step, from 0."""
        return max(self.calls - 1, 0) % self.steps

    def is_within(self, resize: StridedResize | PooledResize) -> bool:
        """Return whether the present step is one of a resizing's."""
        return int(resize.start * self.steps) <= self.step < int(resize.stop * self.steps)


@contextmanager
def hidiffusion(
    unet: nn.Module,
    settings: HiDiffusionSettings,
    steps: int,
    draw: Callable[[], int] | None = None,
) -> Iterator[Run]:
    """Change a `UNet2DConditionModel` while the context lasts, and restore it on every way out.

    Args:
        unet: The network.
        settings: What to change, such as `SETTINGS["sd1.5", 1024]`.
        steps: Number of denoising steps; each call of the network is one.
        draw: Gives the shift's draw of each call of a block; by default a random one.

    Yields:
        What has happened so far: steps, and the shifts.

    Raises:
        ValueError: The network has no such module, or it is of another kind.
    """
    run, draw = Run(steps), draw or random_draw()
    with ExitStack() as stack:
        hook = unet.register_forward_pre_hook(partial(_count, run))
        stack.callback(hook.remove)
        for path in settings.transformers:
            run.processors |= _window(unet, path, settings.blocks, draw, stack)
        for resize in settings.resizes:
            change = _stride if isinstance(resize, StridedResize) else _pool
            change(unet, resize, run, stack)
        if settings.resizes:  # two halvings more, so that odd sizes are handed down as targets
            stack.callback(setattr, unet, "num_upsamplers", unet.num_upsamplers)
            unet.num_upsamplers = unet.num_upsamplers + 2  # pyright: ignore[reportOperatorIssue] - int
        yield run


def _count(run: Run, *_: Any) -> None:
    run.calls += 1


def _module(unet: nn.Module, path: str, kind: str) -> Any:
    """Return a module by its path.

    Raises:
        ValueError: There is none, or it has not what its kind has.
    """
    try:
        module = unet.get_submodule(path)
    except AttributeError as error:
        found = ", ".join(name for name, _ in unet.named_children())
        raise ValueError(f"{path} is no module of this network; it has {found}") from error
    if not hasattr(module, kind):
        raise ValueError(f"{path} is a {type(module).__name__}, which has no {kind}")
    return module


def _window(
    unet: nn.Module,
    path: str,
    blocks: int | None,
    draw: Callable[[], int],
    stack: ExitStack,
) -> dict[str, ShiftedWindowProcessor]:
    """Let the first blocks of a transformer attend in shifted windows."""
    transformer = _module(unet, path, "transformer_blocks")
    processors = {}
    for number, block in enumerate(transformer.transformer_blocks[:blocks]):
        processor = ShiftedWindowProcessor(draw)
        stack.callback(block.attn1.set_processor, block.attn1.processor)
        block.attn1.set_processor(processor)
        processors[f"{path}.transformer_blocks.{number}"] = processor

    def tell_grid(_: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        image = arguments[0] if arguments else named["hidden_states"]
        for processor in processors.values():
            processor.grid = image.shape[-2], image.shape[-1]

    hook = transformer.register_forward_pre_hook(tell_grid, with_kwargs=True)
    stack.callback(hook.remove)
    return processors


def _stride(
    unet: nn.Module, resize: StridedResize | PooledResize, run: Run, stack: ExitStack
) -> None:
    """Let a down-sampler halve twice, and resize before the convolution that undoes it."""
    down, up = _module(unet, resize.down, "stride"), _module(unet, resize.up, "stride")
    sizes: list[tuple[int, int]] = []
    own = down.forward

    def halve_twice(features: Tensor) -> Tensor:
        sizes[:] = [(features.shape[-2], features.shape[-1])]
        if not run.is_within(resize):
            return own(features)
        return conv2d(features, down.weight, down.bias, 4, 2, 2, down.groups)

    def restore(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (
            (_sized(arguments[0], sizes[0]), *arguments[1:]) if run.is_within(resize) else arguments
        )

    down.forward = halve_twice  # on the instance: the class's own comes back when this is deleted
    stack.callback(delattr, down, "forward")
    stack.callback(up.register_forward_pre_hook(restore).remove)


def _pool(
    unet: nn.Module, resize: StridedResize | PooledResize, run: Run, stack: ExitStack
) -> None:
    """Halve a map after the first transformer of a block, and resize after the second one above."""
    down = _module(unet, f"{resize.down}.attentions.0", "transformer_blocks")
    up = _module(unet, f"{resize.up}.attentions.1", "transformer_blocks")
    sizes: list[tuple[int, int]] = []

    def halve(_: nn.Module, __: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        sizes[:] = [(output[0].shape[-2], output[0].shape[-1])]
        if not run.is_within(resize):
            return output
        return avg_pool2d(output[0], 2, ceil_mode=True), *output[1:]

    def restore(_: nn.Module, __: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_sized(output[0], sizes[0]), *output[1:]) if run.is_within(resize) else output

    stack.callback(down.register_forward_hook(halve).remove)
    stack.callback(up.register_forward_hook(restore).remove)


def _sized(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map at a size; itself where it has it."""
    if features.shape[-2:] == size:
        return features
    return interpolate(features, size=size, mode="bicubic")
