import pytest

from attnscope.app.head_search import find_heads, ranked_heads
from attnscope.app.pages.heads import in_words
from attnscope.app.shared_readings import head_metrics, head_reading
from attnscope.figures import HeadName
from attnscope.metrics import MetricError, measure
from attnscope.traces import open_trace


@pytest.mark.parametrize(
    ("question", "metric", "highest"),
    [
        ("induction heads", "induction", True),
        ("first-token sinks", "sink_mass", True),
        ("previous token heads", "previous_token", True),
        ("the most local heads", "head_span", False),
        ("global heads", "head_span", True),
        ("Which heads are focused?", "entropy", False),
        ("receiver heads", "receiver_score", True),
        ("attention within a window", "window_mass", True),
        ("lowest induction score", "induction", False),
    ],
)
def test_a_question_finds_the_metric_that_answers_it(question, metric, highest):
    answer = find_heads(question)
    assert answer is not None
    assert (answer.metric.name, answer.highest) == (metric, highest)


@pytest.mark.parametrize("question", ["", "!!!", "xyzzy", "heads"])
def test_a_question_without_a_known_word_has_no_answer(question):
    assert find_heads(question) is None


def test_the_ranking_is_that_of_the_metric(open_page, store):
    page = open_page("heads", trace="a.safetensors", find_heads="first-token sinks")
    table = page.dataframe[0].value
    trace = open_trace(store / "a.safetensors")
    sinks = measure(trace, "sink_mass", queries=trace.segments["response"])
    best, value = ranked_heads(sinks, highest=True)[0]
    assert table["head"][0] == str(best)
    assert table.iloc[0, 1] == pytest.approx(value)
    assert len(table) == 12


def test_a_head_of_the_address_is_opened(open_page):
    page = open_page("heads", trace="a.safetensors", layer=2, head=3)
    assert page.subheader[0].value == "Head L2H3"


def test_a_head_that_is_not_there_falls_back_to_one_that_is(open_page):
    page = open_page("heads", trace="a.safetensors", layer=77, head="x")
    assert page.subheader[0].value == "Head L0H0"


def test_every_metric_that_tells_heads_apart_is_shown_or_refused_with_a_reason(store):
    path = store / "a.safetensors"
    stack = open_trace(path).main_stack
    readings, refused = {}, {}
    for metric in head_metrics():
        try:
            readings[metric.name] = head_reading(path, stack, metric.name)
        except MetricError as error:
            refused[metric.name] = str(error)
    assert all(name in reason for name, reason in refused.items())
    assert {reading.axes for reading in readings.values()} == {("layer", "head")}
    assert {tuple(reading.values.shape) for reading in readings.values()} == {(3, 4)}
    assert len(readings) > 15


def test_a_metric_that_does_not_apply_is_a_message(open_page):
    page = open_page("heads", trace="a.safetensors", metric="patch_distance")
    assert any("needs" in box.value for box in page.info)


def test_a_reading_in_words_names_both_ends(store):
    path = store / "a.safetensors"
    reading = head_reading(path, open_trace(path).main_stack, "entropy")
    words = in_words(reading)
    ranked = ranked_heads(reading, highest=True)
    assert f"({ranked[0][0]})" in words
    assert f"({ranked[-1][0]})" in words
    assert isinstance(ranked[0][0], HeadName)
