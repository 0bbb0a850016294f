"""`item_of`: a row of a dataset as an item."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from attnscope.probes.bulk.item import Item
from attnscope.probes.errors import CaptureError

__all__ = ["item_of"]

_SHOWN = 60


def item_of(row: Mapping[str, Any], name: str, folder: Path | None = None) -> Item:
    """Return the item that a row of a dataset is.

    A row has a `text` (and a `response`) or `messages`, and may have an `image` or `images`: paths,
    bytes, or pictures; a picture may stand alone. `id` is its name.

    Args:
        row: The fields of the row.
        name: What it is called where it has no id.
        folder: Where the paths of its pictures begin.

    Raises:
        CaptureError: The row is none of these.
    """
    given = {field: value for field, value in row.items() if value is not None}
    images = tuple(_image_bytes(image, folder) for image in _images(given))
    own = str(given.get("id", name))
    if "messages" in given:
        if "text" in given or "response" in given:
            raise CaptureError("has messages beside a text or response; give one of them")
        return Item(name=own, messages=_messages(given["messages"]), images=images)
    if "text" not in given and not images:
        raise CaptureError(
            f"has no text, messages or image; it has {', '.join(map(str, row)) or 'nothing'}"
        )
    text = _text(given["text"], "text") if "text" in given else None
    response = _text(given["response"], "response") if "response" in given else None
    return Item(name=own, text=text, response=response, images=images)


def _images(row: Mapping[str, Any]) -> list[Any]:
    several = row.get("images", ())
    return [*([row["image"]] if "image" in row else []), *several]


def _image_bytes(image: Any, folder: Path | None) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str):
        return (Path(image) if folder is None else folder / image).read_bytes()
    if isinstance(image, Mapping):  # as datasets and their Parquet files keep pictures
        held = image.get("bytes")
        return held if held else _image_bytes(image.get("path"), folder)
    if callable(getattr(image, "save", None)):
        buffer = BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()
    raise CaptureError(f"has an image that is none: {_shown(image)}")


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise CaptureError(f"has a {field} that is no text: {_shown(value)}")
    return value


def _messages(value: Any) -> tuple[dict[str, Any], ...]:
    messages = list(value) if isinstance(value, list | tuple) else []
    if not messages or not all(
        isinstance(message, Mapping) and {"role", "content"} <= set(message) for message in messages
    ):
        raise CaptureError(f"has messages that are no list of role and content: {_shown(value)}")
    return tuple(dict(message) for message in messages)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
