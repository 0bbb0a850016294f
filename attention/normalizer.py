"""`Normalizer`: the log of each row's softmax denominator, remembered once it is known."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention.scores import Scores
from attnscope.attention.tile import block_length

__all__ = ["Normalizer"]


class Normalizer:
    """`lse_t = logsumexp_j s_tj`, without (`kernel`) and with (`total`) a learned sink.

    Args:
        scores: The scores of the rows.
        sinks: One more logit per head, in every row.

    Attributes:
        known: What `kernel` returns for all queries, where it was computed or stored before.
    """

    def __init__(self, scores: Scores, sinks: Float[Tensor, " head"] | None) -> None:
        self.scores, self.sinks = scores, sinks
        self.known: Float[Tensor, "batch head query"] | None = None

    def kernel(self, queries: Tensor | None = None) -> Float[Tensor, "batch head some_query"]:
        """Return it without the learned sink, of all or of chosen queries."""
        scores = self.scores
        if self.known is not None and not scores.needs_graph:
            return self.known if queries is None else self.known.index_select(2, queries)
        if queries is not None and len(queries) < scores.shape[2]:
            keys = torch.arange(scores.shape[3], device=scores.query.device)
            pieces = queries.split(block_length(scores.shape))
            return torch.cat([scores.tile(rows, keys).logsumexp(-1) for rows in pieces], dim=-1)
        precise = scores.precise()
        whole = precise.attend(precise.no_values())[1]
        self.known = whole.detach()
        return whole if queries is None else whole.index_select(2, queries)

    def total(self, queries: Tensor | None = None) -> Float[Tensor, "batch head some_query"]:
        """Return it with the learned sink, of all or of chosen queries."""
        return self.with_sinks(self.kernel(queries))

    def share(self, output: Tensor, kernel: Tensor) -> Tensor:
        """Scale outputs of a kernel by what the learned sink leaves of each row."""
        if self.sinks is None:
            return output
        left = (kernel - self.with_sinks(kernel)).exp()
        return output * left.unsqueeze(-1).to(output.dtype)

    def with_sinks(
        self, kernel: Float[Tensor, "batch head some_query"]
    ) -> Float[Tensor, "batch head some_query"]:
        """Return a kernel's normalizer with the learned sink added."""
        if self.sinks is None:
            return kernel
        return torch.logaddexp(kernel, self.sinks.to(kernel.dtype)[:, None])
