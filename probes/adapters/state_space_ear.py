"""`ScanEar`: hears a recurrence where a module calls the function that computes it."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from threading import Lock
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from attnscope.probes.adapters.state_space_scans import SCANS
from attnscope.probes.attention_call import Listener
from attnscope.probes.errors import CaptureError

__all__ = ["ScanEar", "scan_of"]

Seam = tuple[ModuleType, str]
"""A source file and the name under which its modules call a recurrence."""


@cache
def scan_of(kind: type[nn.Module]) -> Seam | None:
    """Return where modules of a class call a recurrence that is known, None where they call none.

    Whatever computes it, a fused kernel or plain torch, stands under that name.
    """
    for base in kind.__mro__:
        source = sys.modules.get(base.__module__)
        methods = [inspect.unwrap(method) for method in vars(base).values() if callable(method)]
        codes = [method.__code__ for method in methods if inspect.isfunction(method)]
        for name in SCANS:
            if hasattr(source, name) and any(name in code.co_names for code in codes):
                return (source, name) if isinstance(source, ModuleType) else None
    return None


class ScanEar:
    """Hears the recurrences of some modules and hands their outputs to a listener.

    Args:
        seams: The modules, with where each calls its recurrence.
        listener: Takes each call and returns the output that the model goes on with.
    """

    def __init__(self, seams: Mapping[nn.Module, Seam], listener: Listener) -> None:
        self.modules, self._listener = dict(seams), listener
        self._heard: dict[nn.Module, int] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hear while the context is open."""
        with ExitStack() as stack:
            for module in self.modules:
                before = module.register_forward_pre_hook(self._begin)
                stack.callback(before.remove)
                after = module.register_forward_hook(self._end)
                stack.callback(after.remove)
            for seam in set(self.modules.values()):
                stack.enter_context(_open_seam(seam, self))
            yield

    def hear(
        self, module: nn.Module, name: str, function: Callable[..., Any], given: Mapping[str, Any]
    ) -> Any:
        """Run a recurrence and return its result, with the output that the listener gave back."""
        self._heard[module] = self._heard.get(module, 0) + 1
        return SCANS[name](module, self._listener, function, dict(given))

    def _begin(self, module: nn.Module, args: Any) -> None:
        self._heard[module] = 0

    def _end(self, module: nn.Module, args: Any, output: Tensor) -> None:
        count = self._heard.get(module, 0)
        if count != 1:
            kind = type(module).__name__
            raise CaptureError(
                f"a {kind} ran its recurrence {count} times in one pass, where it can be heard once"
                ": a kernel that holds the whole layer, a single step from a cache, and several "
                "scans side by side are not heard. Run whole sequences, in evaluation mode, with "
                "the library's own functions (without use_kernels)"
            )


_LOCK = Lock()
_EARS: dict[Seam, list[ScanEar]] = {}
_OWN: dict[Seam, Callable[..., Any]] = {}


@contextmanager
def _open_seam(seam: Seam, ear: ScanEar) -> Iterator[None]:
    """Let an ear hear the calls of a function; the first puts itself there, the last takes it off.

    Captures in several threads share one source file, and may end in any order.
    """
    source, name = seam
    with _LOCK:
        if not _EARS.setdefault(seam, []):
            _OWN[seam] = getattr(source, name)
            setattr(source, name, _heard(seam, _OWN[seam]))
        _EARS[seam].append(ear)
    try:
        yield
    finally:
        with _LOCK:
            _EARS[seam].remove(ear)
            if not _EARS[seam]:
                setattr(source, name, _OWN.pop(seam))
                del _EARS[seam]


def _heard(seam: Seam, function: Callable[..., Any]) -> Callable[..., Any]:
    # A function that may be exchanged for a kernel of the hub is a module around it.
    own = function.forward if isinstance(function, nn.Module) else function
    signature = inspect.signature(own)

    @wraps(function)
    def hearing(*args: Any, **kwargs: Any) -> Any:
        for ear in [*_EARS.get(seam, ())]:
            module = _caller(ear.modules)
            if module is not None:
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                given = dict(bound.arguments)
                return ear.hear(module, seam[1], function, given | given.pop("kwargs", {}))
        return function(*args, **kwargs)

    return hearing


def _caller(modules: Mapping[nn.Module, Seam]) -> nn.Module | None:
    """Return the module, of those that are heard, whose forward calls."""
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and owner in modules:
            return owner
        frame = frame.f_back
    return None
