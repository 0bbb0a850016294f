"""The benchmark of a GPU on a machine that has none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_without_a_gpu_it_says_so_and_writes_nothing():
    page = ROOT / "benchmarks" / "RESULTS.md"
    before = page.read_bytes()
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.cuda"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "benchmarks.cuda needs a GPU" in result.stderr
    assert page.read_bytes() == before
