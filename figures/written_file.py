"""`write_file`: a file that appears complete or not at all."""

import os
import secrets
from pathlib import Path

__all__ = ["write_file"]


def write_file(path: Path, content: bytes) -> Path:
    """Write a file beside its place, sync it, move it there, and return its path.

    What the path held before stays readable until then; nothing is left behind when writing fails.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return path
