"""`Layout`: where the sequences of a batch lie, and where each one's response does."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.credit.errors import CreditError

__all__ = ["Layout", "Stretch", "completion_layout", "packed_layout", "padded_layout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One sequence in a row of tokens, padding cut away; all numbers are columns of the row.

    Attributes:
        row: The row it lies in.
        start: Its first token.
        stop: Behind its last token.
        first: Its first response token.
        end: Behind its last response token; equal to `first` where there is no response.
    """

    row: int
    start: int
    stop: int
    first: int
    end: int

    @property
    def length(self) -> int:
        """Return the number of its tokens."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """The sequences of a batch of token rows, padded or packed.

    Attributes:
        shape: Rows and columns of the tokens.
        stretches: The sequences, in the order in which readings have them.
        mask: Which tokens of each response are the policy's own, and may be given credit; column r
            is the token at column `first + r` of the stretch's row.
    """

    shape: tuple[int, int]
    stretches: tuple[Stretch, ...]
    mask: Bool[Tensor, "batch response"]

    def in_rows(self, start: int, stop: int) -> list[int]:
        """Return the numbers of the sequences with a response that lie in some rows."""
        return [
            number
            for number, stretch in enumerate(self.stretches)
            if start <= stretch.row < stop and stretch.end > stretch.first
        ]

    def to_tokens(self, values: Float[Tensor, "batch response"]) -> Float[Tensor, "row column"]:
        """Return values of response tokens where the tokens lie, 0 elsewhere."""
        rows, columns = self.shape
        tokens = values.new_zeros(rows, columns + values.shape[1])
        for stretch, own in zip(self.stretches, values, strict=True):
            count = stretch.end - stretch.first
            tokens[stretch.row, stretch.first : stretch.end] = own[:count]
        return tokens[:, :columns]

    def attended(self, start: int, stop: int) -> Bool[Tensor, "row column"]:
        """Return which positions of some rows belong to a sequence."""
        inside = torch.zeros(stop - start, self.shape[1], dtype=torch.bool)
        for stretch in self.stretches:
            if start <= stretch.row < stop:
                inside[stretch.row - start, stretch.start : stretch.stop] = True
        return inside


def completion_layout(
    prompt_mask: Int[Tensor, "batch prompt"] | Bool[Tensor, "batch prompt"],
    completion_mask: Int[Tensor, "batch response"] | Bool[Tensor, "batch response"],
    credit_mask: Int[Tensor, "batch response"] | Bool[Tensor, "batch response"] | None = None,
) -> Layout:
    """Return the layout of left-padded prompts, each followed by its right-padded completion.

    Every row is one sequence, an empty one too, and readings have the completions' own columns.

    Args:
        prompt_mask: 1 at tokens of the prompts.
        completion_mask: 1 at tokens of the completions.
        credit_mask: 1 at completion tokens that the policy wrote itself (0 for a tool's answer); by
            default all.

    Raises:
        CreditError: There is padding between the tokens of a row.
    """
    prompts, completions = prompt_mask.bool().cpu(), completion_mask.bool().cpu()
    border = prompts.shape[1]
    attended = torch.cat([prompts, completions], dim=1)
    stretches = []
    for row, tokens in enumerate(attended):
        start, stop = _bounds(row, tokens, border)
        stretches.append(
            Stretch(row=row, start=start, stop=stop, first=border, end=max(border, stop))
        )
    own = completion_mask if credit_mask is None else completion_mask * credit_mask
    return Layout(
        shape=(attended.shape[0], attended.shape[1]), stretches=tuple(stretches), mask=own.bool()
    )


def padded_layout(
    attention_mask: Int[Tensor, "row column"] | Bool[Tensor, "row column"],
    response_mask: Int[Tensor, "row column"] | Bool[Tensor, "row column"],
) -> Layout:
    """Return the layout of rows that hold one sequence each, padded on either side or on both.

    A response reaches from a row's first response token to its last, and may have gaps, which are
    read but given no credit. A row without one keeps its place among the readings.

    Args:
        attention_mask: 1 at tokens.
        response_mask: 1 at tokens that the policy wrote.

    Raises:
        CreditError: There is padding between the tokens of a row.
    """
    attended = attention_mask.bool().cpu()
    own = response_mask.bool().cpu() & attended
    stretches = []
    for row, tokens in enumerate(attended):
        start, stop = _bounds(row, tokens, 0)
        places = own[row].nonzero().flatten().tolist()
        first, end = (places[0], places[-1] + 1) if places else (stop, stop)
        stretches.append(Stretch(row=row, start=start, stop=stop, first=first, end=end))
    return Layout(
        shape=(attended.shape[0], attended.shape[1]),
        stretches=tuple(stretches),
        mask=_response_columns(own, stretches).to(response_mask.device),
    )


def packed_layout(
    position_ids: Int[Tensor, "row column"],
    response_mask: Int[Tensor, "row column"] | Bool[Tensor, "row column"],
) -> Layout:
    """Return the layout of sequences packed into rows, one behind the other.

    A sequence begins where positions do not go on; those without a response token are left out.
    A response reaches from a sequence's first response token to its last, and may have gaps (a
    tool's answer), which are read but given no credit. Padding is a sequence without a response.

    Args:
        position_ids: Position of each token in its sequence.
        response_mask: 1 at tokens that the policy wrote.
    """
    positions, own = position_ids.cpu(), response_mask.bool().cpu()
    rows, columns = positions.shape
    stretches = []
    for row in range(rows):
        goes_on = positions[row, 1:] == positions[row, :-1] + 1
        breaks = [0, *((~goes_on).nonzero().flatten() + 1).tolist(), columns]
        for start, stop in pairwise(breaks):
            places = own[row, start:stop].nonzero().flatten().tolist()
            if places:
                first, end = start + places[0], start + places[-1] + 1
                stretches.append(Stretch(row=row, start=start, stop=stop, first=first, end=end))
    return Layout(
        shape=(rows, columns),
        stretches=tuple(stretches),
        mask=_response_columns(own, stretches).to(response_mask.device),
    )


def _bounds(row: int, tokens: Bool[Tensor, " column"], nowhere: int) -> tuple[int, int]:
    """Return the first token of a row and the column behind its last, if all between are tokens."""
    places = tokens.nonzero().flatten().tolist()
    start, stop = (places[0], places[-1] + 1) if places else (nowhere, nowhere)
    if stop - start != len(places):
        raise CreditError(
            f"row {row} has padding between its tokens ({len(places)} from column {start} to "
            f"{stop - 1}); prompts are padded on the left, completions on the right"
        )
    return start, stop


def _response_columns(
    own: Bool[Tensor, "row column"], stretches: Sequence[Stretch]
) -> Bool[Tensor, "batch response"]:
    width = max((stretch.end - stretch.first for stretch in stretches), default=0)
    mask = torch.zeros(len(stretches), width, dtype=torch.bool)
    for number, stretch in enumerate(stretches):
        count = stretch.end - stretch.first
        mask[number, :count] = own[stretch.row, stretch.first : stretch.end]
    return mask
