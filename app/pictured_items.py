"""Pictures that a model is to describe, with what is known of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnscope.app.failures import CommandError
from attnscope.app.prompts import BadLine

__all__ = ["PicturedItem", "PollQuestion", "glimpse_items", "read_dataset", "read_folder"]

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_KEYS = {"image", "objects", "questions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PollQuestion:
    """A question that is rightly answered by yes or no.

    Attributes:
        text: The question.
        answer: `yes` or `no`.
    """

    text: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturedItem:
    """A picture, and what is known of it.

    Attributes:
        name: How it is called in tables.
        picture: Its file, or the picture itself.
        objects: What is in it; None where that is not known.
        questions: What is asked about it besides its description.
    """

    name: str
    picture: Any
    objects: frozenset[str] | None = None
    questions: tuple[PollQuestion, ...] = ()

    def open(self) -> Any:
        """Return the picture in red, green and blue.

        Raises:
            CommandError: The file is no picture, or is not there.
        """
        from PIL import Image, UnidentifiedImageError

        if not isinstance(self.picture, Path):
            return self.picture.convert("RGB")
        try:
            with Image.open(self.picture) as opened:
                return opened.convert("RGB")
        except UnidentifiedImageError as error:
            raise CommandError(f"{self.picture} is no picture that can be read") from error
        except (OSError, ValueError) as error:
            raise CommandError(f"{self.picture} cannot be read as a picture: {error}") from error


def read_folder(
    folder: Path, objects: Mapping[str, frozenset[str]] | None = None
) -> list[PicturedItem]:
    """Return the pictures of a folder in order of their names.

    Args:
        folder: Where they are.
        objects: What is in each, by file name; pictures without an entry are left out.

    Raises:
        CommandError: This is no folder, or there is no such picture in it.
    """
    if not folder.is_dir():
        raise CommandError(f"no folder {str(folder)!r} of pictures")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
    if not paths:
        raise CommandError(f"{folder} holds no picture; they end in {', '.join(_PICTURES)}")
    if objects is None:
        return [PicturedItem(name=path.name, picture=path) for path in paths]
    known = [
        PicturedItem(name=path.name, picture=path, objects=objects[path.name])
        for path in paths
        if path.name in objects
    ]
    if not known:
        raise CommandError(
            f"none of the {len(paths)} pictures of {folder} ({paths[0].name}, ...) is among the "
            f"{len(objects)} annotated ones ({next(iter(objects), 'none')}, ...)"
        )
    return known


def read_dataset(file: Path) -> tuple[list[PicturedItem], list[BadLine]]:
    """Return the items of a `.jsonl` file, and its bad lines; empty lines are neither.

    A line is `{"image": "path, from the file's folder", "objects": ["dog"], "questions":
    [{"text": "Is there a cat?", "answer": "no"}]}`; all but the image may be missing.

    Raises:
        CommandError: The file holds no line.
    """
    items: list[PicturedItem] = []
    bad: list[BadLine] = []
    for line, content in enumerate(file.read_bytes().splitlines(), start=1):
        if not content.strip():
            continue
        try:
            items.append(_item(content, file.parent))
        except CommandError as error:
            bad.append(BadLine(line=line, reason=str(error)))
    if not items and not bad:
        raise CommandError(f"{file} holds no line")
    return items, bad


def glimpse_items(count: int, seed: int) -> list[PicturedItem]:
    """Return held-out scenes of the shipped model, every second one breaking what it learned.

    Each has the six questions of POPE's adversarial poll.
    """
    from attnscope.models.subjects import glimpse

    kept, broken = (
        glimpse.sample_scenes((count + 1) // 2, seed, split=split) for split in ("test", "broken")
    )
    scenes = [scene for pair in zip(kept, broken, strict=True) for scene in pair][:count]
    polls = glimpse.pope_questions(scenes, "adversarial")
    return [
        PicturedItem(
            name=f"scene {number + 1}",
            picture=glimpse.render(scene),
            objects=glimpse.present_objects(scene),
            questions=tuple(
                PollQuestion(text=poll.text, answer=poll.answer)
                for poll in polls
                if poll.scene == number
            ),
        )
        for number, scene in enumerate(scenes)
    ]


def _item(content: bytes, folder: Path) -> PicturedItem:
    try:
        entry = json.loads(content)
    except ValueError as error:
        raise CommandError(f"this is no JSON: {error}") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise CommandError('a line is an object with an "image", the path of a picture')
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise CommandError(f"no key {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
    objects = entry.get("objects")
    if objects is not None and not _is_texts(objects):
        raise CommandError(f'"objects" is a list of names; got {objects!r}')
    questions = entry.get("questions", [])
    if not isinstance(questions, list):
        raise CommandError(f'"questions" is a list; got {questions!r}')
    return PicturedItem(
        name=entry["image"],
        picture=folder / entry["image"],
        objects=None if objects is None else frozenset(objects),
        questions=tuple(map(_question, questions)),
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _question(entry: Any) -> PollQuestion:
    if (
        not isinstance(entry, dict)
        or set(entry) != {"text", "answer"}
        or not isinstance(entry["text"], str)
        or entry["answer"] not in ("yes", "no")
    ):
        raise CommandError(
            f'a question is {{"text": "Is there a dog?", "answer": "yes"}} or "no"; got {entry!r}'
        )
    return PollQuestion(text=entry["text"], answer=entry["answer"])
