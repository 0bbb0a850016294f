"""`pictured_prompt` and `answer`: one picture, one question, and what a model says to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnscope.app.failures import CommandError, one_line
from attnscope.interventions import Intervention, intervening
from attnscope.probes import Encoded, Subject

__all__ = [
    "Decoding",
    "PicturedPrompt",
    "answer",
    "check_fits",
    "check_pictured",
    "pictured_prompt",
    "said",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturedPrompt:
    """A picture and a question, ready for a model.

    Attributes:
        subject: The model.
        picture: The picture.
        question: The question.
        encoded: What the model is given.
    """

    subject: Subject
    picture: Any
    question: str
    encoded: Encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are decoded.

    Attributes:
        max_tokens: Most tokens of an answer.
        samples: Draw tokens, in place of the likeliest.
        seed: Seed of the draws, the same for each answer.
    """

    max_tokens: int = 128
    samples: bool = False
    seed: int = 0


def check_pictured(subject: Subject) -> None:
    """Refuse a model that reads no pictures, and a processor that makes none for it.

    Raises:
        CommandError: What is missing, or where the two disagree.
    """
    config = getattr(subject.model, "config", None)
    kind = f"{subject.name} ({type(subject.model).__name__})"
    token = _image_token(config)
    if token is None:
        raise CommandError(
            f"{kind} reads no pictures: its configuration knows no image token; give a "
            "vision-language model, as the shipped glimpse"
        )
    if not callable(getattr(subject.model, "generate", None)):
        raise CommandError(f"{kind} has no generate(): it cannot describe a picture")
    if getattr(subject.processor, "image_processor", None) is None:
        given = "nothing" if subject.processor is None else type(subject.processor).__name__
        raise CommandError(
            f"{kind} reads pictures, but a processor that prepares them is not beside it; "
            f"there is {given}"
        )
    theirs = getattr(subject.processor, "image_token_id", None)
    if theirs is not None and theirs != token:
        raise CommandError(
            f"{kind} takes token {token} for a picture, and its processor "
            f"({type(subject.processor).__name__}) writes token {theirs}: they do not belong "
            "together"
        )


def pictured_prompt(subject: Subject, picture: Any, question: str) -> PicturedPrompt:
    """Return a picture and a question as the start of a chat, or of a text without a template.

    Raises:
        CommandError: The processor puts no picture into the prompt, or writes a token that the
            model does not know.
        CaptureError: The processor makes nothing of the picture.
    """
    encoded = subject.encode(_chat_text(subject, question), images=[picture])
    sequence = encoded.sequences[encoded.main_sequence]
    if "image" not in sequence.segments:
        raise CommandError(
            f"the processor of {subject.name} put no image token into the prompt: none of its "
            f"{len(sequence)} tokens is {_image_token(getattr(subject.model, 'config', None))}"
        )
    rows = _vocabulary(subject)
    largest = max(sequence.ids or (0,))
    if rows is not None and largest >= rows:
        raise CommandError(
            f"the processor of {subject.name} writes token {largest}; the model has {rows}"
        )
    return PicturedPrompt(subject=subject, picture=picture, question=question, encoded=encoded)


def check_fits(prompt: PicturedPrompt) -> None:
    """Refuse a processor whose pictures the model does not take, by one forward pass.

    Raises:
        CommandError: What was given, and what the model says to it.
    """
    subject, encoded = prompt.subject, prompt.encoded
    model: Any = subject.model
    tensors = {name: value.to(subject.device) for name, value in encoded.model_inputs.items()}
    try:
        with torch.no_grad():
            model(**tensors)
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        tokens = len(encoded.sequences[encoded.main_sequence].segments["image"])
        shapes = {name: tuple(tensor.shape) for name, tensor in encoded.model_inputs.items()}
        raise CommandError(
            f"{subject.name} does not take what its processor makes of a picture: {tokens} image "
            f"tokens, {shapes}; the model says: {one_line(error)}"
        ) from error


def answer(
    prompt: PicturedPrompt, interventions: Sequence[Intervention], decoding: Decoding
) -> Encoded:
    """Return prompt and answer, decoded under some interventions.

    Raises:
        InterventionError: A method does not fit the model.
        CaptureError: The model says nothing at all.
    """
    torch.manual_seed(decoding.seed)
    options = {"max_new_tokens": decoding.max_tokens, "do_sample": decoding.samples}
    with intervening(prompt.subject, *interventions, encoded=prompt.encoded):
        return prompt.subject.generate(prompt.encoded, **options)


def said(prompt: PicturedPrompt, answered: Encoded) -> str:
    """Return the words of an answer."""
    length = len(prompt.encoded)
    ids: Tensor = answered.model_inputs["input_ids"][0, length:]
    return prompt.subject.tokenizer.decode(ids, skip_special_tokens=True).strip()


def _chat_text(subject: Subject, question: str) -> str:
    processor = subject.processor
    if getattr(processor, "chat_template", None) is not None:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    token = getattr(processor, "image_token", None)
    if token is None:
        raise CommandError(
            f"the processor of {subject.name} ({type(processor).__name__}) has neither a chat "
            "template nor an image token, so that no prompt with a picture can be written"
        )
    return f"{token}\n{question}"


def _image_token(config: Any) -> int | None:
    token = getattr(config, "image_token_id", None)
    return getattr(config, "image_token_index", None) if token is None else token


def _vocabulary(subject: Subject) -> int | None:
    get: Any = getattr(subject.model, "get_input_embeddings", None)
    embedding = get() if callable(get) else None
    return getattr(embedding, "num_embeddings", None)
