"""The workbench: the pages put together, with a word on what fails. `entry/script.py` runs it.

An expected error (no trace, a damaged one, a metric that does not apply) is a message in the page.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.resources import files

import streamlit as st

from attnscope.app.address import register_pages
from attnscope.app.failures import is_expected, one_line
from attnscope.app.markdown_text import as_text

__all__ = ["PAGES", "main", "showing"]

PAGES = (
    ("overview", "Overview", ":material/inventory_2:"),
    ("rhythm", "Rhythm", ":material/ssid_chart:"),
    ("heads", "Heads", ":material/grid_on:"),
    ("attention_map", "Map", ":material/blur_on:"),
    ("image", "Image", ":material/image_search:"),
    ("compare", "Compare", ":material/compare_arrows:"),
    ("interventions", "Interventions", ":material/science:"),
    ("credit", "Credit", ":material/paid:"),
    ("training", "Training", ":material/trending_up:"),
    ("mechanisms", "Mechanisms", ":material/account_tree:"),
)
"""Module of each page, and its name in the address; title; icon. The first opens the app."""


def main() -> None:
    """Show the page that the address names."""
    icon = str(files("attnscope.app").joinpath("icon.svg"))
    st.set_page_config(page_title="attnscope", page_icon=icon, layout="wide")
    pages = {
        name: st.Page(
            showing(name), title=title, icon=icon, url_path=name, default=name == PAGES[0][0]
        )
        for name, title, icon in PAGES
    }
    register_pages(pages)
    st.navigation(list(pages.values())).run()


def showing(name: str) -> Callable[[], None]:
    """Return what shows a page; an error that tells its reader what is wrong becomes a message.

    The module of the page is imported when it is shown, so that the menu stands at once.
    """

    def show() -> None:
        try:
            import_module(f"attnscope.app.pages.{name}").show()
        except Exception as error:
            if not is_expected(error):
                raise
            st.error(as_text(one_line(error)), icon=":material/error:")

    return show
