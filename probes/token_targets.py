"""Targets of several numbers: one for each token, so that each can be differentiated by itself."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.probes.errors import CaptureError
from attnscope.traces import TokenSequence

__all__ = ["TokenLogits", "TokenLosses", "response_tokens"]


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """`-log p(token)` of each of some tokens, predicted by the position before it.

    Attributes:
        positions: The tokens.
    """

    positions: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return that they are losses, and of which tokens."""
        return f"loss of each of the positions {list(self.positions)}"

    def __call__(
        self, logits: Float[Tensor, "position vocabulary"], sequence: TokenSequence
    ) -> Float[Tensor, " token"]:
        """Return the losses in nats."""
        rows, tokens = _predictions(self.positions, logits, sequence)
        return torch.nn.functional.cross_entropy(rows.float(), tokens, reduction="none")


@dataclass(frozen=True, slots=True)
class TokenLogits:
    """The logit of each of some tokens where it is predicted.

    Attributes:
        positions: The tokens.
    """

    positions: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return that they are logits, and of which tokens."""
        return f"logit of each of the positions {list(self.positions)}"

    def __call__(
        self, logits: Float[Tensor, "position vocabulary"], sequence: TokenSequence
    ) -> Float[Tensor, " token"]:
        """Return the logits."""
        rows, tokens = _predictions(self.positions, logits, sequence)
        return rows.float().gather(-1, tokens[:, None]).squeeze(-1)


def response_tokens(sequence: TokenSequence) -> tuple[int, ...]:
    """Return the tokens of the response that something stands before.

    Raises:
        CaptureError: There is no response segment.

    Example:
        >>> from attnscope.traces import Segment, Segments
        >>> runs = Segments((Segment(name="prompt", start=0, stop=1),
        ...                  Segment(name="response", start=1, stop=3)))
        >>> response_tokens(TokenSequence(name="text", tokens=("a", "b", "c"), segments=runs))
        (1, 2)
    """
    if "response" not in sequence.segments:
        raise CaptureError(
            f"no response segment; sequence {sequence.name!r} has {list(sequence.segments.names)}. "
            "Encode a text with response=, a chat that ends with the model's words, or "
            "subject.generate(...)"
        )
    return tuple(token for token in sequence.segments["response"] if token > 0)


def _predictions(
    positions: tuple[int, ...], logits: Tensor, sequence: TokenSequence
) -> tuple[Tensor, Tensor]:
    """Return the logits that predict each token, and the tokens."""
    outside = [token for token in positions if not 0 < token < len(sequence)]
    if sequence.ids is None or logits.shape[0] != len(sequence) or outside or not positions:
        raise CaptureError(
            f"tokens {outside or list(positions)} of {len(sequence)} with logits "
            f"{tuple(logits.shape)}: each needs a token before it and one row of logits per token"
        )
    predicted = torch.tensor(positions, device=logits.device)
    return logits[predicted - 1], torch.tensor(sequence.ids, device=logits.device)[predicted]
