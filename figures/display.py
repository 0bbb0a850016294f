"""How a figure shows itself in a notebook: to be pointed at where it can, as a picture elsewhere.

A front end takes the richest form that it knows. So plotly's form stands beside a picture, which is
what is seen where no script runs.
"""

import json
from base64 import b64encode
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attnscope.figures.errors import MissingLibraryError

if TYPE_CHECKING:
    import matplotlib.figure
    import plotly.graph_objects

__all__ = ["Printed", "Screened", "printed_bundle", "screened_bundle"]

_DPI = 110


@runtime_checkable
class Printed(Protocol):
    """A figure that can be drawn for paper."""

    @property
    def title(self) -> str:
        """Return what is shown."""
        ...

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the figure for paper."""
        ...


@runtime_checkable
class Screened(Printed, Protocol):
    """A figure that can be drawn for a screen as well."""

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the figure for a screen."""
        ...


def screened_bundle(figure: Screened) -> dict[str, Any]:
    """Return a figure by mime type: plotly's form, a picture, a line of text.

    What a library that is not installed would draw is left out.
    """
    bundle = printed_bundle(figure)
    with suppress(MissingLibraryError):
        bundle["application/vnd.plotly.v1+json"] = json.loads(figure.plotly().to_json() or "{}")
    return bundle


def printed_bundle(figure: Printed) -> dict[str, Any]:
    """Return a figure by mime type: a picture and a line of text."""
    bundle: dict[str, Any] = {"text/plain": f"{type(figure).__name__}: {figure.title}"}
    with suppress(MissingLibraryError):
        bundle["image/png"] = _picture(figure.matplotlib())
    return bundle


def _picture(figure: "matplotlib.figure.Figure") -> str:
    stream = BytesIO()
    # Without the library's name the same figure is the same bytes under another version of it.
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return b64encode(stream.getvalue()).decode()
