"""Every picture of attnscope, drawn alike for the screen (plotly, HTML) and for paper (matplotlib).

A function such as `attention_map` returns what is to be drawn as plain data; its `plotly()` and
`matplotlib()` draw it and return the figure, which they never show.
"""

from attnscope.figures.costs import CostCurves, cost_curves
from attnscope.figures.errors import FigureError, MissingLibraryError
from attnscope.figures.flights import HeadFlight, head_flight
from attnscope.figures.gates import GateMap, gate_map
from attnscope.figures.grids import HeadGrid, head_grid
from attnscope.figures.head_map import (
    HeadMap,
    difference_map,
    gradient_map,
    pattern_map,
    saliency_map,
)
from attnscope.figures.map_cells import MapCells, cells_of
from attnscope.figures.map_views import (
    CellWindow,
    StrongCell,
    map_view,
    strongest_cells,
    view_scale,
)
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
    hex_color,
)
from attnscope.figures.picture_overlays import PictureOverlay, picture_overlay
from attnscope.figures.picture_report import (
    AnsweredPicture,
    PictureAnswer,
    TextTable,
    write_picture_report,
)
from attnscope.figures.pyramid_file import (
    StalePyramidError,
    build_pyramid,
    fill_pyramid,
    load_stripes,
    pyramid_path,
    trace_identity,
)
from attnscope.figures.reduction import Reduction, Zoom, maximum, mean
from attnscope.figures.report import save_figures, write_report
from attnscope.figures.report_readings import reading_pictures
from attnscope.figures.rhythms import RhythmPlot, rhythm_plot
from attnscope.figures.ribbons import TokenRibbon, token_ribbon
from attnscope.figures.scale import Scale
from attnscope.figures.scatters import HeadScatter, head_scatter
from attnscope.figures.tile_maps import TileMap, tile_footprint, tile_map
from attnscope.figures.tile_pyramid import TILE, TilePyramid
from attnscope.figures.trace_pictures import HeadName, TracePictures

__all__ = [
    "ANCHOR",
    "DIVERGING",
    "GLOBAL",
    "LOCAL",
    "PREPLAN",
    "SEQUENTIAL",
    "TILE",
    "AnsweredPicture",
    "AttentionMap",
    "CellWindow",
    "ColorStops",
    "CostCurves",
    "FigureError",
    "GateMap",
    "HeadFlight",
    "HeadGrid",
    "HeadMap",
    "HeadName",
    "HeadScatter",
    "MapCells",
    "Mark",
    "MissingLibraryError",
    "PictureAnswer",
    "PictureOverlay",
    "Reduction",
    "RhythmPlot",
    "Scale",
    "StalePyramidError",
    "StrongCell",
    "TextTable",
    "TileMap",
    "TilePyramid",
    "TokenRibbon",
    "TracePictures",
    "Zoom",
    "attention_map",
    "build_pyramid",
    "cells_of",
    "cost_curves",
    "difference_map",
    "fill_pyramid",
    "gate_map",
    "gradient_map",
    "head_flight",
    "head_grid",
    "head_scatter",
    "hex_color",
    "load_stripes",
    "map_view",
    "maximum",
    "mean",
    "pattern_map",
    "picture_overlay",
    "pyramid_path",
    "reading_pictures",
    "rhythm_plot",
    "saliency_map",
    "save_figures",
    "strongest_cells",
    "tile_footprint",
    "tile_map",
    "token_ribbon",
    "trace_identity",
    "view_scale",
    "write_picture_report",
    "write_report",
]
