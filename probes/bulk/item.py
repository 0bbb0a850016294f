"""`Item`: one input of a dataset, and by what it is known again."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from attnscope.probes.bulk.plan import Plan

__all__ = ["BadItem", "Item", "keyed"]

_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One input, as small as it travels to a worker.

    Attributes:
        name: What it is called in the dataset: its id, its line or row, its file.
        text: A text; None where there are messages, or a picture alone.
        response: The model's own words after the text.
        messages: A chat.
        images: Pictures, as the bytes of their files.
    """

    name: str
    text: str | None = None
    response: str | None = None
    messages: tuple[dict[str, Any], ...] = ()
    images: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """Return about how long it is: its characters, and the bytes of its pictures.

        Example:
            >>> Item(name="1", text="four", response="ab").size
            6
        """
        chat = sum(len(str(message.get("content", ""))) for message in self.messages)
        words = len(self.text or "") + len(self.response or "") + chat
        return words + sum(map(len, self.images))

    def digest(self) -> str:
        """Return the SHA-256 of its content; its name is no part of it."""
        images = [hashlib.sha256(image).hexdigest() for image in self.images]
        content = [self.text, self.response, list(self.messages), images]
        plain = json.dumps(content, sort_keys=True, default=str).encode()
        return hashlib.sha256(plain).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class BadItem:
    """A part of a dataset that cannot be used, and why.

    Attributes:
        name: What it is called in the dataset.
        reason: What is wrong with it.
    """

    name: str
    reason: str

    def digest(self) -> str:
        """Return the SHA-256 of both."""
        return hashlib.sha256(f"bad {self.name} {self.reason}".encode()).hexdigest()


def keyed(items: Iterable[Item | BadItem], plan: Plan) -> Iterator[tuple[str, Item | BadItem]]:
    """Yield each item with its key: the same item under the same plan has the same key again.

    The key is a hash of content and plan, and the number of equal items before it, so that items
    may be added, and stand in another order, without any of the others being captured again.

    Example:
        >>> items = [Item(name=name, text="same") for name in "ab"]
        >>> (first, _), (second, _) = keyed(items, Plan())
        >>> first[:-2] == second[:-2], first[-2:], second[-2:]
        (True, '-0', '-1')
    """
    seen: Counter[str] = Counter()
    for item in items:
        content = hashlib.sha256(f"{plan.digest()} {item.digest()}".encode()).hexdigest()[:_DIGITS]
        yield f"{content}-{seen[content]}", item
        seen[content] += 1
