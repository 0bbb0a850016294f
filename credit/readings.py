"""`Readings`: what was read of a batch of responses, the one input of every credit rule."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.credit.errors import CreditError

__all__ = ["Readings"]

_ROW_METRICS = ("local_waad", "entropy")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Readings:
    """Numbers per response token; NaN where a number is undefined, None where it was not read.

    Row metrics have one column more than the response: column 0 is the row before it, from which
    the first response token was drawn (see `row_alignment`).

    Attributes:
        mask: Which tokens are the policy's own, and may be given credit.
        local_waad: WAAD of the local heads, by row.
        global_fai: FAI of the global heads.
        receiver_fai: FAI of the receiver heads.
        entropy: Entropy in nats of the next-token distribution at each row; NaN at rows whose
            logits were not computed.
        log_probability: Log-probability of each token.
        received: Attention that a reward model's last row gives each token.
        ids: Vocabulary ids of the tokens.
        advantage: Advantage of each response, or of each token.
        draw: Number of the batch: rules that draw at random draw anew for each.
    """

    mask: Bool[Tensor, "batch response"]
    local_waad: Float[Tensor, "batch response+1"] | None = None
    global_fai: Float[Tensor, "batch response"] | None = None
    receiver_fai: Float[Tensor, "batch response"] | None = None
    entropy: Float[Tensor, "batch response+1"] | None = None
    log_probability: Float[Tensor, "batch response"] | None = None
    received: Float[Tensor, "batch response"] | None = None
    ids: Int[Tensor, "batch response"] | None = None
    advantage: Float[Tensor, " batch"] | Float[Tensor, "batch response"] | None = None
    draw: int = 0

    def __post_init__(self) -> None:
        """Refuse readings of another shape than the mask's."""
        batch, response = self.mask.shape
        for name, tensor in self._tensors().items():
            width = response + (name in _ROW_METRICS)
            fitting = [(batch, width)] + ([(batch,)] if name == "advantage" else [])
            if tuple(tensor.shape) not in fitting:
                raise CreditError(
                    f"{name} has shape {tuple(tensor.shape)}; {batch} responses of {response} "
                    f"tokens need {' or '.join(map(str, fitting))}"
                )

    def _tensors(self) -> dict[str, Tensor]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def require(self, name: str, rule: object) -> Tensor:
        """Return a reading by its name.

        Raises:
            CreditError: It was not read.
        """
        found = getattr(self, name)
        if found is None:
            raise CreditError(
                f"{type(rule).__name__} needs {name}; these readings hold {sorted(self._tensors())}"
            )
        return found

    def token_advantage(self, rule: object) -> Float[Tensor, "batch #response"]:
        """Return the advantage with a token axis, of length 1 where all tokens share it.

        Raises:
            CreditError: It is not known.
        """
        advantage = self.require("advantage", rule)
        return advantage if advantage.ndim == 2 else advantage.unsqueeze(1)

    def of_tokens(self, scores: Float[Tensor, "batch response"]) -> Float[Tensor, "batch response"]:
        """Return scores, NaN outside of the mask, so that nothing there is ever selected."""
        return scores.masked_fill(~self.mask, torch.nan)
