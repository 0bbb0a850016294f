"""What a call costs: its seconds, and the peak of the process's resident memory while it runs."""

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Observed", "observed"]

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Observed:
    """One run of a call.

    Attributes:
        seconds: Wall time.
        before: Resident size of the process before, in bytes, as the kernel counts it.
        peak: The highest meanwhile.
        result: What the call returned.
    """

    seconds: float
    before: int
    peak: int
    result: Any


def observed(call: Callable[[], Any]) -> Observed:
    """Return a call's time, peak memory and result (Linux only)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or the call would live on what earlier ones gave back
    _CLEAR.write_text("5")  # sets the high-water mark back to the present size
    before = _resident("VmRSS")
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    return Observed(seconds, before, _resident("VmHWM"), result)


def _resident(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
