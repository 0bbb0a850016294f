"""Statistics by tiles: blocks of PyTorch against the dense map, and what proves the kernels here.

Without a GPU the kernels are run by Triton's interpreter, and compiled for a GPU, to its machine
code. Their speed, and what only a GPU's own arithmetic shows, is left to `benchmarks.cuda`.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import AlibiBias, Mask, OperatorError
from attnscope.attention.scores import Scores
from attnscope.attention.tile_statistics import (
    column_sums,
    mean_position,
    row_moments,
    serves,
    tile_band,
)
from tests.attention.oracle import Case, band_of
from tests.attention.strategies import cases, normal

ROOT = Path(__file__).parents[2]
NEEDS_TRITON = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton comes with PyTorch's builds for GPUs only"
)
SETTINGS = settings(max_examples=40, deadline=None, report_multiple_bugs=False)


def flat_scores(case: Case) -> Scores:
    query, key = (part.reshape(-1, *part.shape[-3:]) for part in (case.query, case.key))
    scale = case.options.get("scale") or query.shape[-1] ** -0.5
    return Scores(query=query, key=key, scale=scale, mask=case.mask)


def plain_scores(**rules: Any) -> Scores:
    factors = normal(1, 1, 2, 5, 4, dtype=torch.float32), normal(2, 1, 1, 5, 4, dtype=torch.float32)
    options = {"scale": 0.5, "mask": Mask(after=0)} | rules
    return Scores(query=factors[0], key=factors[1], **options)


@SETTINGS
@given(cases(plain=True, sinks=True), st.integers(-3, 9), st.integers(0, 30))
def test_blocks_give_the_sums_of_the_dense_map(case: Case, near: int, width: int) -> None:
    if not case.mask.is_by_distance:
        return
    scores, (batch, heads, queries, keys) = flat_scores(case), flat_scores(case).shape
    total = case.log_normalizer().reshape(batch, heads, queries)
    whole = case.pattern().reshape(batch, heads, queries, keys)
    apart = torch.arange(queries)[:, None] + case.mask.offset - torch.arange(keys)
    pattern = whole * ((apart >= near) & (apart <= near + width))
    moments = row_moments(scores, total, (near, near + width))
    torch.testing.assert_close(moments.mass, pattern.sum(-1))
    torch.testing.assert_close(moments.distance, (pattern * apart).sum(-1))
    torch.testing.assert_close(moments.entropy, -torch.special.xlogy(pattern, pattern).sum(-1))
    weights = normal(7, batch, heads, queries)
    expected = (pattern * weights.unsqueeze(-1)).sum(-2)
    torch.testing.assert_close(column_sums(scores, total, weights, (near, near + width)), expected)
    torch.testing.assert_close(mean_position(scores, total), whole @ torch.arange(keys).double())
    band = tile_band(scores, total, width + 1)
    torch.testing.assert_close(band, band_of(whole, width + 1, case.mask.offset))


def test_windowed_distance_and_horizon_are_such_sums() -> None:
    # Rows (1), (1/2, 1/2) and (0.2, 0.3, 0.5): WAAD of window 2 is 0, 0.5 and 0.2 * 2 + 0.3.
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    scores = Scores(
        query=torch.eye(3, dtype=torch.float64)[None, None],
        key=rows.clamp_min(1e-9).log().T[None, None],
        scale=1.0,
        mask=Mask(after=0),
    )
    total = torch.zeros(1, 1, 3, dtype=torch.float64)
    near = row_moments(scores, total, (0, 1))
    waad = 2 - (2 * near.mass - near.distance)
    torch.testing.assert_close(waad[0, 0], torch.tensor([0.0, 0.5, 0.7], dtype=torch.float64))
    horizon = column_sums(scores, total, torch.ones_like(total), (1, 2))
    torch.testing.assert_close(horizon[0, 0], torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "rules",
    [
        {"bias": AlibiBias(torch.ones(2), 0)},
        {"softcap": 3.0},
        {"mask": Mask(after=0, chunk=2)},
        {"mask": Mask(after=0, key_valid=torch.tensor([False, True, True, True, True]))},
    ],
)
def test_what_is_more_than_products_and_distances_is_refused(
    monkeypatch: pytest.MonkeyPatch, rules: dict[str, Any]
) -> None:
    monkeypatch.setattr("attnscope.attention.tile_statistics.has_kernels", lambda device: True)
    scores, total = plain_scores(**rules), torch.zeros(1, 2, 5)
    assert not serves(scores)
    with pytest.raises(OperatorError, match="products alone, under a mask of distances"):
        row_moments(scores, total)
    with pytest.raises(OperatorError, match="products alone, under a mask of distances"):
        column_sums(scores, total, total)


def test_kernels_serve_what_they_can_take_and_follow_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, total = plain_scores(), torch.zeros(1, 2, 5)
    assert not serves(scores, total)  # on a processor
    monkeypatch.setattr("attnscope.attention.tile_statistics.has_kernels", lambda device: True)
    assert serves(scores, total)
    assert serves(plain_scores(mask=Mask(after=0, before=3)))
    assert serves(plain_scores(mask=Mask()))
    assert not serves(scores, total.clone().requires_grad_())
    with torch.no_grad():
        assert serves(scores, total.clone().requires_grad_())
    wide = torch.zeros(1, 1, 5, 257)
    assert not serves(Scores(query=wide, key=wide, scale=1.0, mask=Mask()))
    double = wide[..., :8].double()
    assert not serves(Scores(query=double, key=double, scale=1.0, mask=Mask()))


@NEEDS_TRITON
def test_kernels_agree_with_the_dense_map_under_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, "tests/attention/interpreted_kernels.py"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@NEEDS_TRITON
@pytest.mark.parametrize("kernel", ["_row_moments", "_column_sums", "_band"])
def test_kernels_compile_for_a_gpu(
    kernel: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from triton import compile as to_machine_code
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from attnscope.attention import triton_statistics

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    blocks = triton_statistics._block_sizes(128, by_row=kernel != "_column_sums")
    fixed = {"block_queries": blocks[0], "block_keys": blocks[1], "dim": 64}
    types = {
        **dict.fromkeys(("query", "key"), "*bf16"),
        **dict.fromkeys(("normalizer", "moments", "weights", "sums", "band"), "*fp32"),
        **dict.fromkeys(("query_strides", "key_strides", "rules"), ("i32",) * 3),
        **dict.fromkeys(fixed, "constexpr"),
        "sizes": ("i32",) * 5,
        "scale": "fp32",
        "reach": "i32",
    }
    found = getattr(triton_statistics, kernel)
    signature = {parameter.name: types[parameter.name] for parameter in found.params}
    compiled = to_machine_code(
        ASTSource(fn=found, signature=signature, constexprs=fixed),
        target=GPUTarget("cuda", 80, 32),
        options={"num_warps": 8, "enable_fp_fusion": True},
    )
    assert "mma.sync" in compiled.asm["ptx"]  # the matrix units do the products
    assert compiled.metadata.shared <= 99 * 1024
    assert len(compiled.asm["cubin"]) > 0
