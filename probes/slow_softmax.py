"""`slow_rows`: rows of a softmax by the plain formula, sharing no code with the operators."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["slow_rows"]


def slow_rows(  # noqa: PLR0913 - each argument is a term of the formula
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch kv_head key dim"],
    rows: Int[Tensor, " row"],
    *,
    scale: float,
    hidden: Bool[Tensor, "#batch #head row key"] | None = None,
    added: Float[Tensor, "#batch #head row key"] | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " head"] | None = None,
) -> Float[Tensor, "batch head row key"]:
    """Return rows of the map in double precision, one head after the other.

    `exp(s_tj) / (sum_j exp(s_tj) + exp(sink))` with `s = cap(scale q k) + added`; a row of which
    everything is hidden is 0. Query head `h` reads the key head `h // (head / kv_head)`.

    Example:
        >>> zeros = torch.zeros(1, 1, 2, 4)
        >>> slow_rows(zeros, zeros, torch.tensor([1]), scale=1.0).tolist()
        [[[[0.5, 0.5]]]]
    """
    group = query.shape[1] // key.shape[1]
    heads = []
    for head in range(query.shape[1]):
        keys = key[:, head // group].double()
        scores = scale * query[:, head, rows].double() @ keys.transpose(1, 2)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if added is not None:
            scores = scores + added[:, min(head, added.shape[1] - 1)].double()
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, min(head, hidden.shape[1] - 1)], -torch.inf)
        highest = scores.amax(-1, keepdim=True)
        if sinks is not None:
            highest = highest.clamp_min(float(sinks[head]))
        weights = (scores - highest.masked_fill(highest == -torch.inf, 0)).exp()
        total = weights.sum(-1, keepdim=True)
        if sinks is not None:
            total = total + (sinks[head].double() - highest).exp()
        heads.append(torch.where(total > 0, weights / total, 0))
    return torch.stack(heads, dim=1)
