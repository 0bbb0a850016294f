"""The state of a view in the page's address: a link opens the same trace, stack, layer and head.

What belongs to one page alone, a widget keeps there by itself, if it is made with
`key=<name>, bind="query-params"`. The menu of pages empties the address; what all pages share is
therefore remembered by the session, too, and said again by the next page.
"""

from typing import Any

import streamlit as st

__all__ = [
    "HEAD",
    "LAYER",
    "LONGEST",
    "METRIC",
    "OTHER",
    "STACK",
    "TOKEN",
    "TRACE",
    "go_to",
    "keep",
    "kept",
    "recalled",
    "register_pages",
]

TRACE, OTHER, STACK = "trace", "other", "stack"
LAYER, HEAD, METRIC, TOKEN = "layer", "head", "metric", "token"

_SHARED = frozenset({TRACE, OTHER, STACK, LAYER, HEAD})
LONGEST = 500
"""Characters of a text that an address is read for; a longer one has no place there."""

_MEMORY = "said on other pages"
_PAGES = "pages of the workbench"


def kept(name: str) -> str | None:
    """Return what the address says of a name: untrusted text; None where it says nothing."""
    text = st.query_params.get(name)
    return None if text is None else text[:LONGEST]


def recalled(name: str) -> str | None:
    """Return what the address says of a name, or else what it said on another page."""
    text = kept(name)
    return st.session_state.get(_MEMORY, {}).get(name) if text is None else text


def keep(**state: str | int | None) -> None:
    """Write names into the address; None takes one out. Not for names that a widget is bound to.

    The session remembers those that all pages share.
    """
    memory = st.session_state.setdefault(_MEMORY, {})
    for name, value in state.items():
        if name in _SHARED and value is not None:
            memory[name] = str(value)
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != str(value):
            st.query_params[name] = str(value)


def register_pages(pages: dict[str, Any]) -> None:
    """Remember the pages of this session by name, for `go_to`."""
    st.session_state[_PAGES] = pages


def go_to(page: str, **state: str | int) -> None:
    """Leave for another page, whose address is to say this.

    Raises:
        KeyError: There is no such page.
    """
    given = {name: str(value) for name, value in state.items()}
    st.switch_page(st.session_state[_PAGES][page], query_params=given)
