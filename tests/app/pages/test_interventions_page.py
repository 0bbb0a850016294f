import json

import pytest
import torch

from attnscope.app.asked_prompts import PromptRequest, asked_prompt, opened_picture, prompt_ids
from attnscope.app.change_methods import CHANGES, ChangeSettings, changes_for
from attnscope.app.changed_answers import answer_log_probabilities, both_ways, differing
from attnscope.app.failures import CommandError
from attnscope.app.falsification import Falsification, HeadEffect, falsify, rivals_of
from attnscope.app.falsify_link import refusal_of
from attnscope.app.pictured_answers import Decoding, answer
from attnscope.figures import HeadName
from attnscope.traces import open_trace

SCENE = PromptRequest(model="glimpse", text="describe the scene .", scene=3)
SETTINGS = {
    name: tuple((own.name, own.first) for own in change.strengths)
    for name, change in CHANGES.items()
}


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
    with pytest.raises(CommandError, match="no picture"):
        opened_picture(b"not a picture")


def test_a_text_trace_gives_its_prompt_back(store):
    trace = open_trace(store / "a.safetensors")
    ids = prompt_ids(trace)
    start = trace.segments["response"][0]
    assert ids == tuple(trace.sequences["text"].ids or ())[:start]
    assert len(ids) == start
    assert prompt_ids(open_trace(store / "older" / "plain.safetensors")) == ()


# --- the page -----------------------------------------------------------------------------------


def test_a_model_answers_both_ways(open_page):
    page = open_page("interventions", model="glimpse", method="knockout", scene=3)
    page.slider[0].set_value(6)
    page.button(key="run").click().run()
    assert not page.exception
    assert not page.error
    table = page.dataframe[-1].value
    assert "Attention to the image" in set(table["what"])
    assert any("Not in the picture" in text.value for text in page.markdown)


def test_a_head_is_falsified_from_a_link(open_page):
    page = open_page("interventions", model="glimpse", does="falsify", layer=2, head=1, scene=3)
    page.slider[0].set_value(5)
    page.button(key="run").click().run()
    assert not page.exception
    table = page.dataframe[0].value
    assert list(table["chosen"]) == ["asked about", *["random"] * 4]
    assert table["without"][0] == "L2H1"


def test_a_served_text_model_is_asked_again_what_its_trace_was(open_page, model_folder, store):
    models = json.dumps([str(model_folder)])
    page = open_page(
        "interventions", models=models, model=model_folder, trace="a.safetensors", method="scaling"
    )
    page.slider[0].set_value(4)
    page.button(key="run").click().run()
    assert not page.exception
    assert not page.error
    assert list(page.dataframe[-1].value.columns) == ["what", "unit", "as it is", "changed"]


def test_what_cannot_be_asked_is_a_message(open_page):
    page = open_page("interventions", model="nobody/model")
    assert "No model" in page.warning[0].value
    page.text_area[0].set_value(" ").run()
    assert "empty" in page.info[0].value
    page = open_page("interventions", model="glimpse", method="var")
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
