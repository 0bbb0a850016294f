import pytest
import torch

from attnscope.app.comparison import (
    Side,
    aligned_positions,
    head_difference,
    token_difference,
    token_numbers,
    token_values,
)
from attnscope.app.shared_readings import head_reading
from attnscope.metrics import MetricError, Reading, measure
from attnscope.traces import open_trace


@pytest.fixture
def sides(store):
    paths = [store / "a.safetensors", store / "b.safetensors"]
    traces = [open_trace(path) for path in paths]
    return [Side(path=p, trace=t, stack=t.main_stack) for p, t in zip(paths, traces, strict=True)]


def test_aligned_tokens_are_the_same_and_ascend_on_both_sides(sides):
    first, second = sides
    pairs = aligned_positions(first, second)
    assert pairs
    assert all(first.tokens[a] == second.tokens[b] for a, b in pairs)
    for side in (0, 1):
        places = [pair[side] for pair in pairs]
        assert places == sorted(set(places))


def test_a_run_agrees_with_itself_everywhere_and_differs_nowhere(sides):
    first, _ = sides
    pairs = aligned_positions(first, first)
    assert pairs == [(position, position) for position in first.positions]
    difference = token_difference(first, first, "local_waad", pairs)
    assert torch.equal(difference.values, torch.zeros(len(first.positions)))


def test_differences_are_second_minus_first_at_aligned_tokens_only(sides):
    first, second = sides
    pairs = aligned_positions(first, second)
    difference = token_difference(first, second, "token_entropy", pairs)
    partner = dict(pairs)
    for place, position in enumerate(first.positions):
        value = difference.values[place]
        if position in partner:
            expected = second.trace.entropies[partner[position]] - first.trace.entropies[position]
            assert value == pytest.approx(float(expected), abs=1e-6)
        else:
            assert value.isnan()


@pytest.mark.parametrize("name", sorted(set(token_numbers()) - {"receiver_fai"}))
def test_every_number_per_token_can_be_compared(sides, name):
    first, _ = sides
    reading = token_values(first, name)
    assert len(reading.axes) == 1
    assert len(reading.values) == len(first.tokens)


def test_what_is_undefined_is_refused_with_the_reason(sides, open_page):
    with pytest.raises(MetricError, match="the group of heads is empty"):  # one sentence has none
        token_values(sides[0], "receiver_fai")
    page = open_page("compare", trace="a.safetensors", token_metric="receiver_fai")
    assert any("group of heads is empty" in box.value for box in page.info)


def test_head_differences_are_taken_head_by_head(sides):
    one, other = (head_reading(side.path, side.stack, "entropy") for side in sides)
    difference = head_difference(one, other)
    assert torch.allclose(difference.values, other.values - one.values)
    trace = sides[0].trace
    entropy = measure(trace, "entropy").select(query=trace.segments["response"]).mean("query")
    assert torch.allclose(one.values, entropy.values)


def test_models_of_other_sizes_are_not_subtracted():
    small, large = (
        Reading(name="n", values=torch.zeros(layers, 2), axes=("layer", "head"))
        for layers in (1, 3)
    )
    with pytest.raises(MetricError, match=r"first has \(1, 2\), the second \(3, 2\)"):
        head_difference(small, large)


def test_the_page_shows_both_traces_and_their_differences(open_page):
    page = open_page("compare", trace="a.safetensors", other="b.safetensors", metric="entropy")
    facts = page.dataframe[0].value
    assert facts["trace"].tolist() == ["a.safetensors", "b.safetensors"]
    assert any("second minus first" in block.value for block in page.get("html"))


def test_an_unknown_trace_in_the_address_is_told(open_page):
    page = open_page("compare", trace="../../a.safetensors", other="**b**")
    assert len(page.warning) == 2
    assert "**b**" not in page.warning[1].value
