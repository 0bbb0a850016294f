"""Zooming into one head's map of 32,768 tokens: the pass over it, and each step's answer.

`python -m benchmarks.zoom` writes the table.
"""

import tempfile
import time
from pathlib import Path

import torch

from attnscope.app.map_answers import Question
from attnscope.app.map_choice import HeadGroup, MapChoice
from attnscope.app.map_controls import Looks
from attnscope.app.map_pyramids import SharedPyramid
from attnscope.app.map_screen import screen_of
from attnscope.attention import SoftmaxAttention
from attnscope.figures import build_pyramid, maximum
from attnscope.traces import Observation, Provenance, Site, TokenSequence, Trace
from benchmarks.memory import observed
from benchmarks.results import write_section

_TOKENS, _DIM, _SINK = 32768, 64, 12345
_STACK = "model.layers.self_attn"
_CANVAS = (560, 720)
"""Rows and columns of pixels of the map on a wide screen."""

_STEPS = 5


def trace() -> Trace:
    """Return a trace of one head with random factors in half precision and one sink."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, _TOKENS, _DIM, generator=generator) for _ in range(2))
    query[..., 0] = 8.0
    key[:, _SINK, 0] = 16.0
    attention = SoftmaxAttention(query.bfloat16(), key.bfloat16())
    text = TokenSequence(name="text", tokens=tuple(map(str, range(_TOKENS))))
    site = Site(stack=_STACK, layer=0, path="model.layers.0.self_attn")
    return Trace(
        observations=[Observation(site=site, attention=attention, queries=text, keys=text)],
        sequences={"text": text},
        main_sequence="text",
        provenance=Provenance(model="random factors"),
    )


def rows(folder: Path) -> list[str]:
    """Return the lines of the table."""
    path = folder / "long.safetensors"
    trace().save(path)
    heads = HeadGroup(path=path, stack=_STACK, layer=0, heads=(0,))
    choice = MapChoice(quantity="attention", heads=heads)
    shared = SharedPyramid(choice)
    passed = observed(lambda: list(build_pyramid(shared.pyramid, shared.path, shared.identity)))
    facts = {
        "pass over the map, max and mean": f"{passed.seconds:.1f} s",
        "memory that it added at most": f"{(passed.peak - passed.before) / 1e6:,.0f} MB",
        "kept beside the trace": f"{shared.path.stat().st_size / 1e6:,.0f} MB",
        "the map itself in half precision": f"{_TOKENS**2 * 2 / 1e6:,.0f} MB",
    }
    for level in reversed(range(shared.pyramid.top + 1)):
        facts[f"screenful of {2**level} × {2**level} tokens a cell"] = _step(  # noqa: RUF001
            choice, shared, level
        )
    return [f"| {name} | {value} |" for name, value in facts.items()]


def _step(choice: MapChoice, shared: SharedPyramid, level: int) -> str:
    """Return how long the answers to some questions take, each for a part not seen before."""
    looks = Looks(reduction=maximum, logarithmic=True, contrast=1)
    times, size = [], 0
    for number in range(_STEPS):
        height, width = (pixels * 2**level for pixels in _CANVAS)
        top = max(0, min(_TOKENS - height, 14000 + number * height))
        left = max(0, min(_TOKENS - width, 1000 + number * 97))
        part = (top, min(_TOKENS, top + height), left, min(_TOKENS, left + width))
        question = Question(map="", part=part, level=level, wanted=(), serial=number)
        start = time.perf_counter()
        size = len(screen_of(choice, looks, shared, question).packet)
        times.append(time.perf_counter() - start)
    median, longest = sorted(times)[_STEPS // 2], max(times)
    return f"{median * 1e3:.0f} ms (longest {longest * 1e3:.0f} ms), {size / 1e6:.1f} MB sent"


def main() -> None:
    """Measure, and write the table into RESULTS.md."""
    head = f"{_TOKENS:,} tokens, one head of width {_DIM}, bfloat16 factors.\n"
    lines = [head, "| | |", "| --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        lines += rows(Path(folder))
    write_section("zoom", "\n".join(lines))


if __name__ == "__main__":
    main()
