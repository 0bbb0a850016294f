"""Neighborhood attention by an index table, against masked dense and flex attention.

`python -m benchmarks.neighborhood` measures every way on square grids of pixels and windows of
several sizes, each way in a process of its own, on CUDA where there is one. Outputs are compared,
so that no way wins by computing something else. The rows are kept in `neighborhood.json`; `--side`
and `--window` measure some anew and keep the others.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from attnscope.models.neighborhood_fused import FusedNeighborhood
from attnscope.models.neighborhood_index import Neighborhood
from attnscope.models.neighborhood_softmax import neighborhood_pattern
from benchmarks.memory import observed
from benchmarks.results import write_section

SIDES, WINDOWS = (32, 64, 128), (7, 13, 25)
_HEADS, _DIM, _REPEATS = 4, 32, 5
_DATA = Path(__file__).with_name("neighborhood.json")
_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Row:
    """One way on one grid with one window; None where it cannot do a training step.

    Attributes:
        side: Rows and columns of the grid.
        window: Rows and columns of a neighborhood.
        way: What computed it.
        forward: Seconds without gradients.
        step: Seconds forward and backward.
        peak_mb: Memory that the dearer of the two adds while it runs.
        held_mb: Memory of the table or mask that stands ready before.
    """

    side: int
    window: int
    way: str
    forward: float
    step: float | None
    peak_mb: float
    held_mb: float


def indexed(neighborhood: Neighborhood) -> tuple[Attend, int]:
    """Return our operator, and the bytes of its table of keys."""
    table = neighborhood.keys()
    return lambda query, key, value: neighborhood_pattern(
        query * _DIM**-0.5, key, neighborhood
    ).apply(value), table.nbytes


def masked_dense(neighborhood: Neighborhood) -> tuple[Attend, int]:
    """Return fused dense attention with a mask of every pair, and the mask's bytes."""
    size = neighborhood.positions
    mask = torch.zeros(size, size, dtype=torch.bool).scatter_(1, neighborhood.keys(), True)
    mask = mask.to(_DEVICE)
    return lambda query, key, value: scaled_dot_product_attention(
        query, key, value, mask
    ), mask.nbytes


def flex(neighborhood: Neighborhood) -> tuple[Attend, int]:
    """Return compiled flex attention with a block mask, and the block mask's bytes."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    (side, _), window = neighborhood.grid, neighborhood.axes[0].window
    half = window // 2

    def near(query: Tensor, key: Tensor) -> Tensor:
        return (query.clamp(half, side - 1 - half) - key).abs() <= half

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return near(query // side, key // side) & near(query % side, key % side)

    size = neighborhood.positions
    mask = create_block_mask(sees, None, None, size, size, device=_DEVICE)
    compiled: Any = torch.compile(flex_attention)
    held = sum(part.nbytes for part in mask.as_tuple() if isinstance(part, Tensor))
    return lambda query, key, value: compiled(query, key, value, block_mask=mask), held


def natten(neighborhood: Neighborhood) -> tuple[Attend, int]:
    """Return the NATTEN package's kernel, which needs no table."""
    return lambda query, key, value: FusedNeighborhood(query * _DIM**-0.5, key, neighborhood).apply(
        value
    ), 0


WAYS: dict[str, Callable[[Neighborhood], tuple[Attend, int]]] = {
    "attnscope, indexed": indexed,
    "masked dense": masked_dense,
    "flex attention, compiled": flex,
    "NATTEN": natten,
}


def ways() -> list[str]:
    """Return the ways that this machine knows: NATTEN computes on CUDA."""
    has_natten = _DEVICE == "cuda" and find_spec("natten") is not None
    return [way for way in WAYS if way != "NATTEN" or has_natten]


def measure(side: int, window: int, way: str) -> Row:
    """Return the cost of one way, after its output was compared with the indexed operator's."""
    neighborhood = Neighborhood.of((side, side), window)
    attend, held = WAYS[way](neighborhood)
    generator = torch.Generator().manual_seed(0)
    factors = [
        torch.randn(1, _HEADS, side * side, _DIM, generator=generator).to(_DEVICE) for _ in range(3)
    ]

    def forward() -> Tensor:
        with torch.no_grad():
            return attend(*factors)

    leaves = [factor.clone().requires_grad_() for factor in factors]
    upstream = torch.ones_like(factors[0])

    def step() -> None:
        attend(*leaves).backward(upstream)

    with torch.no_grad():
        ours = indexed(neighborhood)[0](*factors)
    torch.testing.assert_close(forward(), ours, atol=1e-4, rtol=1e-4)
    seconds, peak = _cost(forward)
    learning = None
    if way != "flex attention, compiled" or _DEVICE == "cuda":  # no backward on CPUs
        step()
        learning, more = _cost(step)
        peak = max(peak, more)
    return Row(side, window, way, seconds, learning, peak / 2**20, held / 2**20)


def _cost(call: Callable[[], Any]) -> tuple[float, int]:
    """Return the median time, and the memory that a call adds at its peak."""
    runs = [_on_cuda(call) if _DEVICE == "cuda" else _here(call) for _ in range(_REPEATS)]
    return statistics.median(seconds for seconds, _ in runs), max(added for _, added in runs)


def _here(call: Callable[[], Any]) -> tuple[float, int]:
    run = observed(call)
    return run.seconds, run.peak - run.before


def _on_cuda(call: Callable[[], Any]) -> tuple[float, int]:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    call()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return seconds, torch.cuda.max_memory_allocated() - before


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        f"{_HEADS} heads of width {_DIM}, float32, one image.\n",
        "| grid | window | | forward ms | training step ms | MB while running | MB held |",
        "| --: | --: | --- | --: | --: | --: | --: |",
    ]
    for row in rows:
        step = "-" if row.step is None else f"{row.step * 1e3:,.1f}"
        lines.append(
            f"| {row.side} x {row.side} | {row.window} x {row.window} | {row.way} | "
            f"{row.forward * 1e3:,.1f} | {step} | {row.peak_mb:,.0f} | {row.held_mb:,.0f} |"
        )
    return "\n".join(lines)


def main(
    side: Annotated[list[int] | None, typer.Option(help="Sides of grids; all by default.")] = None,
    window: Annotated[list[int] | None, typer.Option(help="Windows; all by default.")] = None,
    way: Annotated[str | None, typer.Option(hidden=True)] = None,
    worker: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, and write the table into RESULTS.md."""
    sides, windows = side or list(SIDES), window or list(WINDOWS)
    if worker is not None and way is not None:
        worker.write_text(json.dumps(asdict(measure(sides[0], windows[0], way))))
        return
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "row.json"
        for length, size, name in product(sides, windows, ways()):
            command = ["--side", length, "--window", size, "--way", name, "--worker", kept]
            subprocess.run(
                [sys.executable, "-m", "benchmarks.neighborhood", *map(str, command)], check=True
            )
            _keep(json.loads(kept.read_text()))
    write_section("neighborhood", table([Row(**row) for row in json.loads(_DATA.read_text())]))


def _keep(row: dict[str, Any]) -> None:
    """Put a row in the place of its earlier one."""

    def place(one: dict[str, Any]) -> tuple[int, int, int]:
        return one["side"], one["window"], list(WAYS).index(one["way"])

    earlier = json.loads(_DATA.read_text()) if _DATA.exists() else []
    rows = sorted([*(one for one in earlier if place(one) != place(row)), row], key=place)
    temporary = _DATA.with_suffix(".partial")
    temporary.write_text(json.dumps(rows, indent=1) + "\n")
    temporary.replace(_DATA)


if __name__ == "__main__":
    typer.run(main)
