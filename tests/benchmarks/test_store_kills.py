"""Writers killed with SIGKILL at any moment lose nothing that they had committed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="stores need the extra store")

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")
def test_25_killed_writers_lose_nothing():
    """In a process without threads, so that it can be forked."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.store", "--kills", "25"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    told = re.match(r"kills 25, committed (\d+), lost 0, .*, damaged files 0\n", result.stdout)
    assert told, result.stdout
    assert int(told[1]) > 0
