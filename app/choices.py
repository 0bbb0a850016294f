"""What most pages let one choose, in the side bar: a trace, its stack, a layer and a head.

The choices stand in the address, so that they stay from page to page and a link brings them back.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from attnscope.app.address import HEAD, LAYER, STACK, TRACE, keep, kept, recalled
from attnscope.app.library import Holding, LibraryError, shared_trace, the_library
from attnscope.app.markdown_text import as_text
from attnscope.figures import HeadName
from attnscope.traces import Trace

__all__ = [
    "Chosen",
    "attentive_trace",
    "choose_head",
    "choose_metric",
    "choose_name",
    "choose_trace",
    "heads_of",
    "layers_of",
    "menu",
    "open_head",
    "titles_of",
]

Option = TypeVar("Option", str, int)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """A trace of the store and one of its stacks.

    Attributes:
        name: The trace's name in the store.
        path: Its file.
        trace: The opened trace, which all sessions share.
        stack: The stack to show.
    """

    name: str
    path: Path
    trace: Trace
    stack: str


def choose_trace() -> Chosen:
    """Return the trace and the stack that are chosen in the side bar; without traces, say so.

    Raises:
        TraceError: The chosen file is damaged.
    """
    with st.sidebar:
        name = choose_name("Trace", TRACE)
        path = the_library().path_of(name)
    trace = attentive_trace(path)
    with st.sidebar:
        stacks = trace.stacks
        stack = trace.main_stack
        if len(stacks) > 1:
            stack = menu("Stack", STACK, stacks, first=stack)
    return Chosen(name=name, path=path, trace=trace, stack=stack)


def attentive_trace(path: Path) -> Trace:
    """Return an opened trace; stop the page with a message where it keeps no attention."""
    trace = shared_trace(path)
    if not trace.sites:
        kept = ", ".join(reading.title or name for name, reading in trace.readings.items())
        st.info(
            f"{as_text(path.name)} keeps no attention, which this page needs. Its readings "
            f"({as_text(kept or 'none')}) are shown on the page Overview.",
            icon=":material/block:",
        )
        st.stop()
    return trace


def choose_name(label: str, key: str, *, at: int = 0) -> str:
    """Return the name of a trace of the store; stop the page with a hint where there is none.

    Args:
        label: What the menu is called.
        key: The name by which the address keeps the choice.
        at: The place of the trace that is chosen at first.
    """
    found, _ = the_library().survey()
    titles = titles_of(found)
    names = list(titles)
    wanted = kept(key)
    if wanted is not None and wanted not in names:
        st.warning(as_text(f"The store holds no trace {wanted[:120]!r}; another one is shown."))
    if not names:
        st.info("The store holds no trace yet. Capture one on the page Overview, or upload one.")
        st.stop()
    first = names[min(at, len(names) - 1)]
    return menu(label, key, names, first=first, written=lambda name: titles[name])


def titles_of(found: Sequence[Holding]) -> dict[str, str]:
    """Return what a menu calls each trace, by name; the names themselves tell namesakes apart."""
    times = Counter(holding.title for holding in found)
    return {
        one.name: one.title if times[one.title] == 1 else f"{one.title} ({one.name})"
        for one in found
    }


def choose_head(chosen: Chosen) -> HeadName:
    """Return the layer and the head that are chosen, side by side where this is called."""
    left, right = st.columns(2)
    with left:
        layer = menu("Layer", LAYER, layers_of(chosen))
    with right:
        head = menu("Head", HEAD, heads_of(chosen, layer))
    return HeadName(layer, head)


def open_head(head: HeadName) -> None:
    """Let the menus of layer and head say another head when they are drawn next."""
    st.session_state[LAYER] = head.layer
    st.session_state[HEAD] = head.head


def choose_metric(label: str, key: str, titles: Mapping[str, str], first: str) -> str:
    """Return the name of the metric that is chosen from a menu of titles.

    The address says the name, not the title, so that it outlives a change of words.

    Args:
        label: What the menu is called.
        key: The name by which the address keeps the choice.
        titles: What the menu shows, by the metrics' names.
        first: The metric that is chosen at first.
    """
    return menu(label, key, list(titles), first=first, written=titles.__getitem__)


def menu(
    label: str,
    key: str,
    options: Sequence[Option],
    *,
    first: Option | None = None,
    written: Callable[[Any], str] = str,
) -> Option:
    """Return what is chosen from a menu; the address says it, and the next page knows it.

    Args:
        label: What the menu is called.
        key: The name by which the address keeps the choice.
        options: What can be chosen.
        first: What is chosen at first; by default the first option.
        written: Returns what the menu shows of an option.
    """
    said = {str(option): option for option in options}
    value = st.session_state.get(key)
    if value not in options:
        begin = options[0] if first is None else first
        value = said.get(recalled(key) or "", begin)
    st.session_state[key] = value  # also on a page whose menu is new
    value = st.selectbox(label, options, format_func=written, key=key)
    keep(**{key: value})
    return value


def layers_of(chosen: Chosen) -> list[int]:
    """Return the numbers of the layers of the chosen stack, ascending."""
    return sorted(site.layer for site in chosen.trace.sites if site.stack == chosen.stack)


def heads_of(chosen: Chosen, layer: int) -> list[int]:
    """Return the numbers of the heads of a layer, without reading it."""
    where = (chosen.stack, layer)
    for summary in chosen.trace.observed.summaries:
        if (summary.site.stack, summary.site.layer) == where:
            return list(range(summary.shape[0]))
    raise LibraryError(f"no layer {layer}; there are {layers_of(chosen)}")
