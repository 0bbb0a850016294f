"""How each mechanism's time and memory grow with its length, alone and while it is captured.

`python -m benchmarks.mechanisms` measures one module of each kind at several lengths, each
mechanism in a process of its own, and fits the exponents: cost ~ length^exponent. A capture reads
exact statistics from the mechanism's own operator (row sums, column sums, the mean key, and a band
of diagonals where the tokens are a sequence); it must not grow faster than the mechanism.
"""

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from attnscope.attention import AttentionOperator, key_position
from attnscope.probes import Run, Subject, capture
from attnscope.traces import Observation
from benchmarks.mechanism_modules import MODULES
from benchmarks.memory import observed
from benchmarks.results import write_section

_DATA = Path(__file__).with_name("mechanisms.json")
_SIDES = (48, 96, 192)
_REPEATS = 3
_PATIENCE = 20.0
_TOLERANCE = 0.2


@dataclass(frozen=True, slots=True)
class Row:
    """One mechanism at one length: seconds and bytes, alone and captured."""

    mechanism: str
    length: int
    plain_seconds: float
    captured_seconds: float
    plain_bytes: int
    captured_bytes: int


class ExactStatistics:
    """A recorder that reads statistics of every operator and keeps nothing."""

    needs: frozenset[str] = frozenset()
    riders = ()

    def start(self) -> None:
        """Begin."""

    def record(self, observation: Observation) -> None:
        """Read what every kind of operator can tell at its own cost."""
        in_order = all(run.grid is None for run in observation.queries.segments)
        read(observation.attention, in_order=in_order)

    def finish(self, run: Run) -> None:
        """Return nothing."""


def read(attention: AttentionOperator, *, in_order: bool) -> list[Tensor]:
    """Return row sums, column sums, the mean key and, of a sequence, a band of eight diagonals."""
    found = [
        attention.row_mass(),
        attention.column_mass(),
        attention.key_moment(key_position),
    ]
    if in_order and attention.offset is not None:
        found.append(attention.band(8))
    return found


def measure(mechanism: str) -> list[Row]:
    """Return the rows of one mechanism, up to the length that would take too long."""
    rows: list[Row] = []
    for side in _SIDES:
        if rows and rows[-1].captured_seconds * 16 > _PATIENCE:
            break
        torch.manual_seed(0)
        module, inputs = MODULES[mechanism](side)
        rows.append(_row(mechanism, side * side, module.eval(), inputs))
    return rows


def _row(mechanism: str, length: int, module: nn.Module, inputs: dict[str, Tensor]) -> Row:
    subject = Subject(module)

    def plain() -> None:
        with torch.no_grad():
            module(**inputs)

    def captured() -> None:
        capture(subject, inputs, into=ExactStatistics())

    plain()  # the first calls compile and allocate
    captured()
    alone, heard = _cost(plain), _cost(captured)
    return Row(mechanism, length, alone[0], heard[0], alone[1], heard[1])


def _cost(call: Callable[[], None]) -> tuple[float, int]:
    """Return the median time, and the memory that the call adds at its peak."""
    runs = [observed(call) for _ in range(_REPEATS)]
    seconds = statistics.median(run.seconds for run in runs)
    return seconds, max(run.peak - run.before for run in runs)


def exponent(lengths: list[int], costs: list[float]) -> float:
    """Return the slope of log cost over log length by least squares; NaN of fewer than two.

    Example:
        >>> exponent([10, 100], [1.0, 100.0])
        2.0
    """
    if len(lengths) < 2 or min(costs) <= 0:
        return math.nan
    slope, _ = statistics.linear_regression(
        [math.log(length) for length in lengths], [math.log(cost) for cost in costs]
    )
    return round(slope, 12)


def table(rows: list[Row]) -> str:
    """Return the table, one line for each mechanism."""
    lines = [
        "| mechanism | lengths | time grows as | captured | memory grows as | captured "
        "| capture costs at the longest |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    for mechanism in dict.fromkeys(row.mechanism for row in rows):
        own = [row for row in rows if row.mechanism == mechanism]
        lengths = [row.length for row in own]
        fits = [
            exponent(lengths, [float(getattr(row, name)) for row in own])
            for name in ("plain_seconds", "captured_seconds", "plain_bytes", "captured_bytes")
        ]
        faster = fits[1] > fits[0] + _TOLERANCE or fits[3] > fits[2] + _TOLERANCE
        ratio = own[-1].captured_seconds / own[-1].plain_seconds
        powers = " | ".join("-" if math.isnan(fit) else f"T^{fit:.2f}" for fit in fits)
        lines.append(
            f"| {mechanism} | {', '.join(f'{length:,}' for length in lengths)} | {powers} "
            f"| {ratio:.2f} times{' **(grows faster)**' if faster else ''} |"
        )
    return "\n".join(lines)


def main(
    mechanism: Annotated[str | None, typer.Option(help="Print the rows of one.")] = None,
) -> None:
    """Measure every mechanism and write the table."""
    if mechanism is not None:
        print(json.dumps([asdict(row) for row in measure(mechanism)]))
        return
    rows: list[Row] = []
    for name in MODULES:
        command = [sys.executable, "-m", "benchmarks.mechanisms", "--mechanism", name]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows += [Row(**row) for row in json.loads(printed.splitlines()[-1])]
        print(name, "done", flush=True)
    _DATA.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    write_section("mechanisms", table(rows))


if __name__ == "__main__":
    typer.run(main)
