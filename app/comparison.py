"""Two captured runs side by side: their tokens aligned, and what metrics say of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path

import torch
from torch import Tensor

from attnscope.app.shared_readings import shared_reading, shown_positions
from attnscope.metrics import METRICS, MetricError, Reading
from attnscope.traces import Trace

__all__ = [
    "Side",
    "aligned_positions",
    "head_difference",
    "token_difference",
    "token_numbers",
    "token_values",
]

_ENTROPY, _LIKELIHOOD = "token_entropy", "log_probability"
_OF_TRACES = {
    _ENTROPY: ("Entropy of the next token", "nats", "entropies"),
    _LIKELIHOOD: ("Log-probability of the token", "nats", "log_probabilities"),
}
_TRACE_METRICS = (
    "local_waad",
    "global_fai",
    "preplan",
    "receiver_fai",
    "rollout",
    "waad",
    "fai",
    "received_attention",
    "entropy",
    "own_share",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One of the two runs.

    Attributes:
        path: Its file.
        trace: Its trace.
        stack: The stack that is compared.
    """

    path: Path
    trace: Trace
    stack: str

    @property
    def positions(self) -> list[int]:
        """Return the positions that are compared: the response, or all tokens without one."""
        return shown_positions(self.trace, self.stack)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return the tokens of the sequence whose positions are compared."""
        site = self.trace.select(stack=self.stack).sites[0]
        return self.trace.sequences[site.query_sequence].tokens


def token_numbers() -> dict[str, str]:
    """Return what can be compared token by token: names, with titles."""
    found = {name: METRICS[name].title for name in _TRACE_METRICS if name in METRICS}
    return found | {name: title for name, (title, _, _) in _OF_TRACES.items()}


def aligned_positions(first: Side, second: Side) -> list[tuple[int, int]]:
    """Return the positions at which both runs have the same tokens, in the order of the text.

    Tokens are matched as a difference of two texts is: the longest runs that agree, and on both
    sides of them again. Runs of one text agree everywhere; of two answers only what both say.
    """
    a, b = first.positions, second.positions
    texts = [first.tokens[p] for p in a], [second.tokens[p] for p in b]
    blocks = SequenceMatcher(a=texts[0], b=texts[1], autojunk=False).get_matching_blocks()
    return [(a[run.a + i], b[run.b + i]) for run in blocks for i in range(run.size)]


def token_values(side: Side, name: str) -> Reading:
    """Return one number per token of a run; a metric of heads is averaged over all heads.

    Raises:
        MetricError: The trace lacks what the metric needs.
    """
    if name in _OF_TRACES:
        return _stored_values(side, name)
    reading = shared_reading(side.path, side.stack, name)
    return reading.mean(*(axis for axis in reading.axes if axis not in ("query", "key")))


def token_difference(
    first: Side, second: Side, name: str, pairs: Sequence[tuple[int, int]]
) -> Reading:
    """Return second minus first at the aligned tokens, over the tokens of the first run.

    Tokens that the second run does not have are NaN.

    Raises:
        MetricError: A trace lacks what the metric needs.
    """
    one, other = token_values(first, name), token_values(second, name)
    (axis,) = one.axes
    values = torch.full((len(first.tokens),), torch.nan)
    if pairs:
        places, partners = (torch.tensor(side) for side in zip(*pairs, strict=True))
        values[places] = other.values[partners].float() - one.values[places].float()
    difference = replace(
        one,
        name=f"{name}_difference",
        title=f"{one.title}: second minus first",
        values=values,
        bounds=(None, None),
        coordinates={axis: first.tokens},
        positions={axis: tuple(range(len(values)))},
    )
    return difference.select(**{axis: first.positions})


def head_difference(one: Reading, other: Reading) -> Reading:
    """Return second minus first of every head.

    Raises:
        MetricError: The two are not of the same layers and heads.
    """
    shapes = [tuple(reading.values.shape) for reading in (one, other)]
    layers = [reading.coordinates.get("layer") for reading in (one, other)]
    if shapes[0] != shapes[1] or layers[0] != layers[1]:
        raise MetricError(
            f"heads are subtracted one by one where both have the same layers and heads; the first "
            f"has {shapes[0]}, the second {shapes[1]} layers and heads"
        )
    return replace(
        one,
        name=f"{one.name}_difference",
        title=f"{one.title}: second minus first",
        values=other.values.float() - one.values.float(),
        bounds=(None, None),
    )


def _stored_values(side: Side, name: str) -> Reading:
    title, unit, field = _OF_TRACES[name]
    values: Tensor | None = getattr(side.trace, field)
    if values is None or side.tokens != side.trace.tokens:
        raise MetricError(f"{side.path.name} was captured without the {title.lower()}")
    return Reading(
        name=name,
        title=title,
        unit=unit,
        values=values,
        axes=("query",),
        bounds=(0.0, None) if name == _ENTROPY else (None, 0.0),
        coordinates={"query": side.tokens},
        positions={"query": tuple(range(len(values)))},
    )
