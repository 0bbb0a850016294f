"""`write_report` and `save_figures`: a trace as one HTML file, or as pictures for paper."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.figures.report_page import report_page
from attnscope.figures.report_readings import reading_pictures, reading_sections
from attnscope.figures.report_sections import provenance_facts, report_sections
from attnscope.figures.ribbons import TokenRibbon
from attnscope.figures.trace_pictures import TracePictures
from attnscope.traces import Trace, replacement

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["save_figures", "write_report"]


def write_report(
    trace: Trace, path: str | os.PathLike[str], *, stack: str | None = None, title: str = ""
) -> Path:
    """Write one HTML file that shows a trace, and return its path.

    It holds everything it needs, loads nothing, and follows the reader's choice of light or dark.
    It appears complete or not at all. Of a trace without attention it shows the readings.

    Args:
        trace: What was captured.
        path: Where to write.
        stack: The stack of layers to show; by default the main one.
        title: The heading; by default it names the model.

    Raises:
        TraceError: The trace holds no such stack.
        FigureError: The trace keeps neither attention nor readings.
        MissingLibraryError: plotly is not installed.
    """
    if trace.sites:
        sections = report_sections(TracePictures.of(trace, stack))
    else:
        sections = reading_sections(trace)
    heading = title or (
        f"Attention of {trace.provenance.model}" if trace.provenance.model else "Attention report"
    )
    page = report_page(heading, provenance_facts(trace), sections)
    target = Path(path)
    with replacement(target) as stream:
        stream.write(page.encode("utf-8"))
    return target


def save_figures(
    trace: Trace, folder: str | os.PathLike[str], *, stack: str | None = None, dpi: int = 200
) -> list[Path]:
    """Write the pictures of a trace as PNG files for paper, and return their paths.

    Args:
        trace: What was captured.
        folder: Where to write; it is made where it does not exist.
        stack: The stack of layers to show; by default the main one.
        dpi: Dots per inch.

    Raises:
        TraceError: The trace holds no such stack.
        MissingLibraryError: matplotlib is not installed.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    named = _pictures(TracePictures.of(trace, stack)) if trace.sites else _kept(trace)
    for name, draw in named:
        picture = draw()
        with replacement(target / f"{name}.png") as stream:
            picture.savefig(stream, format="png", dpi=dpi)
        written.append(target / f"{name}.png")
    return written


def _kept(trace: Trace) -> Iterator[tuple[str, Callable[[], "matplotlib.figure.Figure"]]]:
    for name, picture in reading_pictures(trace).items():
        kind = "ribbon" if isinstance(picture, TokenRibbon) else "grid"
        yield f"{kind}_{name}", picture.matplotlib


def _pictures(
    pictures: TracePictures,
) -> Iterator[tuple[str, Callable[[], "matplotlib.figure.Figure"]]]:
    for name, ribbon in pictures.ribbons().items():
        yield f"ribbon_{name}", ribbon.matplotlib
    rhythm, scatter = pictures.rhythm(), pictures.scatter()
    if rhythm is not None:
        yield "rhythm", rhythm.matplotlib
    for name, grid in pictures.grids().items():
        yield f"grid_{name}", grid.matplotlib
    if scatter is not None:
        yield "scatter", scatter.matplotlib
    for word, head, shown in pictures.maps():
        yield f"map_{word.replace(' ', '_')}_{head}", shown.matplotlib
