"""`describe_scene`: the shipped vision-language model describes a picture that would mislead it."""

from pathlib import Path

from attnscope.app.answer_looks import Looking, look_at, marked, mentions_of, seen_picture
from attnscope.app.pictured_answers import Decoding, answer, pictured_prompt, said
from attnscope.app.screen import screen, visible
from attnscope.app.subjects import ModelChoice, load_model
from attnscope.figures import AnsweredPicture, write_picture_report
from attnscope.models.subjects import glimpse
from attnscope.probes import capture
from attnscope.traces import Trace

__all__ = ["describe_scene", "glimpse_paths"]

_SUBJECT = "glimpse"


def glimpse_paths(folder: Path) -> tuple[Path, Path]:
    """Return the page and the trace that `describe_scene` writes."""
    return folder / "picture.html", folder / "picture.safetensors"


def describe_scene(folder: Path, seed: int) -> tuple[Path, Path]:
    """Let the model describe a held-out picture, and return the page and the trace written of it.

    Nothing in the picture stands beside its usual companion, so that what the model has learned
    misleads it.

    Args:
        folder: Where to write.
        seed: Which picture.

    Raises:
        CommandError: The weights are not there.
        TraceError: The trace cannot be written.
    """
    page, path = glimpse_paths(folder)
    subject = load_model(ModelChoice(name=_SUBJECT))
    (scene,) = glimpse.sample_scenes(1, seed, split="broken")
    asked = glimpse.describe_prompt()[0]["content"][1]["text"]
    prompt = pictured_prompt(subject, glimpse.render(scene), asked)
    answered = answer(prompt, (), Decoding(max_tokens=64))
    trace: Trace = capture(subject, answered)
    trace.save(path)
    spoken, there = said(prompt, answered), glimpse.present_objects(scene)
    wrong = sorted(set(glimpse.mentioned_objects(spoken)) - there)
    mentions = mentions_of(prompt, answered, {name: name for name in glimpse.OBJECTS})
    look = look_at(prompt, answered, (), Looking())
    drawn = {} if look is None else {"the likeliest tokens": marked(look, mentions, wrong)}
    screen().print(f"\n{_SUBJECT} on a picture that breaks what it learned", style="bold")
    screen().print(visible(spoken))
    screen().print(f"not in the picture: {', '.join(wrong) or 'none of what it names'}")
    shown = AnsweredPicture(
        name="A picture that breaks what it learned",
        picture=seen_picture(prompt),
        answers=drawn,
        note=f"In it: {', '.join(sorted(there))}.",
    )
    facts = [("model", _SUBJECT), ("prompt", asked)]
    write_picture_report(
        page, "Where a small model looks as it speaks", facts=facts, pictures=[shown]
    )
    return page, path
