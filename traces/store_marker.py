"""The file that says that a folder is a store, and of which version."""

import json

from attnscope.traces.errors import StoreError
from attnscope.traces.store_files import StoreFiles

__all__ = ["MARKER", "has_marker", "put_marker"]

MARKER = "attnscope-store.json"
"""Name of the file."""

_VERSION = 1


def has_marker(files: StoreFiles) -> bool:
    """Return whether these are the files of a store.

    Raises:
        StoreError: A newer attnscope made the store, or the marker says something else.
    """
    if not files.exists(MARKER):
        return False
    try:
        content = json.loads(files.read([MARKER])[0])
        version = content["version"] if content["format"] == "attnscope-store" else None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{files.path(MARKER)} does not describe a store") from error
    if not isinstance(version, int) or version > _VERSION:
        raise StoreError(
            f"{files.root} has version {version} of the layout of stores; "
            f"this attnscope reads up to {_VERSION}"
        )
    return True


def put_marker(files: StoreFiles) -> None:
    """Make these the files of a store; several writers may do so at once."""
    content = {"format": "attnscope-store", "version": _VERSION}
    files.put(MARKER, json.dumps(content).encode())
