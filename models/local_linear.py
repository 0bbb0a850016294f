"""Local Linear Attention (LLA): each query fits a line to the values, softmax weighs the fit.

Softmax attention predicts a query's output by a weighted mean (a local constant); LLA by a weighted
regression. With weights `w_ij = exp(s q_i . k_j)`, `z_ij = k_j - q_i` and

    min over b, W of  1/2 sum_j w_ij |v_j - b - W z_ij|^2 + ridge on W,    output b_i

the paper writes `rho = Sigma^-1 mu`, `a_ij = w_ij (1 - z_ij . rho_i) / (omega_i - mu_i . rho_i)` of
the moments of z. We take the moments around the mean key instead, which says the same without a
difference in the denominator: with the softmax pattern p, `kbar_i = sum_j p_ij k_j` and the
covariance `C_i = sum_j p_ij (k_j - kbar_i)(k_j - kbar_i)^T + lambda_i I`,

    a_ij = p_ij (1 + (k_j - kbar_i) . c_i),    c_i = C_i^-1 (q_i - kbar_i)

Rows sum to 1; entries may be negative or exceed 1. Values that are affine in the keys are continued
exactly where lambda = 0; as lambda grows the map becomes softmax. O(T^2 dim^2) time and O(T dim)
memory, blocks of queries being made again in the backward pass.

Reference: 2025, arXiv:2510.01450, section 2; the scaled ridge is that of the authors' code.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attnscope.attention import HadamardAttention, Mixing, SoftmaxAttention

__all__ = [
    "LocalLinearAttention",
    "Ridge",
    "local_linear_operator",
    "plain_ridge",
    "scaled_ridge",
]

Ridge = Callable[[SoftmaxAttention], Float[Tensor, "*batch head query"]]
"""What is added to the diagonal of each query's covariance, given the softmax of the queries."""

_BLOCK_ELEMENTS = 2**22
"""Differences of keys that are held at once."""


def scaled_ridge(strength: float) -> Ridge:
    """Return the code's ridge: the strength times the mass of the weights, whatever their shift."""
    _check(strength)
    return lambda attention: torch.full(
        attention.shape[:-1], strength, dtype=attention.dtype, device=attention.device
    )


def plain_ridge(strength: float) -> Ridge:
    """Return the paper's ridge, `lambda I` beside weights that are not normalized."""
    _check(strength)
    return lambda attention: strength * (-attention.log_normalizer()).exp()


def local_linear_operator(
    attention: SoftmaxAttention, ridge: Ridge, *, delta: float = 0.0
) -> HadamardAttention:
    """Return the map of the regression whose weights are a softmax: signed, its rows sum to 1.

    Args:
        attention: The softmax of the queries over the keys, one key head for each query head.
        ridge: `scaled_ridge(lambda)` or `plain_ridge(lambda)`. A ridge of 0 needs more keys than
            dimensions, in general position, for each query.
        delta: What the code adds to the denominator against a division by 0 (1e-12 there; ours is
            relative to the mass of the weights): rows then sum to slightly less than 1.

    Raises:
        torch.linalg.LinAlgError: The ridge is 0 and a query has too few keys.

    Example:
        >>> query, key = torch.zeros(1, 1, 1), torch.tensor([[[1.0], [2.0]]])
        >>> flat = SoftmaxAttention(query, key, causal=False)
        >>> local_linear_operator(flat, scaled_ridge(0.0)).dense().tolist()  # the line through both
        [[[2.0, -1.0]]]
        >>> local_linear_operator(flat, plain_ridge(1.0)).dense().tolist()
        [[[1.0, 0.0]]]
    """
    query, key = attention.query.to(attention.dtype), attention.key.to(attention.dtype)
    mean = attention.apply(key).to(attention.dtype)
    slope = _slopes(attention, mean, ridge(attention))
    share = 1 / (1 + delta * (1 + ((query - mean) * slope).sum(-1, keepdim=True)))
    return HadamardAttention(
        attention,
        share * torch.cat([1 - (mean * slope).sum(-1, keepdim=True), slope], dim=-1),
        torch.cat([torch.ones_like(key[..., :1]), key], dim=-1),
        signed=True,
    )


class LocalLinearAttention(nn.Module):
    """Local linear attention of tokens, each seeing those before it.

    Args:
        channels: Width of a token.
        heads: Number of heads.
        ridge: What keeps each query's regression from following few keys too closely.
    """

    def __init__(self, channels: int, heads: int, ridge: Ridge | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.ridge = scaled_ridge(0.01) if ridge is None else ridge
        self.query_key_value = nn.Linear(channels, 3 * channels, bias=False)
        self.projection = nn.Linear(channels, channels, bias=False)
        self.mixing = Mixing()

    def forward(
        self, features: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch token channel"]:
        """Return what each token's regression predicts at its query, projected."""
        query, key, value = rearrange(
            self.query_key_value(features),
            "batch token (factor head dim) -> factor batch head token dim",
            factor=3,
            head=self.heads,
        )
        attention = local_linear_operator(SoftmaxAttention(query, key), self.ridge)
        output = self.mixing(attention, value)
        return self.projection(rearrange(output, "batch head token dim -> batch token (head dim)"))


def _slopes(
    attention: SoftmaxAttention,
    mean: Float[Tensor, "*batch head query dim"],
    ridge: Float[Tensor, "*batch head query"],
) -> Float[Tensor, "*batch head query dim"]:
    """Return `c_i = C_i^-1 (q_i - kbar_i)`, block by block of queries."""

    def solve(rows: slice, keys: slice) -> Tensor:
        pattern = attention.tile(rows, keys)
        center = mean[..., rows, :]
        centered = attention.key[..., None, keys, :].to(mean.dtype) - center.unsqueeze(-2)
        covariance = (pattern.unsqueeze(-1) * centered).mT @ centered
        identity = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        covariance = covariance + ridge[..., rows, None, None] * identity
        return torch.linalg.solve(covariance, attention.query[..., rows, :] - center)

    per_row = attention.shape[:-2].numel() * attention.keys * mean.shape[-1]
    step = max(1, _BLOCK_ELEMENTS // max(1, per_row))
    pieces = []
    for start in range(0, attention.queries, step):
        rows = slice(start, min(start + step, attention.queries))
        # A causal block needs no key behind its last query.
        seen = rows.stop + (attention.offset or 0) if attention.causal else attention.keys
        keys = slice(0, min(max(0, seen), attention.keys))
        if torch.is_grad_enabled() and step < attention.queries:
            pieces.append(checkpoint(solve, rows, keys, use_reentrant=False))
        else:
            pieces.append(solve(rows, keys))
    return torch.cat(pieces, dim=-2)


def _check(strength: float) -> None:
    if strength < 0:
        raise ValueError(f"ridge strength is {strength}; it is 0 or more")
