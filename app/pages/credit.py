"""Credit: rewards of captured responses in, a weight for every token out, by rule."""

import statistics
from collections.abc import Sequence

import pandas
import streamlit as st

from attnscope.app.address import TRACE
from attnscope.app.choices import titles_of
from attnscope.app.credit_export import token_table
from attnscope.app.credit_page import credit_ribbon
from attnscope.app.credit_request import CreditRequest
from attnscope.app.credit_roles import mark_of
from attnscope.app.credit_tables import settings_of
from attnscope.app.credited import Credited, CreditedResponse, credit_traces
from attnscope.app.library import Library, stamp_of, the_library
from attnscope.app.markdown_text import as_text
from attnscope.app.pictures import Told, draw_text
from attnscope.app.screen import visible
from attnscope.credit import RULES

__all__ = ["advantages_of", "show"]

_OWN = "the rule's own"
_PLAIN, _GROUP = "the reward itself", "against the group's mean"
_SMALLEST_SPREAD = 1e-4
_RULE, _FIRST = "rule", "coupled"
_MOST_TRACES = 16


def show() -> None:
    """Show what a rule gives to responses of the store."""
    st.title("Credit")
    library = the_library()
    found, _ = library.survey()
    spoken = [holding for holding in found if holding.response]
    answered = [holding.name for holding in spoken if holding.layers]
    if len(answered) < len(spoken):
        st.caption(
            f"{len(spoken) - len(answered)} responses are left out: their traces keep no "
            "attention, which credit is made of."
        )
    if not answered:
        st.info("No trace of the store has a response, which credit is given to.")
        return
    wanted = st.query_params.get(TRACE)
    chosen = st.multiselect(
        "Responses, taken as one batch",
        answered,
        default=[wanted] if wanted in answered else answered[:1],
        max_selections=_MOST_TRACES,
        format_func=titles_of(found).__getitem__,
    )
    request = _request(_rewards(chosen))
    if not chosen:
        st.info("Choose a response.")
        return
    stamps = tuple(stamp_of(library.path_of(name)) for name in chosen)
    credited = _credited(library, tuple(chosen), stamps, request)
    _summary(credited)
    limits = _limits(credited)
    for name, response in zip(chosen, credited.responses, strict=True):
        _response(name, response, credited, limits)


def _rewards(chosen: Sequence[str]) -> list[float]:
    """Let rewards be typed, and return the advantages that are made of them."""
    table = pandas.DataFrame({"response": list(chosen), "reward": [1.0] * len(chosen)})
    edited = st.data_editor(
        table,
        hide_index=True,
        disabled=["response"],
        key=f"rewards of {len(chosen)}",
        column_config={"reward": st.column_config.NumberColumn(required=True)},
    )
    kind = st.segmented_control("Advantage", [_PLAIN, _GROUP], default=_PLAIN, required=True)
    return advantages_of(edited["reward"].tolist(), grouped=kind == _GROUP)


def advantages_of(rewards: Sequence[float], *, grouped: bool) -> list[float]:
    """Return the advantages of responses: their rewards, or how far they stand out of their group.

    Of a group, ``(r - mean) / (std + 1e-4)``, the standard deviation that of a sample; a group of
    one has none, and no advantage.

    Reference: Shao et al. 2024, arXiv:2402.03300, section 4.1; the small number as trainers have.

    Example:
        >>> [round(a, 2) for a in advantages_of([1.0, 0.0], grouped=True)]
        [0.71, -0.71]
    """
    if not grouped or not rewards:
        return list(rewards)
    mean = statistics.fmean(rewards)
    spread = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
    return [(reward - mean) / (spread + _SMALLEST_SPREAD) for reward in rewards]


def _request(advantages: Sequence[float]) -> CreditRequest:
    names = list(RULES)
    rule = st.selectbox("Rule", names, index=names.index(_FIRST), key=_RULE, bind="query-params")
    entry = RULES[rule]
    st.caption(as_text(f"{entry.source}; {entry.evidence}"))
    with st.expander("Settings", icon=":material/tune:"):
        left, middle, right = st.columns(3)
        preset = left.selectbox("Preset", [_OWN, "v1", "rev"])
        share = middle.number_input("Share of tokens to select", 0.0, 1.0, None, 0.05)
        amplification = right.number_input("Weight of a selected token", 0.0, 100.0, None, 0.1)
    given = {"share": share, "amplification": amplification}
    return CreditRequest(
        rule=rule,
        preset=None if preset == _OWN else preset,
        numbers={name: number for name, number in given.items() if number is not None},
        advantages=tuple(advantages),
    )


def _credited(
    library: Library, names: tuple[str, ...], stamps: tuple, request: CreditRequest
) -> Credited:
    key = (names, stamps, repr(request))
    return _shared_credit(key, library, request)


@st.cache_resource(max_entries=32, show_spinner="Giving credit")
def _shared_credit(
    key: tuple[tuple[str, ...], tuple, str], _library: Library, _request: CreditRequest
) -> Credited:
    return credit_traces([_library.path_of(name) for name in key[0]], _request)


def _summary(credited: Credited) -> None:
    numbers = credited.statistics
    rows = [("all", 1.0, numbers["weight"])]
    for role in credited.responses[0].classes:
        rows.append((mark_of(role).name, numbers[f"share/{role}"], numbers[f"weight/{role}"]))
    left, right = st.columns(2)
    left.dataframe(
        pandas.DataFrame(rows, columns=["tokens", "share", "mean weight"]),
        hide_index=True,
        alt="Share and mean weight of the tokens of each role",
    )
    facts = list(settings_of(credited).items())
    right.dataframe(
        pandas.DataFrame(facts, columns=["", "what the rule read"]),
        hide_index=True,
        alt="Where the rule comes from, its settings and heads",
    )


def _response(
    name: str, response: CreditedResponse, credited: Credited, limits: tuple[float, float]
) -> None:
    st.subheader(as_text(name), anchor=False)
    ribbon = credit_ribbon(response, credited, limits)
    table = token_table(response)
    table["token"] = table["token"].map(visible)
    words = f"{len(response.tokens)} tokens, tinted by the weight that {credited.entry.name} gives"
    draw_text(ribbon, Told(name=f"credit-{name}", words=words, table=lambda: table))


def _limits(credited: Credited) -> tuple[float, float]:
    """Return the weights of no tint and of the full tint, for all responses alike."""
    weights = [weight for response in credited.responses for weight in response.weights]
    return (0.0 if min(weights) < 1 else 1.0, max(*weights, 1.0))
