"""`print_contents`: what a trace holds, told from its header."""

from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table

from attnscope.app.screen import plain_table, screen, visible
from attnscope.traces import TokenSequence, Trace

__all__ = ["print_contents"]

_OPENING = 60


def print_contents(trace: Trace, path: Path) -> None:
    """Print where a trace comes from, its sequences and its stacks; no attention is read."""
    console = screen()
    console.print(_origin(trace, path))
    console.print(_sequences(trace))
    if trace.sites:
        console.print(_stacks(trace))
    for name, reading in trace.readings.items():
        console.print(f"reading {visible(name)}: {visible(repr(reading))}", soft_wrap=True)
    for line in trace.card.lines():
        console.print(f"card: {visible(line)}", soft_wrap=True)


def _origin(trace: Trace, path: Path) -> Table:
    origin = trace.provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    facts = {
        "file": f"{path} ({decimal(path.stat().st_size)}, {decimal(trace.nbytes)} of tensors)",
        "model": origin.model or "not named",
        "revision": origin.revision or "",
        "computed in": origin.dtype or "",
        "gradients of": origin.gradient_target or "",
        "versions": versions,
        **origin.notes,
    }
    numbers = {"log-probabilities": trace.log_probabilities, "entropies": trace.entropies}
    facts["per token"] = ", ".join(name for name, vector in numbers.items() if vector is not None)
    table = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        if fact:
            table.add_row(visible(name), visible(fact))
    return table


def _sequences(trace: Trace) -> Table:
    table = plain_table("sequence", "segment", ">from", ">to", ">length", "opens with", title="")
    for sequence in trace.sequences.values():
        main = " (main)" if sequence.name == trace.main_sequence else ""
        table.add_row(
            visible(f"{sequence.name}{main}"),
            f"all, by {visible(sequence.axis)}",
            "0",
            f"{len(sequence) - 1:,}",
            f"{len(sequence):,}",
            "" if sequence.segments.runs else _opening(sequence, range(len(sequence))),
        )
        for run in sequence.segments:
            grid = "" if run.grid is None else f" {run.grid[0]} x {run.grid[1]}"
            last, length = f"{run.stop - 1:,}", f"{run.stop - run.start:,}"
            words = _opening(sequence, run.positions)
            table.add_row("", f"{visible(run.name)}{grid}", f"{run.start:,}", last, length, words)
    return table


def _opening(sequence: TokenSequence, positions: range) -> str:
    """Return the first words of some positions, as far as they fit."""
    tokens = [sequence.tokens[position] for position in positions[:_OPENING]]
    gap = "" if any(token.startswith(" ") or token.endswith(" ") for token in tokens) else " "
    text = visible(gap.join(tokens))
    return text if len(text) <= _OPENING else f"{text[:_OPENING]}…"


def _stacks(trace: Trace) -> Table:
    table = plain_table("stack", "layers", ">heads", ">queries x keys", "operator", ">gradients")
    for stack in trace.stacks:
        members = [summary for summary in trace.observed.summaries if summary.site.stack == stack]
        main = " (main)" if stack == trace.main_stack else ""
        sizes = dict.fromkeys(" x ".join(f"{n:,}" for n in member.shape[1:]) for member in members)
        gradients = sum(member.has_gradient for member in members)
        table.add_row(
            visible(f"{stack}{main}"),
            _runs(sorted(member.site.layer for member in members)),
            ", ".join(dict.fromkeys(str(member.shape[0]) for member in members)),
            next(iter(sizes)) if len(sizes) == 1 else f"{len(sizes)} sizes",
            ", ".join(dict.fromkeys(_kind(member.kind, member.causal) for member in members)),
            {0: "none", len(members): "all"}.get(gradients, f"{gradients} layers"),
        )
    return table


def _kind(name: str, causal: bool) -> str:
    return f"{name}, causal" if causal else name


def _runs(numbers: Sequence[int]) -> str:
    """Return ascending numbers with neighbors joined.

    Example:
        >>> _runs([0, 1, 2, 7])
        '0-2, 7'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
