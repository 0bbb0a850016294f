"""FreeSwim: high-resolution video from a model trained on small ones, by windows of its own size.

Without training, a video transformer runs two branches beside each other. In the window branch each
patch sees all frames, and of each the `2 d + 1` rows and columns around it, the window pushed
inwards at the borders: neighborhood attention. In the full branch it sees everything. The
cross-attention to the text is computed from the full branch's queries alone, and its output is
written into both branches; at the end the window branch is the result. Both use the scale

    sqrt(log(2 n) / log(n) / dim),      n = rows * columns of a frame as it was trained

Cost O(T^2 H W (2 d_h + 1)(2 d_w + 1) dim) for the window branch of T frames of H x W patches. As an
`IndexedAttention` the window branch holds a weight for each visible pair: for videos of full size
the NATTEN package (CUDA) is needed, see `neighborhood_fused`.

Reference: Wu et al. 2025, arXiv:2511.14712, and the authors' code; what is done here is the
denoising step, not the pipeline around it (draft at the trained size, resize, renoise).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log, sqrt
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import Mixing, SoftmaxAttention
from attnscope.models.neighborhood_fused import neighborhood_operator
from attnscope.models.neighborhood_index import Neighborhood

__all__ = ["SwimCrossAttention", "SwimPass", "SwimSelfAttention", "inward_window", "swim_scale"]

TRAINED_PATCHES = 30 * 52
"""Patches of a frame at 480 x 832 pixels, the size that Wan 2.1 was trained on."""


def inward_window(grid: Sequence[int], half_window: Sequence[int]) -> Neighborhood:
    """Return what each patch of a video sees: all frames, and a window of rows and columns.

    Args:
        grid: Frames, rows and columns.
        half_window: How many rows and columns it sees on either side.

    Raises:
        ValueError: A half window is negative.

    Example:
        >>> inward_window((1, 5, 1), (1, 0)).keys().tolist()
        [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    """
    if min(half_window) < 0:
        raise ValueError(f"half window {tuple(half_window)}: rows and columns are not negative")
    frames, *sides = grid
    windows = [min(2 * half + 1, side) for half, side in zip(half_window, sides, strict=True)]
    return Neighborhood.of(tuple(grid), (frames, *windows))


def swim_scale(dim: int, trained_patches: int | None = TRAINED_PATCHES) -> float:
    """Return the factor of the scores: larger than `1 / sqrt(dim)`, to keep rows of entropy.

    Args:
        dim: Width of a head.
        trained_patches: Patches of a frame as it was trained; None for no correction.

    Example:
        >>> round(swim_scale(128), 6), swim_scale(4, None)
        (0.092461, 0.5)
    """
    if trained_patches is None:
        return dim**-0.5
    return sqrt(log(2 * trained_patches) / log(trained_patches) / dim)


@dataclass(slots=True)
class SwimPass:
    """What the attentions of a transformer have to know of the pass that is under way.

    Attributes:
        half_window: How many rows and columns the window branch sees on either side.
        trained_patches: Patches of a frame as it was trained, for the scale; None: no correction.
        grid: Frames, rows and columns of the patches.
        branches: `both`: the first half of the batch is the window branch, the second the full one;
            `cached`: the window branch with the cross-attention's outputs of an earlier pass;
            `window`: the window branch with a cross-attention of its own.
    """

    half_window: tuple[int, int]
    trained_patches: int | None = TRAINED_PATCHES
    grid: tuple[int, int, int] = field(default=(1, 1, 1))
    branches: Literal["both", "cached", "window"] = "both"


class SwimSelfAttention(nn.Module):
    """Self-attention of both branches, to be set as the processor of a diffusers attention."""

    def __init__(self, swim_pass: SwimPass) -> None:
        super().__init__()
        self.swim_pass = swim_pass
        self.window_mixing = Mixing()
        self.full_mixing = Mixing()

    def forward(
        self,
        attention: Any,
        hidden_states: Float[Tensor, "batch patch channel"],
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "batch patch channel"]:
        """Return what the patches of each branch read, projected; `attention` has the weights.

        Raises:
            ValueError: Both branches run and the batch does not hold both.
        """
        if self.swim_pass.branches == "both" and len(hidden_states) % 2:
            raise ValueError(
                f"a batch of {len(hidden_states)} does not hold both branches: the first half is "
                "the window branch, the second the full one"
            )
        query, key, value = _projected(attention, hidden_states, hidden_states)
        if rotary_emb is not None:
            query, key = (rotated(factor, *rotary_emb) for factor in (query, key))
        branches = 2 if self.swim_pass.branches == "both" else 1
        first, *others = zip(*(part.chunk(branches) for part in (query, key, value)), strict=True)
        output = [self._window(*first), *(self._full(*other) for other in others)]
        return _joined(attention, torch.cat(output), hidden_states)

    def _window(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        neighborhood = inward_window(self.swim_pass.grid, self.swim_pass.half_window)
        scaled = query * swim_scale(query.shape[-1], self.swim_pass.trained_patches)
        operator = neighborhood_operator(scaled, key, neighborhood)
        return self.window_mixing(operator, value, grid=self.swim_pass.grid)

    def _full(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scale = swim_scale(query.shape[-1], self.swim_pass.trained_patches)
        operator = SoftmaxAttention(
            query, key, scale, causal=False, query_axis="patch", key_axis="patch"
        )
        return self.full_mixing(operator, value, grid=self.swim_pass.grid)


class SwimCrossAttention(nn.Module):
    """Cross-attention of the full branch, whose output overrides that of the window branch."""

    def __init__(self, swim_pass: SwimPass) -> None:
        super().__init__()
        self.swim_pass = swim_pass
        self.cross_mixing = Mixing()
        self.kept: Tensor | None = None

    def forward(
        self,
        attention: Any,
        hidden_states: Float[Tensor, "batch patch channel"],
        encoder_hidden_states: Float[Tensor, "batch token text_channel"],
        attention_mask: None = None,
        rotary_emb: None = None,
    ) -> Float[Tensor, "batch patch channel"]:
        """Return what the full branch reads of the text, for every branch of the pass.

        Raises:
            ValueError: Outputs of an earlier pass are asked for and do not fit, or there are none.
        """
        branches = self.swim_pass.branches
        if branches == "cached":
            return self._earlier(hidden_states)
        if branches == "window":
            return self._read(attention, hidden_states, encoder_hidden_states)
        full, text = hidden_states.chunk(2)[1], encoder_hidden_states.chunk(2)[1]
        self.kept = self._read(attention, full, text)
        return self.kept.repeat(2, 1, 1)

    def _read(self, attention: Any, hidden_states: Tensor, text: Tensor) -> Tensor:
        query, key, value = _projected(attention, hidden_states, text)
        operator = SoftmaxAttention(query, key, causal=False, query_axis="patch", key_axis="token")
        output = self.cross_mixing(operator, value, grid=self.swim_pass.grid)
        return _joined(attention, output, hidden_states)

    def _earlier(self, hidden_states: Tensor) -> Tensor:
        if self.kept is None or self.kept.shape != hidden_states.shape:
            kept = "none" if self.kept is None else tuple(self.kept.shape)
            raise ValueError(
                f"the cross-attention kept {kept} of an earlier pass; this pass has "
                f"{tuple(hidden_states.shape)} and needs the same"
            )
        return self.kept


def rotated(
    factor: Float[Tensor, "batch head patch dim"], cosine: Tensor, sine: Tensor
) -> Float[Tensor, "batch head patch dim"]:
    """Return queries or keys turned by their positions, coordinates in pairs of neighbors.

    Args:
        factor: Queries or keys.
        cosine: Cosine of each coordinate's angle, `(1, patch, 1, dim)`; both of a pair have one.
        sine: Sine of the same.
    """
    cosine, sine = (turn[..., ::2].transpose(1, 2) for turn in (cosine, sine))
    first, second = factor[..., ::2], factor[..., 1::2]
    pairs = [first * cosine - second * sine, first * sine + second * cosine]
    return torch.stack(pairs, dim=-1).flatten(-2).type_as(factor)


def _projected(attention: Any, queries: Tensor, keys: Tensor) -> list[Tensor]:
    """Return normalized queries and keys, and values, by the weights of a diffusers attention."""
    factors = (
        attention.norm_q(attention.to_q(queries)),
        attention.norm_k(attention.to_k(keys)),
        attention.to_v(keys),
    )
    return [
        rearrange(factor, "batch patch (head dim) -> batch head patch dim", head=attention.heads)
        for factor in factors
    ]


def _joined(attention: Any, output: Tensor, like: Tensor) -> Tensor:
    joined = rearrange(output, "batch head patch dim -> batch patch (head dim)").type_as(like)
    for layer in attention.to_out:
        joined = layer(joined)
    return joined
