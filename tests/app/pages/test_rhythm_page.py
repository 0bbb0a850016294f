import torch

from attnscope.app.clickable import clickable_rhythm
from attnscope.app.coupled_pairs import coupled_pairs
from attnscope.app.shared_readings import shared_pictures
from attnscope.credit import V1, Coupled, Readings
from attnscope.figures import TracePictures
from attnscope.metrics import Reading, measure
from attnscope.traces import open_trace


def reading(values, axis="query"):
    count = len(values)
    return Reading(
        name="any",
        values=torch.tensor(values),
        axes=(axis,),
        coordinates={axis: tuple("abcdefghijkl"[:count])},
        positions={axis: tuple(range(100, 100 + count))},
    )


def test_the_tokens_of_the_response_are_told_as_curves_text_and_table(open_page, store):
    page = open_page("rhythm", trace="a.safetensors")
    table = page.dataframe[0].value
    trace = open_trace(store / "a.safetensors")
    waad = measure(trace, "local_waad").select(query=trace.segments["response"])
    assert table["position"].tolist() == trace.segments["response"]
    assert torch.allclose(torch.tensor(table["WAAD"].tolist()), waad.values)
    assert any("attnscope-ribbon" in block.value for block in page.get("html"))


def test_a_token_of_the_address_is_shown_with_whom_it_reads(open_page, store):
    page = open_page("rhythm", trace="a.safetensors", token=12)
    assert "12" in page.subheader[0].value
    titles = [block.value for block in page.get("html")]
    assert any("Whom it reads" in text for text in titles)
    assert any("Who reads it" in text for text in titles)


def test_the_token_follows_the_number_box(open_page):
    page = open_page("rhythm", trace="a.safetensors")
    assert "Token" not in page.subheader[0].value
    page.number_input[0].set_value(7).run()
    assert page.subheader[0].value.startswith("Token 7")


def test_a_position_beyond_the_text_is_not_shown(open_page):
    page = open_page("rhythm", trace="a.safetensors", token=4_000)
    assert not page.error
    assert not page.subheader[0].value.startswith("Token")


def test_a_trace_without_a_response_shows_all_of_its_tokens(open_page):
    page = open_page("rhythm", trace="older/plain.safetensors")
    assert page.dataframe[0].value["position"].tolist() == [0, 1, 2]


def test_every_token_of_the_plot_can_be_clicked(store):
    plot = TracePictures.of(open_trace(store / "a.safetensors")).rhythm()
    assert plot is not None
    figure = clickable_rhythm(plot, plot.positions[2])
    unseen = [series for series in figure.data if series.marker.opacity == 0]
    assert list(figure.data[: len(plot.panels)]) == unseen
    assert list(unseen[0].customdata) == [str(position) for position in plot.positions]
    assert len(figure.layout.shapes) == 1


def test_pairs_are_dominated_anchors_with_the_largest_change_before_them():
    waad = [5.0, 1.0, 1.0, 6.0, 0.5, 0.5, 0.5, 7.0, 1.0, 1.0]
    fai = [0.0, 0.1, 0.9, 0.2, 0.8, 0.1, 0.7, 0.0, 0.0, 0.6]
    pairs = coupled_pairs(reading(waad), reading(fai, "key"))
    rule = Coupled(preset=V1)
    readings = Readings(
        mask=torch.ones(1, 10, dtype=torch.bool),
        local_waad=torch.tensor([[float("nan"), *waad]]),
        global_fai=torch.tensor([fai]),
    )
    classes = rule.emphasize(readings).classes
    assert pairs
    assert [p.anchor - 100 for p in pairs] == classes["dominated"][0].nonzero().flatten().tolist()
    opened = {p.introductory - 100 for p in pairs}
    assert opened == set(classes["introductory"][0].nonzero().flatten().tolist())


def test_pictures_are_measured_once_for_all_sessions(open_page, store):
    open_page("rhythm", trace="a.safetensors")
    path = store / "a.safetensors"
    stack = open_trace(path).main_stack
    assert shared_pictures(path, stack) is shared_pictures(path, stack)
