from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnscope.app.failures import CommandError
from attnscope.app.library import Library
from attnscope.app.picture_looks import LOOKS, Place, answer_places, picture_run
from attnscope.app.scene_captures import (
    capture_scene,
    capture_token,
    is_of,
    named_objects,
    traced_scene,
)
from attnscope.metrics import MetricError
from attnscope.models.subjects import glimpse
from attnscope.traces import open_trace


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Return a store with one scene, in which the model makes something up."""
    folder = tmp_path_factory.mktemp("scenes")
    steps = []
    name = capture_scene(0, "broken", Library(folder), lambda words, share: steps.append(share))
    assert name == "scene 0, prior broken.safetensors"
    assert steps == sorted(steps)
    return folder


@pytest.fixture(scope="module")
def trace(scenes):
    return open_trace(next(scenes.glob("*.safetensors")))


def test_a_scene_is_drawn_again_from_its_trace(trace, store):
    scene = traced_scene(trace)
    assert scene == glimpse.sample_scenes(1, 0, split="broken")[0]
    assert traced_scene(open_trace(store / "a.safetensors")) is None


def test_the_gradients_are_of_the_first_made_up_word(trace):
    scene = traced_scene(trace)
    assert scene is not None
    there = glimpse.present_objects(scene)
    wrong = next(one for one in named_objects(trace) if one.name not in there)
    place = answer_places(trace)[wrong.stop - 1]
    assert trace.tokens[place] == wrong.name.split()[-1]
    assert is_of(trace, place)
    assert not is_of(trace, place - 1)


def test_another_token_gets_gradients_of_its_own(trace):
    place = answer_places(trace)[4]
    again = capture_token(trace, place)
    assert is_of(again, place)
    assert again.tokens == trace.tokens
    assert again.provenance.gradient_target != trace.provenance.gradient_target


def test_every_map_has_a_number_for_each_patch(trace):
    place = Place(token=answer_places(trace)[4], run=picture_run(trace))
    found = {name: look.measure(trace, place) for name, look in LOOKS.items()}
    assert {len(values) for values in found.values()} == {64}
    assert all(float(values.min()) >= 0 for values in found.values())
    rows = [seen.attention.dense() for seen in trace.observe(trace.main_stack)]
    expected = torch.stack(rows).mean((0, 1))[place.token - 1, 2:66]
    torch.testing.assert_close(found["attention"], expected, check_dtype=False)


def test_what_a_trace_lacks_is_said(store, trace):
    plain = open_trace(store / "a.safetensors")
    with pytest.raises(MetricError, match="no picture in this trace"):
        picture_run(plain)
    with pytest.raises(CommandError, match="no scene of glimpse"):
        capture_token(plain, 3)
    last = Place(token=answer_places(trace)[-1] + 1, run=picture_run(trace))
    with pytest.raises(MetricError, match="lies before it"):
        LOOKS["saliency"].measure(trace, last)


# --- the page -----------------------------------------------------------------------------------


def test_the_maps_stand_side_by_side_and_made_up_words_are_marked(open_page, scenes):
    page = open_page("image", at=scenes)
    assert not page.error
    assert "made up" in set(page.dataframe[0].value["truth"])
    assert "(made up)" in page.selectbox(key="token").format_func(page.selectbox(key="token").value)
    assert len(page.get("plotly_chart")) == 4
    assert not page.info


def test_a_token_of_the_address_is_shown_of_one_head(open_page, scenes, trace):
    place = answer_places(trace)[3]
    page = open_page("image", at=scenes, token=place, of_one="true", layer=2, head=1)
    assert page.selectbox(key="token").value == place
    total = page.dataframe[1].value["share"].sum()
    row = trace.attention[trace.main_stack, 2].tile([place - 1], list(range(2, 66)))[1]
    assert total == pytest.approx(float(row.sum()), rel=1e-4)


def test_a_text_has_no_picture_and_the_page_says_so(open_page):
    page = open_page("image", trace="a.safetensors")
    assert "no picture in this trace" in page.info[0].value


def test_a_foreign_trace_without_gradients_shows_what_it_can(open_page, trace, tmp_path):
    from attnscope.app.asked_prompts import PromptRequest, asked_prompt
    from attnscope.app.pictured_answers import Decoding, answer
    from attnscope.probes import capture

    prompt = asked_prompt(PromptRequest(model="glimpse", text="describe the scene .", scene=1))
    plain = capture(prompt.subject, answer(prompt, (), Decoding(max_tokens=4)))
    foreign = replace(plain, provenance=replace(plain.provenance, model="somebody/else"))
    foreign.save(tmp_path / "foreign.safetensors")
    page = open_page("image", at=tmp_path)
    assert len(page.get("plotly_chart")) == 1
    assert len(page.info) == 3


def test_a_dropped_file_that_is_no_picture_is_a_message(open_page, trace, tmp_path):
    foreign = replace(trace, provenance=replace(trace.provenance, model="somebody/else"))
    foreign.save(tmp_path / "foreign.safetensors")
    page = open_page("image", at=tmp_path)
    page.file_uploader[0].set_value(("dropped.png", b"no picture", "image/png")).run()
    assert not page.exception
    assert "no picture that can be read" in page.error[0].value
    assert len(page.get("plotly_chart")) == 4  # the patches stand alone
