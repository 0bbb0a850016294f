"""Every picture of attnscope, drawn alike for the screen (plotly, HTML) and for paper (matplotlib).

A function such as `attention_map` returns what is to be drawn as plain data; its `plotly()` and
`matplotlib()` draw it and return the figure, which they never show.
"""

from attnscope.figures.errors import FigureError, MissingLibraryError
from attnscope.figures.grids import HeadGrid, head_grid
from attnscope.figures.maps import AttentionMap, attention_map
from attnscope.figures.palette import (
    ANCHOR,
    DIVERGING,
    GLOBAL,
    LOCAL,
    PREPLAN,
    SEQUENTIAL,
    ColorStops,
    Mark,
)
from attnscope.figures.reduction import Reduction, Zoom, maximum, mean
from attnscope.figures.report import save_figures, write_report
from attnscope.figures.rhythms import RhythmPlot, rhythm_plot
from attnscope.figures.ribbons import TokenRibbon, token_ribbon
from attnscope.figures.scale import Scale
from attnscope.figures.scatters import HeadScatter, head_scatter
from attnscope.figures.trace_pictures import HeadName, TracePictures

__all__ = [
    "ANCHOR",
    "DIVERGING",
    "GLOBAL",
    "LOCAL",
    "PREPLAN",
    "SEQUENTIAL",
    "AttentionMap",
    "ColorStops",
    "FigureError",
    "HeadGrid",
    "HeadName",
    "HeadScatter",
    "Mark",
    "MissingLibraryError",
    "Reduction",
    "RhythmPlot",
    "Scale",
    "TokenRibbon",
    "TracePictures",
    "Zoom",
    "attention_map",
    "head_grid",
    "head_scatter",
    "maximum",
    "mean",
    "rhythm_plot",
    "save_figures",
    "token_ribbon",
    "write_report",
]
