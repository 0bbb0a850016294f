"""`change_tags`: tags of chosen traces, given and taken in the page; the index keeps them."""

from collections.abc import Iterable, Sequence

import streamlit as st

from attnscope.app.failures import is_expected, one_line
from attnscope.app.library import Holding, Library
from attnscope.app.markdown_text import as_text

__all__ = ["change_tags"]


def change_tags(library: Library, chosen: Sequence[Holding], known: Iterable[str]) -> bool:
    """Let tags of traces be given and taken, and return whether they were.

    Args:
        library: The store.
        chosen: The traces.
        known: The tags of the store, which are offered.
    """
    outside = [holding.title for holding in chosen if not holding.id]
    if outside:
        st.caption(
            f"{as_text(', '.join(outside))}: no tags here. The index of a store keeps them "
            "(`attnscope capture MODEL DATASET --output STORE` makes one, `attnscope store repair "
            "--adopt` lists its traces anew); a file beside it is never rewritten."
        )
        return False
    with st.form("tags", border=False, clear_on_submit=True):
        add = st.multiselect("Give", sorted(set(known)), key="tags given", accept_new_options=True)
        own = sorted({tag for holding in chosen for tag in holding.tags})
        remove = st.multiselect("Take away", own, key="tags taken")
        if not st.form_submit_button("Change the tags", icon=":material/sell:"):
            return False
    try:
        library.tag([holding.name for holding in chosen], add, remove)
    except Exception as error:
        if not is_expected(error):
            raise
        st.error(as_text(one_line(error)), icon=":material/error:")
        return False
    return True
