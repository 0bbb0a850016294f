"""Streaming statistics beside the fused kernels of a GPU, with our own kernels and without.

`python -m benchmarks.cuda` measures the model of `benchmarks.capture` in bfloat16: the plain
forward pass, the rhythm of every head, and the same with what keys receive and the entropy of rows,
each both by the kernels of `attention/triton_statistics.py` and by PyTorch's fused calls. The
readings of both are compared before they are timed, and every run has a plain one beside it.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Annotated
from unittest.mock import patch

import torch
import typer
from torch import Tensor

from attnscope.attention.tile_statistics import has_kernels
from attnscope.probes import Measuring, Subject, capture
from benchmarks.capture import COLUMNS, RHYTHM, Row, model
from benchmarks.results import write_section

LENGTHS = (8192, 131072)
_PLAIN = "plain forward"
_GROUPS = {"rhythm": RHYTHM, "rhythm + columns": COLUMNS}

Readings = Mapping[str, Tensor]
Way = Callable[[], Readings | None]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a way took.

    Attributes:
        seconds: Wall time until the GPU had finished.
        peak: Bytes that PyTorch held on the GPU at most.
    """

    seconds: float
    peak: int


def ways(length: int) -> dict[str, Way]:
    """Return what is compared, each as a call that returns its readings, or None for none."""
    network = model(length).to("cuda", torch.bfloat16)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 1000, (1, length), generator=generator).to("cuda")
    subject = Subject(network)

    def plain() -> None:
        with torch.no_grad():
            network(input_ids=tokens, use_cache=False, logits_to_keep=1)

    def streamed(metrics: tuple[str, ...], *, kernels: bool) -> Readings:
        name = "attnscope.attention.tile_statistics.has_kernels"
        with nullcontext() if kernels else patch(name, return_value=False):
            readings = capture(subject, {"input_ids": tokens}, into=Measuring(*metrics))
        return {name: reading.values for name, reading in readings.items()}

    found: dict[str, Way] = {_PLAIN: plain}
    for group, metrics in _GROUPS.items():
        found[f"{group}, our kernels"] = lambda metrics=metrics: streamed(metrics, kernels=True)
        found[f"{group}, fused calls"] = lambda metrics=metrics: streamed(metrics, kernels=False)
    return found


def observed(call: Way) -> Cost:
    """Return a call's time and peak memory on the GPU."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return Cost(time.perf_counter() - start, torch.cuda.max_memory_allocated())


def measure_length(length: int, repeats: int) -> list[Row]:
    """Return the rows of one length: medians of runs that alternate with the plain one."""
    found = ways(length)
    readings = {way: call() for way, call in found.items()}  # which also compiles the kernels
    for group in _GROUPS:
        _check_agreement(readings[f"{group}, our kernels"], readings[f"{group}, fused calls"])
    readings.clear()
    runs: dict[str, list[Cost]] = {way: [] for way in found}
    for _ in range(repeats):
        for way, call in found.items():
            runs[way].append(observed(call))
    plain = runs[_PLAIN]
    return [_row(length, way, runs[way], plain) for way in found]


def _row(length: int, way: str, runs: list[Cost], plain: list[Cost]) -> Row:
    seconds, beside = (median(run.seconds for run in some) for some in (runs, plain))
    peak, baseline = (max(run.peak for run in some) for some in (runs, plain))
    return Row(length, way, seconds, seconds / beside, peak / 2**20, peak / baseline)


def _check_agreement(ours: Readings | None, theirs: Readings | None) -> None:
    """Compare readings, so that no way wins by computing something else."""
    if ours is None or theirs is None:
        raise ValueError("a way that streams statistics returned no readings")
    for name, values in theirs.items():
        torch.testing.assert_close(
            ours[name],
            values,
            atol=2e-3,
            rtol=5e-3,
            equal_nan=True,
            msg=lambda text, name=name: f"{name} differs between the kernels: {text}",
        )


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "8 layers, width 512, 8 heads, 2 key heads, bfloat16.",
        "",
        "| tokens | | milliseconds | times plain | peak MB on the GPU | times plain |",
        "| --: | --- | --: | --: | --: | --: |",
    ]
    for row in rows:
        cost = f"{row.seconds * 1000:,.1f} | {row.ratio:.2f}"
        memory = f"{row.peak_mb:,.0f} | {row.peak_ratio:.2f}"
        lines.append(f"| {row.length:,} | {row.way} | {cost} | {memory} |")
    return "\n".join(lines)


def main(
    length: Annotated[
        list[int] | None, typer.Option(help="Tokens; all lengths by default.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each way.")] = 5,
) -> None:
    """Measure, and write the table into RESULTS.md."""
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.cuda needs a GPU; PyTorch sees none on this machine")
    if not has_kernels(torch.device("cuda")):
        raise SystemExit(
            "benchmarks.cuda compares our own kernels, which need Triton and a GPU of compute "
            f"capability 8 or more; this one has {torch.cuda.get_device_capability()}"
        )
    rows = [row for tokens in length or LENGTHS for row in measure_length(tokens, repeats)]
    write_section("cuda", table(rows))


if __name__ == "__main__":
    typer.run(main)
