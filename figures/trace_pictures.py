"""`TracePictures`: what a report shows of a trace, measured once for the screen and for paper."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnscope.attention import GateAttention
from attnscope.figures.gates import GateMap, gate_map
from attnscope.figures.grids import HeadGrid, head_grid
from attnscope.figures.maps import AttentionMap, attention_map
from attnscope.figures.palette import ANCHOR, PREPLAN, Mark
from attnscope.figures.reduction import Zoom
from attnscope.figures.rhythms import RhythmPlot, rhythm_plot
from attnscope.figures.ribbons import TokenRibbon, token_ribbon
from attnscope.figures.scatters import HeadScatter, head_scatter
from attnscope.metrics import HeadGroups, MetricError, Reading, head_groups, measure
from attnscope.traces import TokenSequence, Trace

__all__ = ["HEAD_METRICS", "HeadName", "TracePictures"]

HEAD_METRICS = ("head_span", "mean_distance", "entropy", "sink_mass")
"""What a report tells of each head; the second only where the first is not defined."""

TOKEN_METRICS = ("local_waad", "preplan", "preplan_token", "global_fai", "anchor_token")
"""What a report tells of each token."""


@dataclass(frozen=True, slots=True, order=True)
class HeadName:
    """A head by the number of its layer and its own."""

    layer: int
    head: int

    def __str__(self) -> str:
        """Return the head as figures write it: `L5H1`."""
        return f"L{self.layer}H{self.head}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TracePictures:
    """The readings of one stack of a trace, and the pictures of them.

    Attributes:
        trace: What was captured.
        stack: The stack that is shown.
        positions: The queries that are shown: the response, or all where there is none.
        readings: Head-level and token-level readings of what is shown, by metric.
        reasons: Why a metric is missing, by metric.
    """

    trace: Trace
    stack: str
    positions: tuple[int, ...]
    readings: Mapping[str, Reading]
    reasons: Mapping[str, str]

    @classmethod
    def of(cls, trace: Trace, stack: str | None = None) -> "TracePictures":
        """Measure one stack of a trace, by default the main one.

        Raises:
            TraceError: The trace holds no such stack.
        """
        stack = stack or trace.main_stack
        site = trace.select(stack=stack).sites[0]
        queries = trace.sequences[site.query_sequence]
        in_response = "response" in queries.segments
        positions = queries.segments["response"] if in_response else list(range(len(queries)))
        readings: dict[str, Reading] = {}
        reasons: dict[str, str] = {}
        # A gate reads no other position: its distances would all be 0, and say nothing.
        names = () if _is_gated(trace, stack) else (*HEAD_METRICS, *TOKEN_METRICS)
        for name in names:
            if name == "mean_distance" and "head_span" in readings:
                continue
            options = {"queries": positions} if name in ("mean_distance", "sink_mass") else {}
            try:
                reading = measure(trace, name, stack=stack, **options)
            except MetricError as error:
                reasons[name] = str(error)
            else:
                readings[name] = _shown(reading, positions)
        return cls(
            trace=trace,
            stack=stack,
            positions=tuple(positions),
            readings=readings,
            reasons=reasons,
        )

    # --- what there is ----------------------------------------------------------------------

    @property
    def queries(self) -> TokenSequence:
        """Return the sequence whose positions are shown."""
        site = self.trace.select(stack=self.stack).sites[0]
        return self.trace.sequences[site.query_sequence]

    @property
    def layers(self) -> int:
        """Return the number of layers."""
        return sum(site.stack == self.stack for site in self.trace.sites)

    @property
    def heads(self) -> int:
        """Return the number of heads of a layer."""
        first = next(site for site in self.trace.sites if site.stack == self.stack)
        return self.trace.attention[self.stack, first.layer].heads

    @property
    def is_gated(self) -> bool:
        """Return whether every layer is a gate, which has no map from position to position."""
        return _is_gated(self.trace, self.stack)

    @property
    def has_rhythm(self) -> bool:
        """Return whether preplan and anchor tokens are defined here."""
        return all(name in self.readings for name in TOKEN_METRICS)

    @property
    def has_token_entropy(self) -> bool:
        """Return whether the trace tells how undecided the model was at the tokens shown."""
        main = self.trace.sequences[self.trace.main_sequence]
        return self.has_rhythm and self.trace.entropies is not None and main == self.queries

    @property
    def distance(self) -> str:
        """Return the metric that tells how far heads look; nothing where none does."""
        found = (name for name in ("head_span", "mean_distance") if name in self.readings)
        return next((name for name in found if self.heads_by(name)), "")

    @property
    def groups(self) -> HeadGroups | None:
        """Return the local and the global heads, where distances tell them apart."""
        if not self.distance or len(self.heads_by(self.distance)) < 2:
            return None
        return head_groups(self.readings[self.distance].values)

    @property
    def marks(self) -> dict[Mark, tuple[int, ...]]:
        """Return the positions of the preplan and of the anchor tokens."""
        if not self.has_rhythm:
            return {}
        roles = {PREPLAN: "preplan_token", ANCHOR: "anchor_token"}
        return {mark: _positions_of_ones(self.readings[name]) for mark, name in roles.items()}

    def heads_by(self, name: str) -> list[tuple[HeadName, float]]:
        """Return the heads with their number of a metric, the lowest first; NaN is left out."""
        reading = self.readings[name]
        layers, heads = reading.coordinates["layer"], reading.coordinates["head"]
        found = [
            (HeadName(layers[row], heads[column]), float(reading.values[row, column]))
            for row, column in reading.values.isnan().logical_not().nonzero().tolist()
        ]
        return sorted(found, key=lambda pair: pair[1])

    # --- pictures ---------------------------------------------------------------------------

    def ribbons(self) -> dict[str, TokenRibbon]:
        """Return the text tinted by WAAD and by FAI."""
        if not self.has_rhythm:
            return {}
        marks = self.marks
        return {
            name: token_ribbon(
                self.readings[name],
                marks={mark: marks[mark]},
                tint=mark.color,
                title=f"{self.readings[name].title} ({short})",
            )
            for name, short, mark in (
                ("local_waad", "WAAD", PREPLAN),
                ("global_fai", "FAI", ANCHOR),
            )
        }

    def rhythm(self) -> RhythmPlot | None:
        """Return WAAD and FAI over the tokens shown, and entropy where the trace has it."""
        if not self.has_rhythm:
            return None
        entropies = self.trace.entropies if self.has_token_entropy else None
        return rhythm_plot(
            self.readings["local_waad"],
            self.readings["global_fai"],
            marks=self.marks,
            entropy=None if entropies is None else entropies[list(self.positions)],
        )

    def grids(self) -> dict[str, HeadGrid]:
        """Return every head-level reading as a grid."""
        found = (name for name in HEAD_METRICS if name in self.readings)
        return {name: head_grid(self.readings[name]) for name in found}

    def scatter(self) -> HeadScatter | None:
        """Return entropy against distance."""
        if not self.distance or "entropy" not in self.readings:
            return None
        x, y = self.readings[self.distance], self.readings["entropy"]
        return head_scatter(x, y, groups=self.groups)

    def maps(self, cells: int = 384) -> Iterator[tuple[str, HeadName, AttentionMap | GateMap]]:
        """Yield the maps of the two heads that differ most: in distance, entropy or size of a gate.

        Colors of an attention map are logarithmic where they can be, so that a sink does not hide
        the rest.
        """
        words, ranked = self._ranked()
        for word, head in zip(words, ranked[:1] + ranked[1:][-1:], strict=False):
            shown = self.map_of(head, Zoom(cells=cells))
            if isinstance(shown, AttentionMap) and not shown.scale.diverging:
                shown = shown.with_log_colors() if bool((shown.values > 0).any()) else shown
            yield word, head, shown

    def _ranked(self) -> tuple[tuple[str, str], list[HeadName]]:
        if self.is_gated:
            gates = self.trace.attention
            sizes = {
                HeadName(site.layer, head): size
                for site in self.trace.select(stack=self.stack).sites
                for head, size in enumerate(
                    gates[self.stack, site.layer].absolute_mass().mean(-1).tolist()
                )
            }
            return ("weakest", "strongest"), sorted(sizes, key=lambda head: sizes[head])
        name, words = self.distance, ("most local", "most global")
        if not name:
            name, words = "entropy", ("most focused", "most spread")
        ranked = self.heads_by(name) if name in self.readings else []
        return words, [head for head, _ in ranked]

    def map_of(self, head: HeadName, zoom: Zoom) -> AttentionMap | GateMap:
        """Return the map of one head, with the tokens of its own sequences; a gate on its grid."""
        where = (self.stack, head.layer)
        site = next(s for s in self.trace.sites if (s.stack, s.layer) == where)
        attention, title = self.trace.attention[where], f"Layer {head.layer}, head {head.head}"
        if isinstance(attention, GateAttention):
            grid = _grid_of(self.trace.sequences[site.query_sequence])
            return gate_map(attention, head.head, grid=grid, title=f"Gate of {title.lower()}")
        return attention_map(
            attention,
            head.head,
            zoom=zoom,
            query_tokens=self.trace.sequences[site.query_sequence].tokens,
            key_tokens=self.trace.sequences[site.key_sequence].tokens,
            title=title,
        )


def _shown(reading: Reading, positions: list[int]) -> Reading:
    """Return the part of a reading that is shown; of a head, the mean over the queries shown."""
    for axis in ("query", "key"):
        if axis in reading.axes:
            reading = reading.select(**{axis: positions})
    return reading.mean("query") if "head" in reading.axes and "query" in reading.axes else reading


def _is_gated(trace: Trace, stack: str) -> bool:
    layers = (site.layer for site in trace.select(stack=stack).sites)
    return all(isinstance(trace.attention[stack, layer], GateAttention) for layer in layers)


def _grid_of(sequence: TokenSequence) -> tuple[int, int] | None:
    """Return rows and columns of the patches that end a sequence."""
    runs = sequence.segments.runs
    return runs[-1].grid if runs and runs[-1].stop == len(sequence) else None


def _positions_of_ones(reading: Reading) -> tuple[int, ...]:
    positions = reading.positions[reading.axes[0]]
    return tuple(positions[place] for place in (reading.values == 1).nonzero().flatten().tolist())
