import subprocess
import sys

import pytest
import torch

from attnscope.figures import MissingLibraryError, head_grid, write_report
from attnscope.metrics import Reading
from attnscope.traces import Trace


def without(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a library and its parts look as if they were not installed."""
    for name in [
        *sys.modules,
        f"{library}.figure",
        f"{library}.graph_objects",
        f"{library}.offline",
    ]:
        if name == library or name.startswith(f"{library}."):
            monkeypatch.setitem(sys.modules, name, None)


def test_importing_figures_loads_no_drawing_library() -> None:
    code = (
        "import sys, attnscope.figures\n"
        "heavy = {'matplotlib', 'plotly', 'streamlit', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_library_says_how_to_get_it(
    head_reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = head_grid(head_reading)
    for library, draw in (("matplotlib", grid.matplotlib), ("plotly", grid.plotly)):
        without(library, monkeypatch)
        with pytest.raises(
            MissingLibraryError, match=rf"{library}.*pip install attnscope\[figures\]"
        ):
            draw()


def test_a_report_without_plotly_is_not_begun(
    trace: Trace, tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("plotly", monkeypatch)
    with pytest.raises(MissingLibraryError, match="plotly"):
        write_report(trace, f"{tmp_path}/report.html")


def test_no_window_and_no_global_figure_is_made(head_reading: Reading) -> None:
    figure = head_grid(head_reading).matplotlib()
    assert figure.canvas.manager is None
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_drawing_changes_no_number(head_reading: Reading) -> None:
    before = head_reading.values.clone()
    grid = head_grid(head_reading)
    grid.plotly()
    grid.matplotlib()
    torch.testing.assert_close(head_reading.values, before, equal_nan=True)
