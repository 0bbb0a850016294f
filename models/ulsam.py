"""ULSAM: one spatial map per subspace of channels, light enough for networks of a few megabytes.

The channels are cut into g equal groups F_n, each with weights of its own:

    A_n = softmax over positions of ReLU(BN(PW(MaxPool3x3(ReLU(BN(DW1x1(F_n)))))))    one map
    F_n' = A_n * F_n + F_n,    output = concat_n F_n'

Cost O(N m) for N positions of m channels, 5 m + 3 g parameters. From position to position the
operator is diag(1 + A_n): no position reads another. Captured is the gate A_n that enters the sum;
it has mass 1 over positions and is the same for every reader, so as a distribution it is one row,
`spatial_distribution`. Adding 1 first would round its small numbers away. The ReLU keeps scores
from going below 0, so A_n is often uniform and near 1 / N: look at A_n * N, not at A_n.

Reference: Saini et al. 2020, arXiv:2006.15102 (WACV); the details are those of the released code.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import DenseAttention, GateAttention, Mixing

__all__ = ["SubspaceAttention", "spatial_distribution"]


class SubspaceAttention(nn.Module):
    """ULSAM: every subspace of channels weighs the positions by a map of its own.

    Args:
        channels: Width.
        subspaces: Number of groups of channels.

    Raises:
        ValueError: The channels cannot be cut evenly.
    """

    def __init__(self, channels: int, subspaces: int) -> None:
        super().__init__()
        if channels % subspaces:
            raise ValueError(f"{channels} channels cannot be cut into {subspaces} equal subspaces")
        self.channelwise = nn.Conv2d(channels, channels, 1, groups=channels)
        self.channel_norm = nn.BatchNorm2d(channels, momentum=0.9)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pointwise = nn.Conv2d(channels, subspaces, 1, groups=subspaces)
        self.map_norm = nn.BatchNorm2d(subspaces, momentum=0.9)
        self.mixing = Mixing()

    def forward(
        self, features: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the features and what the maps take of them."""
        subspaces, grid = self.pointwise.out_channels, (features.shape[-2], features.shape[-1])
        pooled = self.pool(self.channel_norm(self.channelwise(features)).relu())
        scores = self.map_norm(self.pointwise(pooled)).relu()
        attention = GateAttention(
            rearrange(scores, "batch head row column -> batch head (row column)").softmax(-1),
            query_axis="patch",
            key_axis="patch",
        )
        values = rearrange(
            features, "batch (head dim) row column -> batch head (row column) dim", head=subspaces
        )
        weighed = rearrange(
            self.mixing(attention, values, grid=grid),
            "batch head (row column) dim -> batch (head dim) row column",
            row=grid[0],
        )
        return features + weighed


def spatial_distribution(gate: GateAttention) -> DenseAttention:
    """Return each subspace's map as one row, the distribution that every position is weighed by.

    Its entropy, power sums and masses are those of the map; the one query is a probe.

    Example:
        >>> import torch
        >>> gate = GateAttention(torch.tensor([[0.25, 0.25, 0.25, 0.25]]))
        >>> row = spatial_distribution(gate)
        >>> row.shape, row.stochastic, round(float(row.entropy().exp()), 4)
        (torch.Size([1, 1, 4]), True, 4.0)
    """
    return DenseAttention(
        gate.gate.unsqueeze(-2), offset=None, query_axis="probe", key_axis=gate.key_axis
    )
