"""`offer_falsifying`: from a head on a page to the page that takes the head away."""

import streamlit as st

from attnscope.app.address import HEAD, LAYER, TRACE, go_to
from attnscope.app.choices import Chosen
from attnscope.app.live_models import live_models
from attnscope.app.markdown_text import as_text
from attnscope.figures import HeadName
from attnscope.traces import Trace

__all__ = ["DOES", "FALSIFY", "PRIOR", "SCENE", "offer_falsifying", "refusal_of"]

DOES, FALSIFY = "does", "falsify"
SCENE, PRIOR = "scene", "prior"
"""Notes of a trace of a scene of glimpse: its seed, and whether it breaks the prior."""


def refusal_of(trace: Trace, stack: str) -> str:
    """Return why a head of a trace cannot be taken away here; empty if it can."""
    model = trace.provenance.model
    if not model:
        return "this trace does not name its model, so that no head of it can be taken away here."
    if model not in live_models():
        return (
            f"the model {model} cannot be loaded here, so that no head of it can be taken away; "
            f"there are {', '.join(live_models())}."
        )
    if stack != trace.main_stack:
        return f"heads are taken away in {trace.main_stack}, which speaks; this is {stack}."
    return ""


def offer_falsifying(chosen: Chosen, head: HeadName) -> None:
    """Show a button that leads to the same head on the page Interventions, or why there is none."""
    refusal = refusal_of(chosen.trace, chosen.stack)
    if refusal:
        st.caption(f"Falsify: {as_text(refusal)}")
        return
    if st.button(
        f"Falsify {head}",
        icon=":material/science:",
        key="falsify",
        help="Take this head away, and others of its layer, and see what the answer owes it.",
    ):
        notes = chosen.trace.provenance.notes
        scene = {name: notes[name] for name in (SCENE, PRIOR) if name in notes}
        go_to(
            "interventions",
            **{DOES: FALSIFY, "model": chosen.trace.provenance.model, TRACE: chosen.name},
            **{LAYER: head.layer, HEAD: head.head},
            **scene,
        )
