"""Batches of nested tensors: one row per sequence, no padding, as verl hands them around.

A nested tensor holds sequences of different lengths one behind the other. What a policy's worker
measured travels as one number per token of each whole sequence; from there responses are cut.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.credit.assignment import Credit
from attnscope.credit.errors import CreditError
from attnscope.credit.readings import Readings
from attnscope.credit.token_batch import TokenBatch, packed_batch, padded_batch

__all__ = ["credited", "model_batch", "nested_readings", "readings_from"]

_ROW_METRICS = ("local_waad",)
_NAN = float("nan")


def model_batch(
    ids: Tensor, response_mask: Tensor, attention_mask: Tensor | None, lengths: Sequence[int]
) -> TokenBatch:
    """Return what a policy is called on, with the responses that lie in it.

    Args:
        ids: The tokens as the policy is given them: `(1, column)` with the sequences one behind the
            other and any padding at the end, or `(sequence, column)` padded on the right.
        response_mask: Nested, `(sequence, response)`: 1 at response tokens that the policy wrote.
            A response ends its sequence.
        attention_mask: 1 at tokens where rows are padded; None where they are packed.
        lengths: Tokens of each sequence.
    """
    own = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    masks = response_mask.unbind()
    if attention_mask is not None:
        for row, (mask, length) in enumerate(zip(masks, lengths, strict=True)):
            own[row, length - len(mask) : length] = mask.bool()
        return padded_batch(ids, attention_mask, own)
    positions = torch.zeros(ids.shape, dtype=torch.long, device=ids.device)
    stop = 0
    for mask, length in zip(masks, lengths, strict=True):
        start, stop = stop, stop + length
        positions[0, start:stop] = torch.arange(length)
        own[0, stop - len(mask) : stop] = mask.bool()
    positions[0, stop:] = torch.arange(ids.shape[1] - stop)
    return packed_batch(ids, positions, own)


def nested_readings(
    readings: Readings, batch: TokenBatch, names: Iterable[str], lengths: Sequence[int]
) -> dict[str, Tensor]:
    """Return attention readings as nested tensors, one number per token of the whole sequences.

    NaN stands at tokens that a reading has no number for.

    Args:
        readings: What was read of a batch.
        batch: The batch, made by `model_batch`.
        names: Which readings.
        lengths: Tokens of each sequence.
    """
    spread = {}
    for name in names:
        flat = _by_token(readings.require(name, batch), batch, lead=name in _ROW_METRICS)
        if len(flat) == 1:
            rows = flat[0, : sum(lengths)].split(list(lengths))
        else:
            rows = [row[:length] for row, length in zip(flat, lengths, strict=True)]
        spread[name] = torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)
    return spread


def readings_from(
    measured: Mapping[str, Tensor],
    facts: Mapping[str, Tensor],
    response_mask: Tensor,
    *,
    draw: int = 0,
) -> Readings:
    """Return the readings of responses from nested tensors.

    Args:
        measured: Attention readings by name, `(sequence, token)` of the whole sequences.
        facts: Numbers of the response tokens by name, `(sequence, response)`: `advantage`, `ids`,
            `log_probability`, and `entropy` of the distribution that each token was drawn from.
        response_mask: `(sequence, response)`: 1 at tokens that the policy wrote.
        draw: Number of the batch, for rules that draw at random.
    """
    masks = response_mask.unbind()
    width = max((len(mask) for mask in masks), default=0)
    readings: dict[str, Tensor] = {}
    for name, values in measured.items():
        lead = int(name in _ROW_METRICS)
        rows = [
            _last(row, len(mask) + lead) for row, mask in zip(values.unbind(), masks, strict=True)
        ]
        readings[name] = _padded(rows, width + lead, _NAN)
    for name, values in facts.items():
        fill = {"advantage": 0.0, "ids": -1}.get(name, _NAN)
        # an entropy stands at the token it drew; the row of the last token is not known
        readings[name] = _padded(values.unbind(), width + (name == "entropy"), fill)
    mask = _padded([mask.bool() for mask in masks], width, False)
    return Readings(mask=mask, draw=draw, **readings)


def credited(credit: Credit, advantages: Tensor) -> Tensor:
    """Return nested advantages times the weights, as they are where there is no weight.

    Args:
        credit: Weights of the responses.
        advantages: Nested, `(sequence, response)`.

    Raises:
        CreditError: The weights are of other responses.
    """
    rows = advantages.unbind()
    if len(rows) != len(credit.mask):
        raise CreditError(f"{len(rows)} responses have advantages, {len(credit.mask)} weights")
    weighted = [
        torch.where(mask[: len(row)], row * weights[: len(row)].to(row), row)
        for row, weights, mask in zip(rows, credit.weights, credit.mask, strict=True)
    ]
    return torch.nested.as_nested_tensor(weighted, layout=torch.jagged)


def _by_token(
    values: Float[Tensor, "batch _"], batch: TokenBatch, *, lead: bool
) -> Float[Tensor, "row column"]:
    """Return values where their tokens lie, NaN elsewhere."""
    tokens = values.new_full(batch.layout.shape, torch.nan)
    for stretch, own in zip(batch.layout.stretches, values, strict=True):
        before = int(lead and stretch.first > stretch.start)
        first = stretch.first - before
        count = stretch.end - first
        tokens[stretch.row, first : stretch.end] = own[lead - before :][:count]
    return tokens


def _last(row: Tensor, count: int) -> Tensor:
    """Return the last numbers of a row, NaN before its first."""
    missing = max(0, count - len(row))
    known = row[len(row) - (count - missing) :]
    return torch.cat([row.new_full((missing,), torch.nan), known])


def _padded(rows: Iterable[Tensor], width: int, fill: float | int | bool) -> Tensor:
    """Return rows of one width, filled up on the right."""
    return torch.stack(
        [torch.nn.functional.pad(row, (0, width - len(row)), value=fill) for row in rows]
    )
