"""`chosen_rows` and what else all metrics ask of rows: which count, what they sum to, their mean.

A row that sees no key does not exist: it is left out of every mean, and its own reading is NaN.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.attention import AttentionOperator, TruncatedAttention
from attnscope.metrics.errors import MetricError

__all__ = [
    "Rows",
    "backward_shares",
    "chosen_rows",
    "distances",
    "mean_rows",
    "precise",
    "require_positions",
    "require_whole",
    "row_shares",
]

Rows = Sequence[int] | slice | Tensor
"""Row indices of an operator: the queries that a metric averages over, usually the response.

Where the items of a batch differ, a mask with the axes `(*batch, #head, query)`.
"""

_EXCESS = {torch.float64: 1e-6, torch.float32: 1e-3}


def precise(values: Tensor) -> Tensor:
    """Return values in single precision at least, the type that readings have."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def chosen_rows(
    attention: AttentionOperator, queries: Rows | None
) -> Bool[Tensor, "*batch #head query"]:
    """Return which rows are both asked for (None for all) and exist.

    Raises:
        MetricError: A query lies outside the operator.
    """
    valid = attention.valid_queries
    if queries is None:
        return valid
    if isinstance(queries, Tensor) and queries.dtype == torch.bool and queries.ndim > 1:
        return valid & queries
    asked = torch.zeros(attention.queries, dtype=torch.bool, device=attention.device)
    try:
        asked[_as_index(queries)] = True
    except IndexError as error:
        raise MetricError(
            f"queries {queries!r} reach outside {attention!r}: its rows go from 0 to "
            f"{attention.queries - 1}"
        ) from error
    return valid & asked


def _as_index(queries: Rows) -> slice | Tensor:
    if isinstance(queries, slice):
        return queries
    index = torch.as_tensor(queries)
    return index if index.dtype == torch.bool else index.long()


def mean_rows(
    values: Float[Tensor, "*batch head query"], rows: Bool[Tensor, "*rows query"]
) -> Float[Tensor, "*batch head"]:
    """Return the mean over the chosen rows, NaN where none is chosen.

    Example:
        >>> values = torch.tensor([[1.0, 2.0, torch.nan]])
        >>> mean_rows(values, torch.tensor([[True, True, False]])).tolist()
        [1.5]
    """
    total = torch.where(rows, values, 0).sum(-1)
    count = rows.sum(-1)
    return torch.where(count > 0, total / count, torch.nan)


def distances(
    attention: AttentionOperator, block: slice, offset: int
) -> Int[Tensor, "some_query key"]:
    """Return how far behind each query of a block each key lies; negative for keys ahead."""
    query = torch.arange(block.start, block.stop, device=attention.device) + offset
    return query[:, None] - torch.arange(attention.keys, device=attention.device)


def row_shares(attention: AttentionOperator, metric: str) -> Float[Tensor, "*batch head query"]:
    """Return what each row sums to: 1, or less beside a learned sink, NaN where it is empty.

    Raises:
        MetricError: Entries are not shares of a whole: some are negative, or rows exceed 1.
    """
    require_whole(attention, metric)
    if attention.signed:
        raise MetricError(
            f"{metric} needs attention that is nowhere negative; {attention!r} is signed"
        )
    valid = attention.valid_queries
    if attention.stochastic:
        ones = torch.ones((), dtype=torch.promote_types(attention.dtype, torch.float32))
        return torch.where(valid, ones.to(attention.device), torch.nan).expand(attention.shape[:-1])
    mass = precise(attention.row_mass())
    if bool((mass > 1 + _EXCESS.get(attention.dtype, 2e-2)).any()):
        raise MetricError(
            f"{metric} needs rows that sum to at most 1; those of {attention!r} reach "
            f"{float(mass.max()):.4g} (measure its normalized())"
        )
    return torch.where(valid, mass, torch.nan)


def require_whole(attention: AttentionOperator, metric: str) -> None:
    """Refuse rows of which only the largest weights were kept.

    Raises:
        MetricError: Weights are gone that the metric would have to know.
    """
    if isinstance(attention, TruncatedAttention) and attention.partial:
        raise MetricError(
            f"{metric} needs whole rows; of this reduced trace only the "
            f"{attention.weights.shape[-1]} largest weights of each row are left, and up to "
            f"{float(attention.lost.max()):.3g} of a row is gone. Measure before reducing and keep "
            "the reading (readings=), or ask attention.entropy_bounds() or .moment_bounds()"
        )


def require_positions(attention: AttentionOperator, metric: str) -> int:
    """Return the key index at which query 0 stands.

    Raises:
        MetricError: Queries and keys are not positions of one sequence.
    """
    if attention.offset is None:
        raise MetricError(
            f"{metric} needs queries and keys that are positions of one sequence; {attention!r} "
            f"maps {attention.key_axis} keys to {attention.query_axis} queries"
        )
    return attention.offset


def backward_shares(
    attention: AttentionOperator, metric: str
) -> Float[Tensor, "*batch head query"]:
    """Return what each row sums to, NaN also where a query reads keys ahead of it.

    For metrics of looking back. In causal attention no query reads ahead; elsewhere (patches of an
    image that see each other, a prefix) finding out takes a pass over all tiles.

    Raises:
        MetricError: Every query that has keys ahead reads them, or entries are not shares of a
            whole, or the axes are not one sequence.
    """
    offset = require_positions(attention, metric)
    mass = row_shares(attention, metric)
    if attention.causal:
        return mass
    ahead = [
        torch.where(distances(attention, block, offset) < 0, tile, 0).sum(-1)
        for block, tile in attention.blocks()
    ]
    reads_ahead = torch.cat(ahead, dim=-1) > 0
    position = torch.arange(attention.queries, device=attention.device) + offset
    open_rows = reads_ahead[..., position < attention.keys - 1]
    if open_rows.numel() and bool(open_rows.all()):
        raise MetricError(
            f"{metric} is defined for causal attention; every query of {attention!r} reads ahead "
            "(mean_distance and window_mass measure locality in both directions)"
        )
    return torch.where(reads_ahead, torch.nan, mass)
