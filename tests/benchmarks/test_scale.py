"""The arithmetic of the page agrees with what a trace and a store take."""

import pytest
import torch

from attnscope.attention import SoftmaxAttention
from attnscope.traces import Observation, Site, TokenSequence, Trace
from benchmarks.scale import PLAN, Shape, factor_bytes, kept_rows, reading_bytes, request_rows


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bytes_of_factors_are_those_of_a_trace_file(tmp_path, dtype, gradient):
    shape, tokens = Shape(layers=3, heads=4, kv_heads=2, dim=8), 50
    text = TokenSequence(name="text", tokens=tuple(map(str, range(tokens))))

    def factor(heads):
        return torch.randn(heads, tokens, shape.dim).to(dtype)

    observations = [
        Observation(
            site=Site(stack="layers", layer=layer, path=f"layers.{layer}"),
            attention=SoftmaxAttention(factor(shape.heads), factor(shape.kv_heads)),
            queries=text,
            keys=text,
            value=factor(shape.kv_heads),
            gradient=factor(shape.heads) if gradient else None,
        )
        for layer in range(shape.layers)
    ]
    path = tmp_path / "trace.safetensors"
    Trace(observations=observations, sequences={"text": text}, main_sequence="text").save(path)
    expected = shape.layers * tokens * factor_bytes(shape, dtype.itemsize, gradient=gradient)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert path.stat().st_size - header == expected


def test_a_value_of_a_reading_takes_about_four_bytes():
    assert 2 < reading_bytes() < 5


def test_the_tables_can_be_checked_by_hand():
    kept = {line.split("|")[1].strip(): line.split("|")[2:5] for line in kept_rows(PLAN, 4.0)}
    # (28 + 2 * 4) heads of width 128, 2 bytes each, and 28 normalizers of 4 bytes; 28 layers
    per_token = 28 * (36 * 128 * 2 + 28 * 4)
    assert per_token == 261_184
    cells = [cell.strip() for cell in kept["traces, half precision"]]
    assert cells == ["261 kB", "1.07 GB", "1.07 PB"]
    assert [cell.strip() for cell in kept["WAAD and FAI of every head and token"]] == [
        "6.27 kB",
        "25.7 MB",
        "25.7 TB",
    ]
    rows = dict(line.strip("| ").split(" | ") for line in request_rows(PLAN, 50.0))
    assert rows["sequences per second, all GPUs"] == "2,441"  # 1,000 * 10,000 / 4,096
    assert rows["commits (index files written) per second"] == "38.1"  # of 64 items
    assert rows["time"] == "7 minutes"
