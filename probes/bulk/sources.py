"""`read_items`: the items of a file, a folder, or a dataset of the hub."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attnscope.probes.bulk.item import BadItem, Item
from attnscope.probes.bulk.rows import item_of
from attnscope.probes.errors import CaptureError

__all__ = ["read_items"]

_TEXTS = (".txt", ".md")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_ROWS = (".jsonl", ".parquet")
_SAVED = ("state.json", "dataset_dict.json")  # what datasets.save_to_disk leaves


def read_items(source: str, split: str = "") -> Iterator[Item | BadItem]:
    """Yield the items of a dataset, and what in it is none.

    - `.jsonl`: an object in each line; `.parquet`: a row each (fields as for `item_of`)
    - `.txt`, `.md`: a file is one text; a picture's file is one picture
    - a folder of such files, all of one kind, and those of the folders in it
    - a folder that `datasets` saved, or the id of a dataset on the hub

    Args:
        source: A path, or the id of a dataset.
        split: Which part of a dataset of the library `datasets`.

    Raises:
        CaptureError: There is no such dataset, or it holds nothing that can be read.
    """
    path = Path(source).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in _SAVED):
        return _library_rows(source, split, saved=True)
    if path.exists():
        if split:
            raise CaptureError(f"{source} has no splits; only datasets of the library have")
        return _file_items(path)
    if source.startswith((".", "/", "~")) or path.suffix in (*_ROWS, *_TEXTS, *_PICTURES):
        raise CaptureError(f"there is no {source}")
    return _library_rows(source, split, saved=False)


def _file_items(path: Path) -> Iterator[Item | BadItem]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    kinds = {file.suffix.lower() for file in files if file.suffix.lower() in _READERS}
    families = {_READERS[kind] for kind in kinds}
    if len(families) != 1:
        found = f"both {' and '.join(sorted(kinds))}" if families else "nothing that can be read"
        raise CaptureError(f"{path} holds {found}; give one kind of {', '.join(sorted(_READERS))}")
    (read,) = families
    home = path.parent if path.is_file() else path
    chosen = (file for file in files if file.suffix.lower() in kinds)
    several = len(files) > 1
    return (item for file in chosen for item in read(file, _prefix(file, home, several)))


def _prefix(file: Path, home: Path, several: bool) -> str:
    return file.relative_to(home).as_posix() if several else ""


def _lines(file: Path, prefix: str) -> Iterator[Item | BadItem]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _item(lambda line=line: _parsed(line), _name(prefix, number), file)


def _parquet(file: Path, prefix: str) -> Iterator[Item | BadItem]:
    from pyarrow.parquet import ParquetFile

    number = 0
    with ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield _item(lambda row=row: row, _name(prefix, number), file)


def _text(file: Path, prefix: str) -> Iterator[Item | BadItem]:
    name = prefix or file.name
    yield _item(lambda: {"text": file.read_text("utf-8")}, name, file)


def _picture(file: Path, prefix: str) -> Iterator[Item | BadItem]:
    name = prefix or file.name
    yield _item(lambda: {"image": file.name}, name, file)


_READERS: dict[str, Callable[[Path, str], Iterator[Item | BadItem]]] = {
    ".jsonl": _lines,
    ".parquet": _parquet,
    **dict.fromkeys(_TEXTS, _text),
    **dict.fromkeys(_PICTURES, _picture),
}


def _library_rows(source: str, split: str, *, saved: bool) -> Iterator[Item | BadItem]:
    try:
        import datasets
    except ImportError as error:
        raise CaptureError(
            f"{source} is no file; a dataset of the hub needs pip install attnscope[datasets]"
        ) from error
    try:
        opened: Any = datasets.load_from_disk(source) if saved else datasets.load_dataset(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise CaptureError(f"{source!r} is no dataset that can be loaded: {error}") from error
    rows = _part(opened, source, split)
    for number in range(len(rows)):
        row = rows[number]
        yield _item(lambda row=row: row, str(number + 1), Path())


def _part(opened: Any, source: str, split: str) -> Any:
    """Return one split of what was loaded; the only one where none is named."""
    parts = opened if isinstance(opened, dict) else {str(opened.split or ""): opened}
    if not split and len(parts) == 1:
        return next(iter(parts.values()))
    if split not in parts:
        asked = f"no split {split!r}" if split else "several splits; say which"
        raise CaptureError(f"{source} has {asked}: it has {', '.join(parts)}")
    return parts[split]


def _item(read: Callable[[], dict[str, Any]], name: str, file: Path) -> Item | BadItem:
    try:
        return item_of(read(), name, file.parent)
    except (CaptureError, OSError, UnicodeDecodeError) as error:
        return BadItem(name=name, reason=str(error))


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise CaptureError("is not a JSON object")
    return row


def _name(prefix: str, number: int) -> str:
    return f"{prefix}:{number}" if prefix else str(number)
