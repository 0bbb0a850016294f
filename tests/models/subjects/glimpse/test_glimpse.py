"""The shipped subject: it loads, sees well enough, and is captured with its image on a grid."""

from functools import cache

import torch

import attnscope
from attnscope.models.subjects.glimpse import (
    WEIGHTS,
    ask,
    describe,
    describe_prompt,
    load_subject,
    mentioned_objects,
    pope_questions,
    present_objects,
    render,
    sample_scenes,
)

SCENES = sample_scenes(20, 90)


@cache
def subject() -> attnscope.Subject:
    return attnscope.Subject(*load_subject())


def test_weights_are_small_and_hold_no_pickle() -> None:
    files = list(WEIGHTS.iterdir())
    assert sum(path.stat().st_size for path in files) < 8_000_000
    assert {path.suffix for path in files} == {".json", ".jinja", ".safetensors"}


def test_captions_mention_what_is_there() -> None:
    captions = describe(subject().model, subject().processor, SCENES)
    said = [set(mentioned_objects(text)) for text in captions]
    here = [present_objects(scene) for scene in SCENES]
    found = sum(len(names & true) for names, true in zip(said, here, strict=True))
    assert found / sum(map(len, here)) > 0.7
    assert found / sum(map(len, said)) > 0.7


def test_polls_are_answered_better_than_by_chance() -> None:
    questions = pope_questions(SCENES, "random")
    answers = ask(
        subject().model,
        subject().processor,
        [SCENES[question.scene] for question in questions],
        [question.text for question in questions],
    )
    assert set(answers) == {"yes", "no"}
    right = [answer == q.answer for answer, q in zip(answers, questions, strict=True)]
    assert sum(right) / len(right) > 0.75


def test_capture_finds_the_image_with_its_grid() -> None:
    picture = render(SCENES[0])
    generated = subject().generate(describe_prompt(), images=[picture])
    trace = attnscope.capture(subject(), generated)
    (image,) = [s for s in trace.sequences["text"].segments if s.name == "image"]
    assert (image.start, image.stop, image.grid) == (2, 66, (8, 8))
    (response,) = [s for s in trace.sequences["text"].segments if s.name == "response"]
    words = trace.sequences["text"].tokens[response.start : response.stop]
    assert mentioned_objects(" ".join(words))
    assert trace.attention[0].dense().shape[-2:] == (len(generated), len(generated))


def test_image_tokens_change_what_is_said() -> None:
    inputs = subject().encode(describe_prompt(), images=[render(SCENES[0])]).model_inputs
    other = subject().encode(describe_prompt(), images=[render(SCENES[1])]).model_inputs
    with torch.no_grad():
        logits = [subject().model(**given).logits[0, -1] for given in (inputs, other)]
    assert not torch.allclose(*logits, atol=1e-3)
