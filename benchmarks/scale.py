"""What a corpus costs on a thousand GPUs: bytes, requests and hours, by arithmetic.

`python -m benchmarks.scale` writes the tables of the page of `traces/`. Everything that is assumed
stands in `PLAN`; sizes of readings and of index rows are measured on what the store writes.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from attnscope.traces import StoredReading, TraceStore
from attnscope.traces.store_readings import reading_table
from benchmarks.results import write_section
from benchmarks.store import fill

__all__ = ["PLAN", "Plan", "Shape", "factor_bytes"]

_PAGE = Path(__file__).parents[1] / "traces" / "README.md"
_LISTED = 1_000
_SAMPLE = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The attention of a model.

    Attributes:
        layers: Layers.
        heads: Query heads of a layer.
        kv_heads: Key and value heads of a layer.
        dim: Width of a head.
    """

    layers: int
    heads: int
    kv_heads: int
    dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is assumed of a corpus and a cluster.

    Attributes:
        shape: The model's attention: by default that of a 7B model with grouped heads.
        sequences: Sequences of the corpus.
        tokens: Tokens of each.
        gpus: GPUs, one actor each.
        rate: Tokens per second of one GPU, forward pass and measuring.
        batch: Items of a commit.
        compact_seconds: Time between two compactions.
    """

    shape: Shape = Shape(layers=28, heads=28, kv_heads=4, dim=128)
    sequences: int = 1_000_000
    tokens: int = 4_096
    gpus: int = 1_000
    rate: int = 10_000
    batch: int = 64
    compact_seconds: int = 60


PLAN = Plan()


def factor_bytes(shape: Shape, item: int, *, gradient: bool = False) -> int:
    """Return the bytes per token and layer of a trace of causal softmax attention.

    Queries, keys, values and, where asked for, dL/dz in the type of the weights; the log normalizer
    of each row in float32.

    Args:
        shape: The model's attention.
        item: Bytes of a number of the weights' type.
        gradient: Whether dL/dz is kept.

    Example:
        >>> factor_bytes(Shape(layers=1, heads=2, kv_heads=1, dim=8), 2)
        72
    """
    vectors = shape.heads * (2 if gradient else 1) + 2 * shape.kv_heads
    return vectors * shape.dim * item + shape.heads * 4


def reading_bytes() -> float:
    """Return the bytes of one value of a reading in the store, measured."""
    values = torch.rand(1, 8, _SAMPLE, generator=torch.Generator().manual_seed(0))
    reading = StoredReading(name="waad", values=values, axes=("layer", "head", "query"))
    with tempfile.TemporaryDirectory() as folder:
        store = TraceStore(folder)
        store.measured.commit(reading_table({"0" * 32: [reading]}))
        return sum(store.files.sizes("readings").values()) / values.numel()


def row_bytes() -> float:
    """Return the bytes of one row of a compacted index, measured."""
    rows = 10_000
    with tempfile.TemporaryDirectory() as folder:
        store = TraceStore(folder)
        store.record([])
        fill(store, rows, rows)
        return sum(store.files.sizes("index").values()) / rows


def kept_rows(plan: Plan, value: float) -> list[str]:
    """Return the lines on what is kept of every token, from all to least.

    Args:
        plan: What is assumed.
        value: Bytes of one value of a reading.
    """
    shape = plan.shape
    heads = shape.layers * shape.heads
    factors = shape.layers * factor_bytes(shape, 2)
    kept = {
        "dense causal maps, 2 bytes (what is not kept)": heads * plan.tokens * 2 / 2,
        "traces, float32": shape.layers * factor_bytes(shape, 4),
        "traces, half precision, with gradient": shape.layers
        * factor_bytes(shape, 2, gradient=True),
        "traces, half precision": factors,
        "traces of 4 layers (`--layers`)": factors * 4 / shape.layers,
        "WAAD and FAI of every head and token": 2 * heads * value,
        "WAAD and FAI of 4 layers": 2 * 4 * shape.heads * value,
        "head span of every head": heads * value / plan.tokens,
    }
    per_second = plan.gpus * plan.rate
    return [
        f"| {name} | {size_text(per_token)} | {size_text(per_token * plan.tokens)} | "
        f"{size_text(per_token * plan.tokens * plan.sequences)} | "
        f"{size_text(per_token * per_second)}/s |"
        for name, per_token in kept.items()
    ]


def request_rows(plan: Plan, row: float) -> list[str]:
    """Return the lines on time, commits and requests.

    Args:
        plan: What is assumed.
        row: Bytes of a row of the index.
    """
    per_second = plan.gpus * plan.rate / plan.tokens
    commits = per_second / plan.batch
    fragments = commits * plan.compact_seconds
    total = math.ceil(plan.sequences / plan.batch)
    facts: dict[str, str] = {
        "time": f"{plan.sequences / per_second / 60:,.0f} minutes",
        "sequences per second, all GPUs": f"{per_second:,.0f}",
        "a batch takes, and a killed actor loses at most": (
            f"{plan.batch * plan.tokens / plan.rate:.0f} s"
        ),
        "commits (index files written) per second": f"{commits:,.1f}",
        "PUTs per second, readings only: readings and index": f"{2 * commits:,.0f}",
        "PUTs per second with traces, over 256 prefixes": f"{per_second + commits:,.0f}",
        "PUTs in all, readings only": f"{2 * total:,}",
        "PUTs in all, with traces": f"{plan.sequences + total:,}",
        f"index files between two compactions ({plan.compact_seconds} s)": f"{fragments:,.0f}",
        "LIST requests to see those": f"{2 * math.ceil(fragments / _LISTED):,}",
        "the same without compaction, at the end": f"{2 * math.ceil(total / _LISTED):,}",
        "index at the end": size_text(row * plan.sequences),
    }
    return [f"| {name} | {value} |" for name, value in facts.items()]


def size_text(size: float) -> str:
    """Return bytes as people say them.

    Example:
        >>> size_text(1500), size_text(2.5e12)
        ('1.5 kB', '2.5 TB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000 or unit == "PB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"


def main() -> None:
    """Compute, and write the tables into the page of traces."""
    plan, shape = PLAN, PLAN.shape
    value, row = reading_bytes(), row_bytes()
    head = (
        f"{plan.sequences:,} sequences of {plan.tokens:,} tokens; {shape.layers} layers, "
        f"{shape.heads} heads, {shape.kv_heads} key heads of width {shape.dim}; {plan.gpus:,} GPUs "
        f"at an assumed {plan.rate:,} tokens per second each; {plan.batch} items of a commit. "
        f"Measured: {value:.1f} bytes per value of a reading, {row:.0f} per row "
        "of the index.\n"
    )
    kept = ["| kept | per token | per sequence | corpus | 1,000 GPUs write |"]
    lines = [head, *kept, "| --- | --: | --: | --: | --: |", *kept_rows(plan, value)]
    lines += ["", "| | |", "| --- | --: |", *request_rows(plan, row)]
    write_section("scale", "\n".join(lines), _PAGE)


if __name__ == "__main__":
    main()
