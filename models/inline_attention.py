"""InLine attention: linear attention whose map tells queries apart, with a local residual.

Global part, over N keys, with `s = dim^-1/2 / N` and `kbar` the mean key:

    a_ij = 1/N + s q_i . (k_j - kbar)

Linear attention divides products by their sum, so that a positive factor of the query cancels and
different queries get the same map; here the sum is subtracted instead. Rows still sum to 1, and
entries may be negative. Local part: a 3x3 depthwise kernel, one number per channel and neighbor,
predicted for each image from its mean token, is applied to the values of the patches.

O(N dim) memory and O(N dim^2) time per head; the local part O(9 N) per channel.

Reference: Han et al. 2024, arXiv:2412.06590, equation 5 and section 4; the scale `dim^-1/2 / N`
and that the class token takes part in the global part alone are those of the authors' code.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import AttentionOperator, ConvolutionAttention, KernelAttention, Mixing

__all__ = ["InLineAttention", "confusion", "inline_operator"]


def inline_operator(
    query: Float[Tensor, "*batch head query dim"],
    key: Float[Tensor, "*batch head key dim"],
    scale: float | None = None,
) -> KernelAttention:
    """Return `1/N + scale q_i . (k_j - kbar)`; the scale is `dim^-1/2 / N` unless it is given.

    The shift by `1/N` is one more feature: 1 for each query and `1/N` for each key.

    Example:
        >>> query, key = torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[[1.0], [0.0]]])
        >>> inline_operator(query, key).dense().tolist()
        [[[0.75, 0.25], [1.0, 0.0], [1.5, -0.5]]]
    """
    keys, dim = key.shape[-2:]
    factor = dim**-0.5 / keys if scale is None else scale
    centered = factor * (key - key.mean(-2, keepdim=True))
    shift = torch.full_like(key[..., :1], 1 / keys)
    return KernelAttention(
        torch.cat([query, torch.ones_like(query[..., :1])], dim=-1),
        torch.cat([centered, shift], dim=-1),
        normalize=False,
        signed=True,
        query_axis="patch",
        key_axis="patch",
    )


class InLineAttention(nn.Module):
    """InLine attention of the tokens of an image, class and register tokens first.

    Args:
        channels: Width of a token.
        heads: Number of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.kernel = nn.Sequential(
            nn.Conv1d(channels, channels, 1, groups=heads),
            nn.GELU(),
            nn.Conv1d(channels, 9 * channels, 1, groups=heads),
        )
        self.projection = nn.Linear(channels, channels)
        self.global_mixing = Mixing()
        self.local_mixing = Mixing()

    def forward(
        self, features: Float[Tensor, "batch token channel"], grid: Sequence[int]
    ) -> Float[Tensor, "batch token channel"]:
        """Return the sum of what the global and the local part read, projected.

        Args:
            features: Tokens; the last `rows x columns` are patches in raster order.
            grid: Rows and columns of the patches.
        """
        query, key, value = rearrange(
            self.query_key_value(features),
            "batch token (factor head dim) -> factor batch head token dim",
            factor=3,
            head=self.heads,
        )
        read = self.global_mixing(inline_operator(query, key), value, grid=grid)
        output = rearrange(read, "batch head token dim -> batch token (head dim)")
        others = features.shape[1] - grid[0] * grid[1]
        patches = rearrange(
            value[:, :, others:], "batch head patch dim -> batch (head dim) patch 1"
        )
        near = self.local_mixing(self._neighbors(features, grid), patches, grid=grid)
        near = rearrange(near, "batch channel patch 1 -> batch patch channel")
        output = torch.cat([output[:, :others], output[:, others:] + near], dim=1)
        return self.projection(output)

    def _neighbors(
        self, features: Float[Tensor, "batch token channel"], grid: Sequence[int]
    ) -> ConvolutionAttention:
        """Return the local part: a head is a channel."""
        mean = rearrange(features.mean(1), "batch channel -> batch channel 1")
        kernel = rearrange(
            self.kernel(mean),
            "batch (channel row column) 1 -> batch channel row column",
            row=3,
            column=3,
        )
        return ConvolutionAttention(kernel, grid, query_axis="patch", key_axis="patch")


def confusion(
    attention: AttentionOperator,
    query: Float[Tensor, "*batch head query dim"],
    thresholds: Sequence[float] = (1e-3,),
) -> Float[Tensor, "*batch head threshold"]:
    """Return the share of unlike queries whose maps are alike.

    Of the pairs of queries further apart than the median pair (or as far, where most are equally
    far), those whose rows differ by less than a threshold in total variation,
    `sum_j |a_ij - a_kj| / 2`. 0 where every such pair is told apart, 1 where none is; NaN for
    fewer than two queries. Several thresholds give a curve.

    Raises:
        OperatorError: The map is too long to be held.

    Reference:
        Han et al. 2024 count queries with equal maps and give no threshold (our reading: distance
        above the median, and 1e-3).

    Example:
        >>> query, key = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[1.0], [0.0]]])
        >>> confusion(KernelAttention(query, key), query).tolist()  # linear attention: both (1, 0)
        [[1.0]]
        >>> confusion(inline_operator(query, key), query).tolist()
        [[0.0]]
    """
    pattern = attention.dense()
    first, second = torch.triu_indices(attention.queries, attention.queries, 1)
    limits = torch.tensor(thresholds, dtype=pattern.dtype, device=pattern.device)
    distance = torch.cdist(query, query)[..., first, second]
    variation = torch.cdist(pattern, pattern, p=1.0)[..., first, second] / 2
    if not distance.shape[-1]:
        return pattern.new_full((*pattern.shape[:-2], len(thresholds)), torch.nan)
    apart = distance >= distance.median(-1, keepdim=True).values
    alike = (variation.unsqueeze(-1) < limits) & apart.unsqueeze(-1)
    return alike.sum(-2) / apart.sum(-1, keepdim=True).to(pattern.dtype)
