"""`asked_prompt`: what a live model is asked, made of plain facts that a page can compare."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch

from attnscope.app.failures import CommandError, one_line
from attnscope.app.live_models import longest_input, shared_subject
from attnscope.app.pictured_answers import PicturedPrompt, check_pictured, pictured_prompt
from attnscope.models.subjects import glimpse
from attnscope.probes import Encoded, Subject
from attnscope.traces import Trace

__all__ = [
    "PRIORS",
    "PromptRequest",
    "asked_prompt",
    "opened_picture",
    "prompt_ids",
    "scene_of",
    "sees_pictures",
]

PRIORS = {"broken": "broken", "kept": "test"}
"""The kinds of held-out scenes, by whether they keep what glimpse has learned."""

_LARGEST_PICTURE = 32_000_000  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRequest:
    """What a model is asked.

    Attributes:
        model: One of the live models.
        text: The text, or the question on the picture.
        chat: Whether the text is a message in a chat, in the model's own template.
        ids: Token ids in place of a text: the prompt of a trace.
        scene: Which scene of glimpse is seen, by its seed; None for another picture or none.
        prior: `broken` or `kept`: whether the scene breaks the prior or keeps it.
        picture: The file of an uploaded picture; None for none.
    """

    model: str
    text: str = ""
    chat: bool = False
    ids: tuple[int, ...] = ()
    scene: int | None = None
    prior: str = "broken"
    picture: bytes | None = None


def asked_prompt(request: PromptRequest) -> PicturedPrompt:
    """Return the prompt as its model is given it; without a picture, `picture` is None.

    Raises:
        CommandError: There is no text, no such model, or the picture is none.
        CaptureError: Model and input do not fit.
    """
    subject = shared_subject(request.model)
    if subject.speaks_by_decoder:
        raise CommandError(
            f"{subject.name} reads with an encoder; answers of models with a decoder alone are "
            "compared here"
        )
    if request.ids:
        encoded = subject.encode({"input_ids": torch.tensor([request.ids])})
        prompt = PicturedPrompt(subject=subject, picture=None, question="", encoded=encoded)
    elif not request.text.strip():
        raise CommandError("the text is empty")
    elif request.scene is not None or request.picture is not None:
        prompt = pictured_prompt(subject, _picture(request), request.text)
    else:
        encoded = _written(subject, request)
        prompt = PicturedPrompt(
            subject=subject, picture=None, question=request.text, encoded=encoded
        )
    most = longest_input(subject)
    if len(prompt.encoded) > most:
        raise CommandError(
            f"the prompt is {len(prompt.encoded):,} tokens long; at most {most:,} are taken here"
        )
    return prompt


def sees_pictures(subject: Subject) -> bool:
    """Return whether a model reads pictures, with all that prepares them."""
    try:
        check_pictured(subject)
    except CommandError:
        return False
    return True


def scene_of(seed: int, prior: str) -> glimpse.Scene:
    """Return a held-out scene of glimpse.

    Raises:
        CommandError: There is no such kind of scene.
    """
    if prior not in PRIORS:
        raise CommandError(f"no scenes whose prior is {prior!r}; it is {' or '.join(PRIORS)}")
    (scene,) = glimpse.sample_scenes(1, seed, split=PRIORS[prior])
    return scene


def prompt_ids(trace: Trace) -> tuple[int, ...]:
    """Return the token ids of a trace before its response; none if it saw or said something else.

    A picture is not in a trace, so that what was asked about one cannot be asked again.
    """
    sequence = trace.sequences[trace.main_sequence]
    names = sequence.segments.names
    if sequence.ids is None or "response" not in names or "image" in names:
        return ()
    return tuple(sequence.ids[: sequence.segments["response"][0]])


def _picture(request: PromptRequest) -> Any:
    if request.scene is not None:
        return glimpse.render(scene_of(request.scene, request.prior))
    return opened_picture(request.picture or b"")


def opened_picture(content: bytes) -> Any:
    """Return an uploaded picture.

    Raises:
        CommandError: It is none, or too large.
    """
    from PIL import Image

    try:
        picture = Image.open(BytesIO(content))
        width, height = picture.size
        if width * height <= _LARGEST_PICTURE:
            return picture.convert("RGB")
    except Exception as error:  # of a damaged file a decoder may say anything
        raise CommandError(f"the file is no picture that can be read: {one_line(error)}") from error
    raise CommandError(
        f"the picture has {width:,} x {height:,} pixels; at most {_LARGEST_PICTURE:,} are taken "
        "here"
    )


def _written(subject: Subject, request: PromptRequest) -> Encoded:
    if not request.chat:
        return subject.encode(request.text)
    tokenizer = subject.tokenizer
    if getattr(tokenizer, "chat_template", None) is None:
        raise CommandError(f"{subject.name} has no chat template; ask it a text")
    message = [{"role": "user", "content": request.text}]
    made = tokenizer.apply_chat_template(
        message, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    return subject.encode(dict(made))
