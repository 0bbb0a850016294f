"""The benchmark of neighborhood attention: its ways compute the same, its rows stay in order."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from attnscope.models.neighborhood_index import Neighborhood
from benchmarks import neighborhood as benchmark


def row(side: int, way: str, forward: float) -> dict[str, Any]:
    return {
        "side": side,
        "window": 3,
        "way": way,
        "forward": forward,
        "step": None,
        "peak_mb": 1.0,
        "held_mb": 0.0,
    }


def test_masked_dense_attention_is_the_indexed_one() -> None:
    grid = Neighborhood.of((6, 6), 3)
    factors = [torch.randn(1, 2, 36, 32) for _ in range(3)]
    ours, table = benchmark.indexed(grid)
    theirs, mask = benchmark.masked_dense(grid)
    torch.testing.assert_close(ours(*factors), theirs(*factors))
    assert (table, mask) == (36 * 9 * 8, 36 * 36)


def test_a_row_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_REPEATS", 1)
    found = benchmark.measure(8, 3, "attnscope, indexed")
    assert (found.side, found.window, found.way) == (8, 3, "attnscope, indexed")
    assert found.held_mb == 64 * 9 * 8 / 2**20
    assert found.forward > 0
    assert found.step is not None
    assert found.step > 0


def test_new_rows_take_the_place_of_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "rows.json"
    monkeypatch.setattr(benchmark, "_DATA", data)
    for given in (
        row(64, "masked dense", 1.0),
        row(32, "masked dense", 2.0),
        row(32, "attnscope, indexed", 3.0),
        row(32, "masked dense", 4.0),
    ):
        benchmark._keep(given)
    rows = [benchmark.Row(**one) for one in json.loads(data.read_text())]
    assert [(one.side, one.way, one.forward) for one in rows] == [
        (32, "attnscope, indexed", 3.0),
        (32, "masked dense", 4.0),
        (64, "masked dense", 1.0),
    ]
    lines = benchmark.table(rows).splitlines()
    assert lines[-1] == "| 64 x 64 | 3 x 3 | masked dense | 1,000.0 | - | 1 | 0 |"
    assert lines[0] == "4 heads of width 32, float32, one image."
