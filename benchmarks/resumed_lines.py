"""Lines of JSON that a run adds one after the other, and goes on from when it is started again."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["add_line", "read_lines"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a file, without a last line that was cut off as the run was killed.

    Raises:
        ValueError: A line before the last one is no JSON.
    """
    if not path.exists():
        return []
    *whole, rest = path.read_text(encoding="utf-8").split("\n")
    if rest:  # what follows it must begin on a line of its own
        path.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
    return [json.loads(line) for line in whole if line]


def add_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry to a file, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
