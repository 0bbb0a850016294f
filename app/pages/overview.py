"""Overview: what the store holds, what each trace is, and how more get into it."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pandas
import streamlit as st

from attnscope.app.address import OTHER, TRACE, go_to
from attnscope.app.downloads import offer
from attnscope.app.failures import is_expected, one_line
from attnscope.app.kept_readings import show_kept
from attnscope.app.library import Holding, Library, shared_trace, the_library
from attnscope.app.live_models import LiveRequest, capture_live, live_models
from attnscope.app.markdown_text import as_text
from attnscope.app.screen import visible
from attnscope.app.tag_controls import change_tags
from attnscope.traces import Trace

__all__ = ["holds_words", "show", "store_table"]

_TABLE = "store"
_SAYS = "said in overview"
_OPENING = 60
_LARGEST_ANSWER = 1024


def show() -> None:
    """Show the store, and the ways in."""
    st.title("Overview")
    library = the_library()
    for kind, text in st.session_state.pop(_SAYS, []):
        getattr(st, kind)(text)
    _store(library)
    capture, upload = st.tabs(["Capture", "Upload"])
    with capture:
        _capture(library)
    with upload:
        _upload(library)


def _store(library: Library) -> None:
    found, refused = library.survey()
    wanted = st.text_input(
        "Find traces",
        key="find",
        bind="query-params",
        placeholder="a token, a model, a tag, a part of the name",
        max_chars=200,
    )
    listed = [holding for holding in found if holds_words(holding, wanted)]
    table = store_table(listed)
    st.caption(f"{len(listed)} of {len(found)} traces in {as_text(str(library.folder))}")
    if not listed:
        st.info("Nothing is found." if found else "The store is empty: capture or upload a trace.")
    event = st.dataframe(
        table,
        hide_index=True,
        key=_TABLE,
        on_select="rerun",
        selection_mode="multi-row",
        alt=f"{len(listed)} traces, with their models and sizes; select rows to open or compare",
        column_config={
            "size": st.column_config.NumberColumn(format="bytes"),
            "captured": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
    )
    if listed:
        offer("store", table=lambda: table)
    rows = [row for row in event["selection"]["rows"] if row < len(listed)]
    tags = sorted({tag for holding in found for tag in holding.tags})
    _chosen(library, [listed[row] for row in rows], tags)
    if refused:
        with st.expander(f"{len(refused)} files of the store are no traces"):
            for name, reason in refused.items():
                st.text(f"{name}: {reason}")


def holds_words(holding: Holding, wanted: str) -> bool:
    """Return whether every word asked for is in a trace's names, tags, model, notes or tokens."""
    names = (holding.title, holding.name, holding.id, *holding.tags)
    places = (*names, holding.model, *holding.notes.values())
    text = "\n".join((*places, *holding.tokens)).lower()
    return all(word in text for word in wanted.lower().split())


def store_table(found: Sequence[Holding]) -> pandas.DataFrame:
    """Return a row per trace, from the headers alone."""
    return pandas.DataFrame(
        {
            "trace": [holding.title for holding in found],
            "tags": [list(holding.tags) for holding in found],
            "model": [holding.model for holding in found],
            "tokens": [holding.length for holding in found],
            "response": [holding.response for holding in found],
            "layers": [holding.layers for holding in found],
            "heads": [holding.heads for holding in found],
            "gradients": [holding.gradients for holding in found],
            "size": [holding.size for holding in found],
            "captured": [datetime.fromtimestamp(holding.modified, UTC) for holding in found],
            "notes": [", ".join(holding.notes.values()) for holding in found],
            "file": [holding.name for holding in found],
        }
    )


def _chosen(library: Library, chosen: Sequence[Holding], tags: Sequence[str]) -> None:
    """Show what can be done with the rows that are selected."""
    if not chosen:
        st.caption("Select a trace to open it, two to compare them.")
        return
    names = [holding.name for holding in chosen]
    opening, comparing, tagging, deleting, _ = st.columns([1, 1, 1, 1, 2])
    if opening.button("Open", icon=":material/open_in_new:", disabled=len(names) != 1):
        go_to("rhythm", **{TRACE: names[0]})
    if comparing.button("Compare", icon=":material/compare_arrows:", disabled=len(names) != 2):
        go_to("compare", **{TRACE: names[0], OTHER: names[1]})
    titles = ", ".join(holding.title for holding in chosen)
    with tagging.popover("Tags", icon=":material/sell:"):
        if change_tags(library, chosen, tags):
            _say("success", f"tags changed: {titles}")
            st.rerun()
    with deleting.popover("Delete", icon=":material/delete:"):
        st.write(as_text(f"{titles}: gone for good?"))
        if st.button(f"Delete {len(names)}", type="primary", key="delete"):
            _delete(library, names, titles)
    if len(names) == 1:
        _contents(shared_trace(chosen[0].path), chosen[0])


