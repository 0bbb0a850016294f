"""How a trace shows itself: as text and as a table for notebooks."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from attnscope.traces.card import Card
from attnscope.traces.layer_numbers import layer_runs
from attnscope.traces.observations import SiteSummary
from attnscope.traces.provenance import Provenance
from attnscope.traces.segments import TokenSequence

__all__ = ["describe", "readable_bytes", "to_html"]


def describe(
    provenance: Provenance,
    sequences: Mapping[str, TokenSequence],
    summaries: Sequence[SiteSummary],
    nbytes: int,
    card: Card,
) -> str:
    """Return what is in a trace as a few lines of text."""
    lines = [_title(provenance, summaries, nbytes)]
    lines += [f"  {sequence.name}: {_positions(sequence)}" for sequence in sequences.values()]
    for stack, row in _stacks(summaries).items():
        layers, heads, size, *operator = row
        lines.append(
            f"  {stack}: layers {layers}, {heads} heads, {size}, "
            f"{', '.join(filter(None, operator))}"
        )
    lines += [f"  card: {line}" for line in card.lines()]
    return "\n".join(lines)


def to_html(
    provenance: Provenance,
    sequences: Mapping[str, TokenSequence],
    summaries: Sequence[SiteSummary],
    nbytes: int,
    card: Card,
) -> str:
    """Return what is in a trace as HTML, every name in it escaped."""
    head = _row("th", ("stack", "layers", "heads", "queries x keys", "operator", "gradient"))
    rows = "".join(_row("td", (stack, *row)) for stack, row in _stacks(summaries).items())
    items = "".join(
        f"<li><b>{escape(sequence.name)}</b>: {escape(_positions(sequence))}</li>"
        for sequence in sequences.values()
    )
    title = escape(_title(provenance, summaries, nbytes))
    return (
        f"<div><p>{title}</p><ul>{items}</ul><table>{head}{rows}</table>{card._repr_html_()}</div>"
    )


def readable_bytes(count: int) -> str:
    """Return a number of bytes as people say it: 2.5 MB for 2,500,000."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def _title(provenance: Provenance, summaries: Sequence[SiteSummary], nbytes: int) -> str:
    model = provenance.model or "an unnamed model"
    dtype = f" ({provenance.dtype})" if provenance.dtype else ""
    return f"Trace of {model}{dtype}: {len(summaries)} attention sites, {readable_bytes(nbytes)}"


def _positions(sequence: TokenSequence) -> str:
    runs = ", ".join(f"{run.name} {run.start}-{run.stop - 1}" for run in sequence.segments)
    return f"{len(sequence):,} x {sequence.axis}" + (f" ({runs})" if runs else "")


def _stacks(summaries: Sequence[SiteSummary]) -> dict[str, tuple[str, str, str, str, str]]:
    """Return layers, heads, sizes, kinds and whether there are gradients, of each stack."""
    stacks: dict[str, list[SiteSummary]] = {}
    for summary in summaries:
        stacks.setdefault(summary.site.stack, []).append(summary)
    return {
        stack: (
            layer_runs(summary.site.layer for summary in members),
            _span([summary.shape[0] for summary in members]),
            _sizes({summary.shape[1:] for summary in members}),
            ", ".join(dict.fromkeys(summary.kind for summary in members)),
            _gradients([summary.has_gradient for summary in members]),
        )
        for stack, members in stacks.items()
    }


def _gradients(known: Sequence[bool]) -> str:
    if all(known):
        return "with gradient"
    return f"{sum(known)} with gradient" if any(known) else ""


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"


def _sizes(sizes: Iterable[tuple[int, ...]]) -> str:
    named = [" x ".join(f"{length:,}" for length in size) for size in sizes]
    return named[0] if len(named) == 1 else "several sizes"


def _row(tag: str, cells: Iterable[str]) -> str:
    inner = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"
