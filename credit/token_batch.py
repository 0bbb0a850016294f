"""`TokenBatch`: tokens of prompts and responses, with their layout."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attnscope.credit.errors import CreditError
from attnscope.credit.layout import Layout, Stretch, completion_layout, packed_layout, padded_layout

__all__ = ["TokenBatch", "completion_batch", "packed_batch", "padded_batch"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenBatch:
    """Rows of tokens, and where the sequences lie in them.

    Attributes:
        ids: Vocabulary ids.
        layout: Where the sequences and their responses are.
    """

    ids: Int[Tensor, "row column"]
    layout: Layout

    def __post_init__(self) -> None:
        """Refuse tokens of another shape than the layout's."""
        if tuple(self.ids.shape) != self.layout.shape:
            raise CreditError(
                f"ids have shape {tuple(self.ids.shape)}, the layout has {self.layout.shape}"
            )

    @property
    def response_ids(self) -> Int[Tensor, "batch response"]:
        """Return the ids of the responses, -1 behind their end."""
        mask = self.layout.mask
        ids = torch.full(tuple(mask.shape), -1, dtype=self.ids.dtype, device=self.ids.device)
        for number, stretch in enumerate(self.layout.stretches):
            own = self.ids[stretch.row, stretch.first : stretch.end]
            ids[number, : len(own)] = own
        return ids

    def left_aligned(self) -> "TokenBatch":
        """Return one row per sequence, each from its first token on, filled up with 0.

        No mask is needed to run a causal model on them: what stands behind a sequence's end is
        read by none of its tokens. A sequence without a token becomes a row of zeros.
        """
        stretches = self.layout.stretches
        longest = max((stretch.length for stretch in stretches), default=0)
        ids = self.ids.new_zeros(len(stretches), max(1, longest))
        for row, stretch in enumerate(stretches):
            ids[row, : stretch.length] = self.ids[stretch.row, stretch.start : stretch.stop]
        moved = tuple(_moved(stretch, row) for row, stretch in enumerate(stretches))
        layout = replace(self.layout, shape=tuple(ids.shape), stretches=moved)
        return TokenBatch(ids=ids, layout=layout)


def _moved(stretch: Stretch, row: int) -> Stretch:
    by = stretch.start
    return Stretch(
        row=row,
        start=0,
        stop=stretch.stop - by,
        first=stretch.first - by,
        end=stretch.end - by,
    )


def completion_batch(
    prompt_ids: Int[Tensor, "batch prompt"],
    prompt_mask: Int[Tensor, "batch prompt"] | Bool[Tensor, "batch prompt"],
    completion_ids: Int[Tensor, "batch response"],
    completion_mask: Int[Tensor, "batch response"] | Bool[Tensor, "batch response"],
    credit_mask: Int[Tensor, "batch response"] | Bool[Tensor, "batch response"] | None = None,
) -> TokenBatch:
    """Return left-padded prompts, each followed by its right-padded completion.

    Args:
        prompt_ids: Tokens of the prompts.
        prompt_mask: 1 at their tokens.
        completion_ids: Tokens of the completions.
        completion_mask: 1 at their tokens.
        credit_mask: 1 at completion tokens that the policy wrote itself; by default all.

    Raises:
        CreditError: There is padding between the tokens of a row.
    """
    layout = completion_layout(prompt_mask, completion_mask, credit_mask)
    return TokenBatch(ids=torch.cat([prompt_ids, completion_ids], dim=1), layout=layout)


def padded_batch(
    ids: Int[Tensor, "row column"],
    attention_mask: Int[Tensor, "row column"] | Bool[Tensor, "row column"],
    response_mask: Int[Tensor, "row column"] | Bool[Tensor, "row column"],
) -> TokenBatch:
    """Return rows that hold one whole sequence each, padded on either side or on both.

    Readings have one row per row, and columns counted from the first response token;
    `layout.to_tokens` puts values of tokens back to their places.

    Args:
        ids: Tokens of prompts and responses together.
        attention_mask: 1 at tokens.
        response_mask: 1 at tokens that the policy wrote.

    Raises:
        CreditError: There is padding between the tokens of a row.
    """
    return TokenBatch(ids=ids, layout=padded_layout(attention_mask, response_mask))


def packed_batch(
    ids: Int[Tensor, "row column"],
    position_ids: Int[Tensor, "row column"],
    response_mask: Int[Tensor, "row column"] | Bool[Tensor, "row column"],
) -> TokenBatch:
    """Return sequences packed into rows; a sequence begins where positions do not go on.

    Args:
        ids: Tokens.
        position_ids: Position of each token in its sequence.
        response_mask: 1 at tokens that the policy wrote.
    """
    return TokenBatch(ids=ids, layout=packed_layout(position_ids, response_mask))