def _delete(library: Library, names: Sequence[str], titles: str) -> None:
    for name in names:
        library.delete(name)
    _say("success", f"{len(names)} deleted: {titles}")
    st.rerun()


def _contents(trace: Trace, holding: Holding) -> None:
    """Show what a trace holds, from its header."""
    st.subheader(as_text(holding.title), anchor=False)
    origin = trace.provenance
    facts = {
        "file": holding.name,
        "model": origin.model or "not named",
        "revision": origin.revision or "",
        "computed in": origin.dtype or "",
        "gradients of": origin.gradient_target or "",
        "versions": ", ".join(f"{name} {text}" for name, text in origin.versions.items()),
        **origin.notes,
    }
    known = [(name, visible(fact)) for name, fact in facts.items() if fact]
    left, right = st.columns(2)
    left.dataframe(
        pandas.DataFrame(known, columns=["", "what it is"]),
        hide_index=True,
        alt="Where the trace comes from",
    )
    right.dataframe(_segments(trace), hide_index=True, alt="Its sequences and their segments")
    if trace.sites:
        st.dataframe(_stacks(trace), hide_index=True, alt="Its stacks of layers")
    else:
        st.info("It keeps no attention, which most pages need.", icon=":material/block:")
    if trace.readings:
        show_kept(trace)


def _segments(trace: Trace) -> pandas.DataFrame:
    rows = []
    for sequence in trace.sequences.values():
        rows.append((sequence.name, f"all, by {sequence.axis}", 0, len(sequence), ""))
        for run in sequence.segments:
            words = " ".join(visible(sequence.tokens[place]) for place in run.positions[:_OPENING])
            rows.append((sequence.name, run.name, run.start, run.stop - run.start, words))
    columns = ["sequence", "segment", "from", "tokens", "opens with"]
    return pandas.DataFrame(rows, columns=columns)


def _stacks(trace: Trace) -> pandas.DataFrame:
    rows = [
        (
            summary.site.stack,
            summary.site.layer,
            *summary.shape,
            summary.kind,
            summary.causal,
            summary.has_gradient,
        )
        for summary in trace.observed.summaries
    ]
    columns = ["stack", "layer", "heads", "queries", "keys", "operator", "causal", "gradients"]
    return pandas.DataFrame(rows, columns=columns)


def _capture(library: Library) -> None:
    """Let a model read, or answer, what is typed."""
    with st.form("capture", border=False):
        model = st.selectbox("Model", live_models())
        text = st.text_area(
            "Text", placeholder="numbers 3 18 10 target 11", help="What the model is to read."
        )
        response = st.text_area(
            "Response", help="The model's own words after it, where they are known."
        )
        left, middle, right = st.columns(3)
        answers = left.number_input("Let it answer, at most tokens", 0, _LARGEST_ANSWER, 0)
        chat = middle.checkbox("A message in a chat", help="In the model's own chat template.")
        name = right.text_input("Name of the trace", max_chars=100)
        if not st.form_submit_button("Capture", type="primary", icon=":material/play_arrow:"):
            return
    request = LiveRequest(
        model=model, text=text, response=response, answers=int(answers), chat=chat, name=name
    )
    bar = st.progress(0.0, text="waiting")
    try:
        done = capture_live(request, library, lambda words, share: bar.progress(share, words))
    except Exception as error:  # whatever a model makes of a text, the page goes on
        bar.empty()
        st.error(as_text(one_line(error)), icon=":material/error:")
        return
    _say("success", f"captured: {done}")
    st.rerun()


def _upload(library: Library) -> None:
    with st.form("upload", clear_on_submit=True, border=False):
        file = st.file_uploader("A trace file", type=["safetensors"])
        if not st.form_submit_button("Add to the store", icon=":material/upload:"):
            return
    if file is None:
        st.warning("Choose a file first.")
        return
    try:
        name = library.put(file.name, file.getvalue())
    except Exception as error:
        if not is_expected(error):
            raise
        st.error(as_text(one_line(error)), icon=":material/error:")
        return
    _say("success", f"added: {name}")
    st.rerun()


def _say(kind: str, text: str) -> None:
    """Say something at the top of the page when it is shown next."""
    st.session_state[_SAYS] = [(kind, as_text(text))]
