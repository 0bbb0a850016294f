"""`read_prompts`: the lines of a `.jsonl` file as what a model is to be given."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnscope.app.failures import CommandError

__all__ = ["BadLine", "Prompt", "read_prompts"]

_FILE_NAME = re.compile(r"\w[\w .,+=@()#-]{0,150}")
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is to be given.

    Attributes:
        name: Name of the file that the trace is written to, without its ending.
        inputs: A text, or the messages of a chat.
        response: The model's own words after a text.
        line: Line of the file, from 1; 0 where there is no file.
    """

    name: str
    inputs: str | list[dict[str, Any]]
    response: str | None = None
    line: int = 0

    @property
    def is_answered(self) -> bool:
        """Return whether the model's own words are given."""
        if isinstance(self.inputs, str):
            return self.response is not None
        return self.inputs[-1].get("role") == "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that cannot be used, and why.

    Attributes:
        line: Its number, from 1.
        reason: What is wrong with it.
    """

    line: int
    reason: str


def read_prompts(path: Path) -> tuple[list[Prompt], list[BadLine]]:
    """Return the prompts of a file, and its bad lines; empty lines are neither.

    Raises:
        CommandError: The file holds no line.
    """
    prompts: list[Prompt] = []
    bad: list[BadLine] = []
    taken: dict[str, int] = {}
    with path.open("rb") as stream:
        for line, content in enumerate(stream, start=1):
            if not content.strip():
                continue
            try:
                prompt = _prompt(content, line)
                if prompt.name in taken:
                    raise CommandError(
                        f"id {prompt.name!r} is that of line {taken[prompt.name]}, too"
                    )
            except CommandError as error:
                bad.append(BadLine(line=line, reason=str(error)))
                continue
            taken[prompt.name] = line
            prompts.append(prompt)
    if not prompts and not bad:
        raise CommandError(f"{path} holds no line")
    return prompts, bad


def _prompt(content: bytes, line: int) -> Prompt:
    fields = _parsed(content)
    name = _name(fields.get("id", line))
    if ("text" in fields) == ("messages" in fields):
        raise CommandError(f"has to have a text or messages, one of them; it has {sorted(fields)}")
    if "text" in fields:
        response = fields.get("response")
        text = _text(fields["text"], "text")
        answer = None if response is None else _text(response, "response")
        return Prompt(name=name, inputs=text, response=answer, line=line)
    if "response" in fields:
        raise CommandError("has a response beside messages; put it into a last assistant message")
    return Prompt(name=name, inputs=_messages(fields["messages"]), line=line)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(content)
    except UnicodeDecodeError as error:
        raise CommandError("is not UTF-8 text") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise CommandError(f"is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise CommandError(f"is not a JSON object: {_shown(fields)}")
    return fields


def _name(given: object) -> str:
    """Return an id as the name of a file, which cannot lead out of its folder."""
    name = str(given)
    plain = isinstance(given, str | int) and not isinstance(given, bool)
    if not plain or not _FILE_NAME.fullmatch(name):
        raise CommandError(f"has the id {_shown(given)}, which cannot name a file")
    return name


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise CommandError(f"has a {field} that is no text: {_shown(value)}")
    return value


def _messages(value: object) -> list[dict[str, Any]]:
    messages = value if isinstance(value, list) else []
    if not messages or not all(map(_is_message, messages)):
        raise CommandError(f"has messages that are no list of role and content: {_shown(value)}")
    return messages


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and {"role", "content"} <= set(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
