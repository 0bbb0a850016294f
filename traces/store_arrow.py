"""`compute`: the functions of pyarrow, which fill their module as it is imported."""

from importlib import import_module
from typing import Any

__all__ = ["compute", "places"]


def compute() -> Any:
    """Return the module `pyarrow.compute`, of whose functions no type checker knows."""
    return import_module("pyarrow.compute")


def places(count: int) -> Any:
    """Return the numbers from 0 on as a `pyarrow.Array`."""
    import numpy
    import pyarrow

    return pyarrow.array(numpy.arange(count, dtype="int64"))
