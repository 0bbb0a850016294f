import pytest
import torch

from attnscope.app.mechanism_costs import measured_costs
from attnscope.app.mechanism_gallery import (
    GALLERY,
    SIDE,
    captured,
    cost_in_words,
    explanation_of,
)
from attnscope.app.pages.mechanisms import readings_table
from attnscope.attention import GateAttention


@pytest.mark.parametrize("mechanism", GALLERY, ids=lambda mechanism: mechanism.name)
def test_every_mechanism_is_captured_and_explained(mechanism):
    trace = captured(mechanism)
    assert trace.sites
    for site in trace.sites:
        attention = trace.attention[site.stack, site.layer]
        row = attention.rows([0]) if not isinstance(attention, GateAttention) else attention.gate
        assert bool(row.isfinite().all())
    explanation = explanation_of(mechanism)
    assert "arXiv" in explanation
    assert "O(" in cost_in_words(explanation)


def test_captures_are_the_same_every_time_and_leave_the_seed_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    one, two = captured(GALLERY[0]), captured(GALLERY[0])
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.attention[0].rows([5]), two.attention[0].rows([5]))


def test_names_differ():
    assert len({mechanism.name for mechanism in GALLERY}) == len(GALLERY) == 19


def test_readings_are_measured_where_they_apply_and_refused_with_a_reason():
    trace = captured(GALLERY[0])
    table, reasons = readings_table(trace, trace.main_stack)
    entropy = table[table["metric"] == "Attention entropy"].iloc[0]
    assert 0 < entropy["mean"] <= torch.log(torch.tensor(float(SIDE * SIDE)))
    assert "induction" in reasons


@pytest.mark.parametrize(
    "name", ["Hypergraph, 8 hyperedges", "ULSAM", "Gated associative memory", "no such mechanism"]
)
def test_the_page_shows_a_mechanism(open_page, name):
    page = open_page("mechanisms", mechanism=name)
    assert page.code[0].value
    assert len(page.dataframe[-1].value) > 0
    assert not page.error


def test_costs_are_timed_when_asked_for(open_page, monkeypatch):
    monkeypatch.setattr(
        "attnscope.app.pages.mechanisms.measured_costs", lambda _: [(64, 1.0), (256, 4.0)]
    )
    page = open_page("mechanisms", mechanism=GALLERY[1].name)
    assert "Cost" in [part.value for part in page.subheader]
    page.toggle[0].set_value(True).run()
    assert not page.exception
    tables = [frame.value for frame in page.dataframe]
    (costs,) = [table for table in tables if "tokens" in table.columns]
    assert set(costs["what"]) == {GALLERY[1].name, GALLERY[0].name}


def test_costs_are_measured_for_every_grid():
    points = measured_costs(GALLERY[1], sides=(8, 16))
    assert [tokens for tokens, _ in points] == [64, 256]
    assert all(milliseconds > 0 for _, milliseconds in points)
