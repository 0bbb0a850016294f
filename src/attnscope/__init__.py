"""attnscope: see, measure and change what attention does.

The public door: load a model, capture its attention, measure it, keep it. Each name is imported
from its folder when it is first asked for, so that `attnscope --help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnscope.metrics import measure
    from attnscope.probes import Subject, capture, capture_each, load
    from attnscope.traces import Trace, open_trace

__version__ = "0.1.0"

__all__ = ["Subject", "Trace", "capture", "capture_each", "load", "measure", "open_trace"]

_FOLDERS = {
    "Subject": "probes",
    "Trace": "traces",
    "capture": "probes",
    "capture_each": "probes",
    "load": "probes",
    "measure": "metrics",
    "open_trace": "traces",
}


def __getattr__(name: str) -> object:
    """Import a public name from its folder."""
    if name not in _FOLDERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FOLDERS[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, those not yet imported too."""
    return [*globals(), *__all__]
