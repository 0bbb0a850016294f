"""`Redistributed`: credit by what a reward model attended to when it gave its score."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.credit.assignment import Credit
from attnscope.credit.readings import Readings
from attnscope.credit.token_rewards import redistributed_shares, returns_to_go

__all__ = ["Redistributed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redistributed:
    """Weighs each token by the part of the reward that is still to come when it is written.

    The score is spread over the tokens, ``s_t = share a_t + (1 - share) 1[t last]``, by the reward
    model's attention a; ``w_t = sum over u >= t of s_u``. 1 at the first token. A loop with a value
    function takes the rewards themselves (`redistributed_shares` times the score), as the source
    does; the sum to go is our reading for loops that have one advantage per response.

    Reference: Chan et al. 2024, arXiv:2402.00782, "ABC".

    Attributes:
        share: beta, the share of the score that is spread; the rest stays at the last token.
    """

    share: float = 0.5

    @property
    def needs(self) -> frozenset[str]:
        """Return the reward model's attention."""
        return frozenset({"received"})

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        received: Float[Tensor, "batch response"] = readings.require("received", self).detach()
        shares = redistributed_shares(received, readings.mask, self.share)
        weights = torch.where(readings.mask, returns_to_go(shares), 0)
        return Credit(weights=weights.float(), mask=readings.mask)
