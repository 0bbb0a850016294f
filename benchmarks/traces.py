"""Traces of factors against dense maps: bytes, opening, and a tile out of a long map.

`python -m benchmarks.traces` writes the table.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from attnscope.attention import SoftmaxAttention
from attnscope.traces import Observation, Provenance, Site, TokenSequence, Trace, open_trace
from benchmarks.results import write_section

_LENGTHS = (4096, 32768)
_LAYERS, _HEADS, _KV_HEADS, _DIM, _TILE = 2, 8, 2, 64, 512


def trace(tokens: int) -> Trace:
    """Return a trace of random factors in half precision."""
    generator = torch.Generator().manual_seed(0)

    def factor(heads: int) -> torch.Tensor:
        return torch.randn(heads, tokens, _DIM, generator=generator).to(torch.bfloat16)

    text = TokenSequence(name="text", tokens=tuple(str(i) for i in range(tokens)))
    observations = [
        Observation(
            site=Site(
                stack="model.layers.self_attn", layer=layer, path=f"model.layers.{layer}.self_attn"
            ),
            attention=SoftmaxAttention(factor(_HEADS), factor(_KV_HEADS)),
            queries=text,
            keys=text,
            value=factor(_KV_HEADS),
        )
        for layer in range(_LAYERS)
    ]
    return Trace(
        observations=observations,
        sequences={"text": text},
        main_sequence="text",
        log_probabilities=None,
        entropies=None,
        provenance=Provenance(model="random factors"),
    )


def rows(tokens: int, folder: Path) -> list[str]:
    """Return the lines of the table for one length."""
    path = folder / f"{tokens}.safetensors"
    whole = trace(tokens)
    for observation in whole.observations:
        observation.attention.log_normalizer()  # what a capture brings along
    with torch.no_grad():
        _, saving = _seconds(lambda: whole.save(path))
    size, dense = path.stat().st_size, _LAYERS * _HEADS * tokens * tokens * 2
    opened, opening = _seconds(lambda: open_trace(path))
    start = tokens // 2
    window = slice(start, start + _TILE)
    times = []
    for head in range(_HEADS):  # each head for the first time: read, checked, computed
        times.append(
            _seconds(lambda head=head: opened.attention.heads(0, [head]).tile(window, window))[1]
        )
    again = min(
        _seconds(lambda: opened.attention.heads(0, [3]).tile(window, window))[1] for _ in range(5)
    )
    facts = {
        "file": f"{size / 1e6:,.0f} MB",
        "dense half-precision maps": f"{dense / 1e6:,.0f} MB ({dense / size:,.0f} times)",
        "save and sync": f"{saving:.2f} s",
        "open": f"{opening * 1e3:.0f} ms",
        "512 x 512 tile of a head, first": f"{sorted(times)[_HEADS // 2] * 1e3:.0f} ms (median)",
        "the same again": f"{again * 1e3:.0f} ms",
    }
    return [f"| {tokens:,} | {name} | {value} |" for name, value in facts.items()]


def _seconds(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def main() -> None:
    """Measure, and write the table into RESULTS.md."""
    head = f"{_LAYERS} layers, {_HEADS} heads, {_KV_HEADS} key heads of width {_DIM}, bfloat16.\n"
    lines = [head, "| tokens | | |", "| --: | --- | --: |"]
    with tempfile.TemporaryDirectory() as folder:
        for tokens in _LENGTHS:
            lines += rows(tokens, Path(folder))
    write_section("traces", "\n".join(lines))


if __name__ == "__main__":
    main()
