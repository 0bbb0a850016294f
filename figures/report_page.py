"""`report_page`: the frame of a report, one HTML file that loads nothing.

A content policy forbids every request, so that a report stays what it was when it was written.
"""

import html
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from attnscope.figures.errors import MissingLibraryError
from attnscope.figures.ribbon_screen import ribbon_style

if TYPE_CHECKING:
    import plotly.graph_objects

__all__ = ["Section", "embedded", "page_file", "report_page"]

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)

Section = tuple[str, str, str]
"""The anchor of a section, its heading as text, and its content as markup."""


def report_page(
    title: str, lead: str, sections: Sequence[Section], *, style: str = "", script: str = ""
) -> str:
    """Return a whole page.

    Args:
        title: The heading of the page, as text.
        lead: Markup between the heading and the first section.
        sections: What the page holds.
        style: More style sheets, as text.
        script: What the page does in place of drawing embedded figures, without plotly.

    Raises:
        MissingLibraryError: plotly is not installed.
    """
    links = "".join(f'<a href="#{anchor}">{html.escape(name)}</a>' for anchor, name, _ in sections)
    body = "".join(
        f'<section id="{anchor}"><h2>{html.escape(name)}</h2>{content}</section>\n'
        for anchor, name, content in sections
    )
    library = "" if script else _plotly_library()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
{page_file("report_page.css")}{ribbon_style()}{style}</style>
<script>{library}</script></head>
<body><header><h1>{html.escape(title)}</h1>{lead}<nav>{links}</nav>
<noscript><p class="note">The figures of this page need JavaScript.</p></noscript></header>
<main>{body}</main>
<footer><p>Written by attnscope. This file loads nothing from anywhere.</p></footer>
<script>
{script or page_file("report_page.js")}</script></body></html>
"""


def embedded(figure: "plotly.graph_objects.Figure") -> str:
    """Return markup that the page's script turns into the figure, without its own title."""
    framed = type(figure)(figure)
    layout = framed.to_dict()["layout"]
    margin = {"l": 56, "r": 16, "t": 60 if "legend" in layout else 40, "b": 48}
    framed.update_layout(title=None, margin=margin, legend={"x": 0, "xanchor": "left"})
    data = str(framed.to_json()).replace("<", "\\u003c").replace(">", "\\u003e")
    return (
        f'<div class="plot" style="min-height:{layout["height"]}px"></div>'
        f'<script type="application/json" class="figure">{data}</script>'
    )


def page_file(name: str) -> str:
    """Return a style sheet or a script of this folder."""
    return files("attnscope.figures").joinpath(name).read_text(encoding="utf-8")


def _plotly_library() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingLibraryError("plotly") from error
    return get_plotlyjs()
