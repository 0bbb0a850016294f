"""`GivenInput`: what a running model is given, pass by pass, and whose input each row is."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.standing import Standing, origins, prompt_length
from attnscope.probes import Encoded, Subject
from attnscope.probes.attention_call import AttentionCall
from attnscope.traces import TokenSequence

__all__ = ["GivenInput"]


class GivenInput:
    """Follows the forward passes of a model.

    Args:
        subject: The model.
        inputs: What it was said to be given, one for each item of the batch; may be empty.
    """

    def __init__(self, subject: Subject, inputs: Sequence[Encoded]) -> None:
        self._subject, self._inputs = subject, tuple(inputs)
        self._sequences: tuple[TokenSequence, ...] = ()
        self._padding: tuple[int, ...] = ()
        self._standings: dict[tuple[int, int, int, int], Standing] = {}
        self._start = 0

    def note(self, args: Sequence[Any], options: Mapping[str, Any]) -> None:
        """Take the arguments of a forward pass that begins.

        Raises:
            InterventionError: It is about another input than was said, or cannot be followed.
        """
        self._standings = {}
        self._refuse_made_masks(options)
        prefix = "decoder_" if self._subject.speaks_by_decoder else ""
        tokens = options.get(f"{prefix}input_ids", args[0] if args else None)
        if tokens is None:
            tokens = options.get(f"{prefix}inputs_embeds")
        rows = 0 if tokens is None else len(tokens)
        self._start = _seen(options.get("past_key_values"))
        if self._start == 0 or rows != len(self._padding):
            self._padding = _left_padding(options.get(f"{prefix}attention_mask"), rows)
            self._sequences = self._of_rows(rows)
            if self._sequences and tokens is not None and not tokens.is_floating_point():
                self._require_tokens(tokens)

    def standing_of(self, call: AttentionCall) -> Standing:
        """Return where the queries and keys of a call stand; shared by all layers of a pass."""
        rows, _, queries, keys = call.attention.shape
        first_query, first_key = origins(call.attention)
        columns = (first_query, queries, first_key, keys)
        if rows == len(self._padding):
            return self._at(columns, call.output.device)
        # pictures in a tower, windows, a model without text
        return _standing((), (0,) * rows, columns, call.output.device)

    def standing(self, queries: int) -> Standing:
        """Return where queries outside of an attention call stand, with the keys up to them."""
        return self._at((self._start, queries, 0, self._start + queries), self._subject.device)

    def _at(self, columns: tuple[int, int, int, int], device: torch.device) -> Standing:
        """Return where they stand, made once for all layers of a pass."""
        known = self._standings.get(columns)
        if known is None:
            known = _standing(self._sequences, self._padding, columns, device)
            self._standings[columns] = known
        return known

    def _of_rows(self, rows: int) -> tuple[TokenSequence, ...]:
        """Return the input of each row: beams and drawn answers follow their own prompt."""
        count = len(self._inputs)
        if count and rows % count:
            raise InterventionError(
                f"the model runs on {rows} rows, and encoded describes {count} inputs"
            )
        sequences = [each.sequences[each.main_sequence] for each in self._inputs]
        return tuple(sequences[row * count // rows] for row in range(rows)) if count else ()

    def _require_tokens(self, tokens: Tensor) -> None:
        """Refuse a model that is given another input than it was said to be."""
        given = tokens.tolist()
        for row, (sequence, padding) in enumerate(zip(self._sequences, self._padding, strict=True)):
            known = list(sequence.ids or ())[: prompt_length(sequence)]
            own = given[row][padding:] if self._start == 0 else known
            shared = min(len(known), len(own))
            if own[:shared] != known[:shared]:
                raise InterventionError(
                    f"row {row} of the model's input is {_short(own)}, and encoded says "
                    f"{_short(known)}"
                )

    def _refuse_made_masks(self, options: Mapping[str, Any]) -> None:
        """Refuse masks made for a static cache: their rules do not reach the layers."""
        static = getattr(options.get("past_key_values"), "is_compileable", False)
        mask = options.get("attention_mask")
        if static and not (mask is None or (isinstance(mask, Tensor) and mask.ndim == 2)):
            raise InterventionError(
                f"{type(self._subject.model).__name__} generates with a static cache, whose masks "
                "are made beforehand and cannot be read; leave cache_implementation at its default"
            )


def _standing(
    sequences: tuple[TokenSequence, ...],
    padding: tuple[int, ...],
    columns: tuple[int, int, int, int],
    device: torch.device,
) -> Standing:
    first_query, queries, first_key, keys = columns
    return Standing(
        sequences=sequences,
        padding=padding,
        first_query=first_query,
        queries=queries,
        first_key=first_key,
        keys=keys,
        device=device,
    )


def _seen(cache: Any) -> int:
    """Return how many tokens a cache has seen."""
    length = getattr(cache, "get_seq_length", None)
    return 0 if length is None else int(length())


def _left_padding(mask: Any, rows: int) -> tuple[int, ...]:
    """Return how many columns of padding stand before each row's first token."""
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return (0,) * rows
    return tuple(mask.bool().int().argmax(-1).tolist())


def _short(ids: Sequence[int]) -> str:
    return f"{list(ids[:8])}{' ...' if len(ids) > 8 else ''}"
