"""Gradient targets: the one number whose gradient a capture takes."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.probes.errors import CaptureError
from attnscope.traces import TokenSequence

__all__ = ["Logit", "LogitDifference", "Target", "TokenLoss", "resolve_target"]


@runtime_checkable
class Target(Protocol):
    """A number made of a model's logits; its name goes into the trace's provenance.

    Where a recorder needs `gradients`, it may be several numbers: each is differentiated by itself,
    and the recorder is handed the sites of the main sequence once for each, in their order.
    """

    @property
    def name(self) -> str:
        """Return the name that tells what the gradient is of."""
        ...

    def __call__(
        self, logits: Float[Tensor, "position vocabulary"], sequence: TokenSequence
    ) -> Float[Tensor, "*numbers"]:
        """Return the number."""
        ...


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """The mean of `-log p(token)` over some tokens, each predicted by the position before it.

    Attributes:
        positions: The tokens that are predicted; by default the `response` segment, or all but the
            first where there is none.
    """

    positions: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Return `loss`, with the positions where they were chosen."""
        return "loss" if self.positions is None else f"loss of positions {list(self.positions)}"

    def __call__(
        self, logits: Float[Tensor, "position vocabulary"], sequence: TokenSequence
    ) -> Float[Tensor, ""]:
        """Return the mean loss in nats."""
        if sequence.ids is None or logits.shape[0] != len(sequence):
            raise CaptureError(
                f"a token loss needs one row of logits per token; this model gives "
                f"{tuple(logits.shape)} for {len(sequence)} tokens. Use Logit(...) for a classifier"
            )
        positions = self.positions
        if positions is None:
            positions = (
                tuple(sequence.segments["response"]) if "response" in sequence.segments else ()
            )
            positions = tuple(p for p in positions or range(len(sequence)) if p > 0)
        outside = [p for p in positions if not 0 < p < len(sequence)]
        if outside or not positions:
            raise CaptureError(
                f"a loss needs tokens from 1 to {len(sequence) - 1}; got {outside or 'none'}"
            )
        predicted = torch.tensor(positions, device=logits.device)
        tokens = torch.tensor(sequence.ids, device=logits.device)[predicted]
        return torch.nn.functional.cross_entropy(logits[predicted - 1].float(), tokens)


@dataclass(frozen=True, slots=True)
class Logit:
    """The logit of one token (or class).

    Attributes:
        token: Vocabulary id or class; by default the most likely one.
        position: Row of the logits, that is, the query that predicts; a classifier has one row.
    """

    token: int | None = None
    position: int = -1

    @property
    def name(self) -> str:
        """Return which logit it is."""
        token = "the most likely token" if self.token is None else self.token
        return f"logit of {token} at {self.position}"

    def __call__(
        self, logits: Float[Tensor, "position vocabulary"], sequence: TokenSequence
    ) -> Float[Tensor, ""]:
        """Return the logit."""
        row = _row(logits, self.position)
        return row[int(row.argmax()) if self.token is None else _checked(self.token, row)]


@dataclass(frozen=True, slots=True)
class LogitDifference:
    """The logit of one token minus that of another.

    Attributes:
        token: Vocabulary id or class.
        other: The one it is compared with.
        position: Row of the logits, that is, the query that predicts.
    """

    token: int
    other: int
    position: int = -1

    @property
    def name(self) -> str:
        """Return which logits are compared."""
        return f"logit of {self.token} minus {self.other} at {self.position}"

    def __call__(
        self, logits: Float[Tensor, "position vocabulary"], sequence: TokenSequence
    ) -> Float[Tensor, ""]:
        """Return the difference."""
        row = _row(logits, self.position)
        return row[_checked(self.token, row)] - row[_checked(self.other, row)]


def resolve_target(target: "str | Target") -> Target:
    """Return a target by its short name, or the target itself.

    Raises:
        CaptureError: The name is none of `loss` and `logit`.
    """
    if not isinstance(target, str):
        return target
    targets: dict[str, Target] = {"loss": TokenLoss(), "logit": Logit()}
    if target not in targets:
        raise CaptureError(
            f"no gradient target {target!r}; there are {sorted(targets)}, and TokenLoss, Logit, "
            "LogitDifference"
        )
    return targets[target]


def _row(logits: Tensor, position: int) -> Tensor:
    if not -len(logits) <= position < len(logits):
        raise CaptureError(
            f"position {position} has no logits; rows go from 0 to {len(logits) - 1}"
        )
    return logits[position]


def _checked(token: int, row: Tensor) -> int:
    if not 0 <= token < len(row):
        raise CaptureError(f"token {token} is not in the vocabulary of {len(row)}")
    return token
