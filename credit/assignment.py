"""`Credit`: the weights that a rule gave to the tokens of a batch, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.credit.errors import CreditError

__all__ = ["Credit"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Credit:
    """Token weights: detached, 0 outside of the mask.

    Attributes:
        weights: By what the advantage of each token is multiplied.
        mask: Which tokens are the policy's own.
        classes: The tokens that were selected, by the role that they were selected for.
    """

    weights: Float[Tensor, "batch response"]
    mask: Bool[Tensor, "batch response"]
    classes: Mapping[str, Bool[Tensor, "batch response"]] = field(default_factory=dict)

    def apply(
        self, advantage: Float[Tensor, " batch"] | Float[Tensor, "batch response"]
    ) -> Float[Tensor, "batch response"]:
        """Return the advantage of each token, 0 outside of the mask; a NaN advantage stays NaN.

        Raises:
            CreditError: The advantages are not of these responses.

        Example:
            >>> weights, mask = torch.tensor([[1.5, 1.0, 0.0]]), torch.tensor([[True, True, False]])
            >>> Credit(weights=weights, mask=mask).apply(torch.tensor([-2.0])).tolist()
            [[-3.0, -2.0, 0.0]]
        """
        per_token = advantage.unsqueeze(1) if advantage.ndim == 1 else advantage
        if per_token.shape[0] != len(self.mask) or per_token.shape[1] not in (
            1,
            self.mask.shape[1],
        ):
            raise CreditError(
                f"advantages have shape {tuple(advantage.shape)}, the weights "
                f"{tuple(self.weights.shape)}"
            )
        return torch.where(self.mask, per_token * self.weights.to(per_token.dtype), 0)

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return sums and the number of tokens they are over, by the name of their quotient.

        Sums, because shards of a batch add up. `weight` is the mean weight, `selected` the share of
        tokens in any class, `share/<class>` that of one class, `weight/<class>` its mean weight.
        """
        chosen = torch.zeros_like(self.mask)
        numbers: dict[str, tuple[Tensor, Tensor]] = {"weight": (self.weights, self.mask)}
        for name, members in self.classes.items():
            members = members & self.mask
            chosen = chosen | members
            numbers[f"share/{name}"] = (members, self.mask)
            numbers[f"weight/{name}"] = (self.weights * members, members)
        numbers["selected"] = (chosen, self.mask)
        sums = torch.stack([torch.stack([a.sum(), b.sum()]) for a, b in numbers.values()])
        return dict(zip(numbers, map(tuple, sums.double().tolist()), strict=True))

    def statistics(self) -> dict[str, float]:
        """Return the quotients of `totals`, NaN where there is no token to divide by.

        Example:
            >>> mask = torch.tensor([[True, True, True, True]])
            >>> anchors = torch.tensor([[False, True, False, False]])
            >>> weights = torch.where(anchors, 1.5, 1.0)
            >>> Credit(weights=weights, mask=mask, classes={"anchor": anchors}).statistics()
            {'weight': 1.125, 'share/anchor': 0.25, 'weight/anchor': 1.5, 'selected': 0.25}
        """
        return {
            name: total / count if count else float("nan")
            for name, (total, count) in self.totals().items()
        }
