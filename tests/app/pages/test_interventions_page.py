import json
from io import BytesIO

import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from attnscope.app import live_models
from attnscope.app.asked_prompts import PromptRequest, asked_prompt, opened_picture, prompt_ids
from attnscope.app.change_methods import CHANGES, ChangeSettings, changes_for
from attnscope.app.changed_answers import answer_log_probabilities, both_ways, differing
from attnscope.app.failures import CommandError
from attnscope.app.falsification import Falsification, HeadEffect, falsify, rivals_of
from attnscope.app.falsify_link import refusal_of
from attnscope.app.live_models import shared_subject
from attnscope.app.pictured_answers import Decoding, answer
from attnscope.figures import HeadName
from attnscope.traces import open_trace

SCENE = PromptRequest(model="glimpse", text="describe the scene .", scene=3)
SETTINGS = {
    name: tuple((own.name, own.first) for own in change.strengths)
    for name, change in CHANGES.items()
}


def png(width: int, height: int) -> bytes:
    stream = BytesIO()
    Image.new("1", (width, height)).save(stream, format="png")
    return stream.getvalue()


def bad_pictures() -> list[tuple[bytes, str]]:
    """Return files that are no pictures to us, and what is said of them."""
    whole = png(64, 64)
    broken = whole.replace(b"IDAT", b"ID\0T")
    return [
        (b"not a picture", "no picture that can be read"),
        (b"", "no picture that can be read"),
        (whole[: len(whole) // 2], "no picture that can be read"),
        (broken, "no picture that can be read"),
        (png(8000, 4001), "8,000 x 4,001 pixels"),
    ]


def quiet(words: str, share: float) -> None:
    assert 0 <= share <= 1


@pytest.fixture(scope="module")
def prompt():
    return asked_prompt(SCENE)


# --- what is computed ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "var"])
def test_every_method_runs_on_a_scene(prompt, name):
    settings = ChangeSettings(strengths=SETTINGS[name], keys="image")
    done = both_ways(prompt, lambda: [CHANGES[name].build(prompt, settings)], 4, quiet)
    assert done.plain.words
    assert set(done.plain.readings) == {"entropy", "waad", "image_attention"}
    table = done.table().set_index("what")
    assert table.loc["log-probability of the plain answer", "as it is"] < 0
    if name == "knockout":  # the first token is predicted by the prompt
        assert done.plain.readings["image_attention"][1:].min() > 0
        assert done.changed.readings["image_attention"][1:].max() == 0


def test_redistribution_says_that_glimpse_has_no_sinks(prompt):
    settings = ChangeSettings(strengths=SETTINGS["var"])
    with pytest.raises(CommandError, match="massive at the first token"):
        CHANGES["var"].build(prompt, settings)


def test_a_factor_of_one_changes_nothing(prompt):
    settings = ChangeSettings(strengths=(("factor", 1.0),))
    done = both_ways(prompt, lambda: [CHANGES["scaling"].build(prompt, settings)], 6, quiet)
    assert done.plain.tokens == done.changed.tokens
    assert done.plain.log_probability == done.changed.log_probability


def test_log_probabilities_are_those_of_a_greedy_answer(prompt):
    answered = answer(prompt, (), Decoding(max_tokens=5))
    found = answer_log_probabilities(prompt, answered, ())
    with torch.no_grad():
        logits = prompt.subject.model(**answered.model_inputs).logits[0, -6:-1]
    torch.testing.assert_close(found, logits.log_softmax(-1).amax(-1))


def test_falsifying_gives_each_head_its_own_effect(prompt):
    done = falsify(prompt, HeadName(1, 2), [0, 5], 5, quiet)
    again = falsify(prompt, HeadName(1, 0), [2], 5, quiet)
    assert again.own.total == pytest.approx(done.rivals[0].total)
    assert again.rivals[0].total == pytest.approx(done.own.total)
    assert done.own.total != done.rivals[0].total
    assert list(done.table()["without"]) == ["L1H2", "L1H0", "L1H5"]
    assert f"{done.own.total:+.2f}" in done.verdict
    with pytest.raises(CommandError, match="held against"):
        falsify(prompt, HeadName(1, 2), [2], 5, quiet)


@pytest.mark.parametrize(
    ("own", "others", "words"),
    [
        (-2.0, (-1.0, 0.5), "more than without any of 2 random heads"),
        (-2.0, (-1.0, -2.5), "1 of 2 random heads"),
        (0.5, (-1.0, 0.0), "does not rest on this head"),
        (-2.0, (), "no other head"),
    ],
)
def test_the_verdict_follows_the_numbers(own, others, words):
    effects = [
        HeadEffect(head=number, words="", gone=0, change=torch.tensor([change / 2, change / 2]))
        for number, change in enumerate((own, *others))
    ]
    done = Falsification(
        head=HeadName(1, 0), words="", tokens=("a", "b"), own=effects[0], rivals=tuple(effects[1:])
    )
    assert words in done.verdict


def test_rivals_are_others_of_the_layer_and_the_same_for_a_seed():
    drawn = rivals_of(3, 12, seed=5)
    assert drawn == rivals_of(3, 12, seed=5)
    assert len(set(drawn)) == 4
    assert 3 not in drawn
    assert rivals_of(0, 2, seed=5) == [1]


def test_words_that_differ_are_found():
    assert differing(["a", "b", "c"], ["a", "c", "d"]) == {1}
    assert differing(["a"], ["a"]) == set()


def test_methods_for_pictures_are_offered_with_a_picture_alone():
    text = changes_for(image=False, matcher=True)
    assert {"vhr", "paint", "agla"}.isdisjoint(text)
    assert "agla" not in changes_for(image=True, matcher=False)


def test_what_is_no_prompt_is_refused():
    with pytest.raises(CommandError, match="empty"):
        asked_prompt(PromptRequest(model="countdown", text=" "))
    with pytest.raises(CommandError, match="prior is 'train'"):
        asked_prompt(PromptRequest(model="glimpse", text="?", scene=1, prior="train"))


@pytest.mark.parametrize(("content", "words"), bad_pictures())
def test_a_file_that_is_no_picture_is_refused(content, words):
    with pytest.raises(CommandError, match=words):
        opened_picture(content)


def test_a_text_trace_gives_its_prompt_back(store):
    trace = open_trace(store / "a.safetensors")
    ids = prompt_ids(trace)
    start = trace.segments["response"][0]
    assert ids == tuple(trace.sequences["text"].ids or ())[:start]
    assert len(ids) == start
    assert prompt_ids(open_trace(store / "older" / "plain.safetensors")) == ()


# --- the page -----------------------------------------------------------------------------------


def loaded(page: AppTest) -> AppTest:
    """Ask for the model, where nobody asked for it before."""
    wanted = [button for button in page.button if button.key == "load"]
    return wanted[0].click().run() if wanted else page


def test_a_model_is_loaded_when_it_is_asked_for(open_page, monkeypatch):
    monkeypatch.setattr(live_models, "_LOADED", set())
    shared_subject.clear()
    loading = []
    load = live_models.load_model
    monkeypatch.setattr(
        live_models, "load_model", lambda choice: loading.append(choice.name) or load(choice)
    )
    page = open_page("interventions", model="countdown", method="scaling")
    assert loading == []
    assert [button.label for button in page.button] == ["Load countdown"]
    page = loaded(page)
    assert loading == ["countdown"]
    assert page.button(key="run").label == "Generate both ways"
    assert open_page("interventions", model="countdown").button(key="run")


def test_a_link_brings_prompt_method_and_strength_back(open_page):
    settings = {"scaling-factor": 0.5, "scaling-layers-of-6": 3, "most": 9}
    state = {"model": "countdown", "method": "scaling", "prompt": "numbers 1 2 3 target 6"}
    page = loaded(open_page("interventions", chat="false", **state, **settings))
    assert page.text_area[0].value == "numbers 1 2 3 target 6"
    assert page.checkbox(key="chat").value is False
    assert page.number_input(key="scaling-factor").value == 0.5
    assert page.multiselect(key="scaling-layers-of-6").value == [3]
    assert page.slider(key="most").value == 9
    page.text_area[0].set_value("numbers 1 2 3 target 5").run()
    assert page.query_params["prompt"] == "numbers 1 2 3 target 5"
    page.text_area[0].set_value("1 " * 300).run()
    assert "prompt" not in page.query_params
    assert any("leaves it out" in text.value for text in page.caption)


def test_a_dropped_file_that_is_no_picture_is_a_message(open_page):
    from attnscope.models.subjects.glimpse import WEIGHTS

    state = {"models": json.dumps([str(WEIGHTS)]), "model": str(WEIGHTS)}
    page = loaded(open_page("interventions", method="scaling", **state))
    page.text_area[0].set_value("describe the scene .")
    for content, words in (*bad_pictures(), (png(24, 24), "")):
        page.file_uploader[0].set_value(("dropped.png", content, "image/png")).run()
        assert not page.exception
        assert [words in text.value for text in page.info] == ([True] if words else [])
    assert page.button(key="run")


def test_a_model_answers_both_ways(open_page):
    page = loaded(open_page("interventions", model="glimpse", method="knockout", scene=3))
    page.slider[0].set_value(6)
    page.button(key="run").click().run()
    assert not page.exception
    assert not page.error
    table = page.dataframe[-1].value
    assert "Attention to the image" in set(table["what"])
    assert any("Not in the picture" in text.value for text in page.markdown)


def test_a_head_is_falsified_from_a_link(open_page):
    where = {"does": "falsify", "layer": 2, "head": 1, "scene": 3}
    page = loaded(open_page("interventions", model="glimpse", **where))
    page.slider[0].set_value(5)
    page.button(key="run").click().run()
    assert not page.exception
    table = page.dataframe[0].value
    assert list(table["chosen"]) == ["asked about", *["random"] * 4]
    assert table["without"][0] == "L2H1"


def test_a_served_text_model_is_asked_again_what_its_trace_was(open_page, model_folder, store):
    models = json.dumps([str(model_folder)])
    where = {"model": model_folder, "trace": "a.safetensors", "method": "scaling"}
    page = loaded(open_page("interventions", models=models, **where))
    page.slider[0].set_value(4)
    page.button(key="run").click().run()
    assert not page.exception
    assert not page.error
    assert list(page.dataframe[-1].value.columns) == ["what", "unit", "as it is", "changed"]


def test_what_cannot_be_asked_is_a_message(open_page):
    page = loaded(open_page("interventions", model="nobody/model"))
    assert "No model" in page.warning[0].value
    page.text_area[0].set_value(" ").run()
    assert "empty" in page.info[0].value
    page = loaded(open_page("interventions", model="glimpse", method="var"))
    page.button(key="run").click().run()
    assert "massive" in page.error[0].value


def test_the_map_leads_here_or_says_why_not(open_page, store, model_folder, monkeypatch):
    page = open_page("attention_map", trace="a.safetensors", layer=1, head=2)
    assert any("cannot be loaded here" in text.value for text in page.caption)
    models = json.dumps([str(model_folder)])
    page = open_page("attention_map", models=models, trace="a.safetensors", layer=1, head=2)
    assert page.button(key="falsify").label == "Falsify L1H2"
    trace = open_trace(store / "a.safetensors")
    assert refusal_of(trace, trace.main_stack) == ""
    assert "which speaks" in refusal_of(trace, "another")
