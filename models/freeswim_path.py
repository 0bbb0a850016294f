"""`freeswim`: a context in which a diffusers video transformer (Wan) runs FreeSwim's two branches.

The latent is doubled on its way into the transformer, and the window branch alone leaves it, so
that a pipeline around it needs no change. Processors and hooks are taken away on every exit.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.models.freeswim import (
    TRAINED_PATCHES,
    SwimCrossAttention,
    SwimPass,
    SwimSelfAttention,
)

__all__ = ["freeswim"]


@contextmanager
def freeswim(
    transformer: nn.Module,
    half_window: tuple[int, int],
    *,
    trained_patches: int | None = TRAINED_PATCHES,
    cache_steps: int | None = None,
) -> Iterator[SwimPass]:
    """Run a `WanTransformer3DModel` with FreeSwim's two branches while the context is open.

    With `cache_steps`, a conditional pass runs both branches at every so many steps, and between
    these the window branch with the cross-attention outputs that were kept; an unconditional pass
    (diffusers' `cache_context("uncond")`) runs the window branch alone. Without, every pass runs
    both. Open a new context for each video.

    Args:
        transformer: The transformer of a text-to-video pipeline.
        half_window: How many rows and columns of patches the window branch sees on either side: of
            30 x 52 patches as they were trained, the authors take (15, 26).
        trained_patches: Patches of a frame as it was trained; None for the scale of the model.
        cache_steps: Every how many steps the full branch runs (the authors take 2, or 5).

    Yields:
        What the attentions know of the pass under way.

    Raises:
        ValueError: The transformer is conditioned on images, or `cache_steps` is not positive.
    """
    if cache_steps is not None and cache_steps < 1:
        raise ValueError(f"cache_steps is {cache_steps}; it is at least 1, or None to keep nothing")
    blocks: Any = transformer.blocks
    if any(block.attn2.add_k_proj is not None for block in blocks):
        raise ValueError("this transformer is conditioned on images; FreeSwim knows text only")
    swim_pass = SwimPass(half_window, trained_patches)
    with ExitStack() as stack:
        for block in blocks:
            _set(stack, block.attn1, SwimSelfAttention(swim_pass))
            _set(stack, block.attn2, SwimCrossAttention(swim_pass))
        passes = _Passes(swim_pass, cache_steps)
        stack.enter_context(passes.named(transformer))
        handles = (
            transformer.register_forward_pre_hook(passes.before, with_kwargs=True),
            transformer.register_forward_hook(passes.after),
        )
        for handle in handles:
            stack.callback(handle.remove)
        yield swim_pass


class _Passes:
    """Which branches a pass runs, the doubling of its inputs and the halving of its output."""

    def __init__(self, swim_pass: SwimPass, cache_steps: int | None) -> None:
        self.swim_pass, self.cache_steps = swim_pass, cache_steps
        self.conditional, self.steps = True, 0

    def before(
        self, transformer: Any, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        latent = named["hidden_states"] if "hidden_states" in named else arguments[0]
        patch = transformer.config.patch_size
        frames, rows, columns = (
            size // part for size, part in zip(latent.shape[2:], patch, strict=True)
        )
        self.swim_pass.grid = (frames, rows, columns)
        self.swim_pass.branches = self._branches()
        if self.swim_pass.branches != "both":
            return arguments, named
        return (
            tuple(_twice(argument) for argument in arguments),
            {name: _twice(argument) for name, argument in named.items()},
        )

    def after(self, transformer: Any, arguments: Any, output: Any) -> Any:
        if self.swim_pass.branches != "both":
            return output
        window = output[0].chunk(2)[0]
        return (window,) if isinstance(output, tuple) else type(output)(sample=window)

    @contextmanager
    def named(self, transformer: Any) -> Iterator[None]:
        """Listen to the name that a pipeline gives to each pass."""
        transformer.cache_context = self._listening(transformer.cache_context)
        try:
            yield
        finally:
            del transformer.cache_context  # the method of its class shows again

    def _listening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def cache_context(name: str, **facts: Any) -> Iterator[None]:
            before, self.conditional = self.conditional, name != "uncond"
            try:
                with original(name, **facts):
                    yield
            finally:
                self.conditional = before

        return cache_context

    def _branches(self) -> Any:
        if self.cache_steps is None:
            return "both"
        if not self.conditional:
            return "window"
        self.steps += 1
        return "both" if (self.steps - 1) % self.cache_steps == 0 else "cached"


def _set(stack: ExitStack, attention: Any, processor: nn.Module) -> None:
    stack.callback(attention.set_processor, attention.get_processor())
    attention.set_processor(processor)


def _twice(argument: Any) -> Any:
    """Return a tensor of the batch twice, for both branches; anything else as it is."""
    return torch.cat([argument, argument]) if isinstance(argument, Tensor) else argument
