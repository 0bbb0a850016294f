"""Efficient local attention (ELA): one gate along rows, one along columns, per channel.

    z_h(c, i) = mean_j x(c, i, j),    a_h = sigmoid(GN(Conv1d(z_h)))
    z_w(c, j) = mean_i x(c, i, j),    a_w = sigmoid(GN(Conv1d(z_w)))
    y(c, i, j) = x(c, i, j) a_h(c, i) a_w(c, j)

Cost O(H W C + (H + W) C k w) for kernels of k positions over groups of w channels. The gate has
rank 1 per channel and lies in (0, 1); a position reads no other, and how far positions shape the
gate is seen by gradients only. Group norms run over positions, so a gate depends on their number.

Reference: Xu and Wan 2024, arXiv:2403.01123. The paper's own text could not be read: kernels,
groups, and one convolution and norm for both directions (`shared`) are our reading, after public
accounts of the paper that agree but for one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from einops import einsum, rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import GateAttention, Mixing

__all__ = ["ELA_VARIANTS", "ELAVariant", "EfficientLocalAttention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ELAVariant:
    """What the versions differ in.

    Attributes:
        kernel: Positions that a convolution sees; odd.
        group_width: Channels that a convolution mixes.
        norm_groups: Groups of channels that are normalized together.
    """

    kernel: int
    group_width: int
    norm_groups: int


ELA_VARIANTS: Mapping[str, ELAVariant] = MappingProxyType(
    {
        "tiny": ELAVariant(kernel=5, group_width=1, norm_groups=32),
        "base": ELAVariant(kernel=7, group_width=1, norm_groups=16),
        "small": ELAVariant(kernel=5, group_width=8, norm_groups=16),
        "large": ELAVariant(kernel=7, group_width=8, norm_groups=16),
    }
)
"""The four versions; of C channels they take 7 C, 9 C, 42 C and 58 C parameters."""


class EfficientLocalAttention(nn.Module):
    """ELA: features times a gate along rows and a gate along columns.

    Args:
        channels: Width.
        variant: Kernel and groups; `ELA_VARIANTS` has the published ones.
        shared: Whether both directions have the same weights.

    Raises:
        ValueError: The groups do not divide the channels.
    """

    def __init__(self, channels: int, variant: ELAVariant, *, shared: bool = True) -> None:
        super().__init__()
        for name in ("group_width", "norm_groups"):
            if channels % getattr(variant, name):
                raise ValueError(
                    f"{channels} channels are no multiple of {name}, {getattr(variant, name)}"
                )
        self.along_rows = _strip(channels, variant)
        self.along_columns = self.along_rows if shared else _strip(channels, variant)
        self.mixing = Mixing()

    def gates(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> tuple[Float[Tensor, "batch channel row"], Float[Tensor, "batch channel column"]]:
        """Return the gate of each row and of each column."""
        rows = reduce(features, "batch channel row column -> batch channel row", "mean")
        columns = reduce(features, "batch channel row column -> batch channel column", "mean")
        return self.along_rows(rows).sigmoid(), self.along_columns(columns).sigmoid()

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the gated features."""
        grid = (features.shape[-2], features.shape[-1])
        rows, columns = self.gates(features)
        gate = einsum(
            rows, columns, "batch channel row, batch channel column -> batch channel row column"
        )
        attention = GateAttention(
            rearrange(gate, "batch channel row column -> batch channel (row column)"),
            query_axis="patch",
            key_axis="patch",
        )
        values = rearrange(features, "batch channel row column -> batch channel (row column) 1")
        return rearrange(
            self.mixing(attention, values, grid=grid),
            "batch channel (row column) 1 -> batch channel row column",
            row=grid[0],
        )


def _strip(channels: int, variant: ELAVariant) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(
            channels,
            channels,
            variant.kernel,
            padding=variant.kernel // 2,
            groups=channels // variant.group_width,
            bias=False,
        ),
        nn.GroupNorm(variant.norm_groups, channels),
    )
