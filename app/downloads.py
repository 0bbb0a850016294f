"""`offer`: every figure and table of a page as files, made when they are asked for."""

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, Protocol, runtime_checkable

import pandas
import streamlit as st

__all__ = ["Picture", "csv_of", "html_of", "image_of", "offer"]

_UNSAFE = re.compile(r"[^\w.-]+")
_DOTS_PER_INCH = 200


@runtime_checkable
class Picture(Protocol):
    """A figure of `attnscope.figures`: for paper, and for a screen by `plotly()` or `html()`."""

    def matplotlib(self) -> Any:
        """Return the figure for paper."""
        ...


def offer(
    name: str,
    *,
    picture: Picture | None = None,
    table: Callable[[], pandas.DataFrame] | None = None,
) -> None:
    """Show a menu of downloads: PNG, SVG and HTML of a picture, CSV of a table.

    Args:
        name: What the files are called; unlike on one page.
        picture: The picture.
        table: Returns the numbers, one row each.
    """
    stem = _UNSAFE.sub("-", name).strip("-")
    kinds: list[tuple[str, str, Callable[[], bytes]]] = []
    if picture is not None:
        kinds += [
            ("PNG", "image/png", lambda: image_of(picture, "png")),
            ("SVG", "image/svg+xml", lambda: image_of(picture, "svg")),
            ("HTML", "text/html", lambda: html_of(picture, name)),
        ]
    if table is not None:
        kinds.append(("CSV", "text/csv", lambda: csv_of(table())))
    with st.popover("Download", icon=":material/download:", key=f"download {name}"):
        for kind, mime, content in kinds:
            st.download_button(
                kind,
                content,
                file_name=f"{stem}.{kind.lower()}",
                mime=mime,
                key=f"download {name} {kind}",
                on_click="ignore",
                width="stretch",
            )


def image_of(picture: Picture, kind: str) -> bytes:
    """Return a picture as it is printed, as PNG or SVG."""
    stream = BytesIO()
    picture.matplotlib().savefig(stream, format=kind, dpi=_DOTS_PER_INCH)
    return stream.getvalue()


def html_of(picture: Any, title: str) -> bytes:
    """Return a picture as a page that loads nothing and can be opened anywhere."""
    import html

    if hasattr(picture, "plotly"):
        return picture.plotly().to_html(include_plotlyjs=True, full_html=True).encode("utf-8")
    heading = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title>'
        f"<style>:root {{ color-scheme: light dark }}</style>{picture.html()}</html>"
    ).encode()


def csv_of(table: pandas.DataFrame) -> bytes:
    """Return a table as comma-separated text, no number rounded."""
    return table.to_csv(index=False).encode("utf-8")
