"""`hearing` and `changing`: one seam per model, at which its attention is heard and changed.

Listening twice to one model would let the inner listener hide the outer one. So whoever wants to
hear or to change joins the seam that is open: first the changes, in the order in which they came,
then the listeners, who hear what the model goes on with.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attnscope.attention import KeyFunction
from attnscope.probes.adapters import ADAPTERS
from attnscope.probes.attention_call import AttentionCall, Listener, Riders

__all__ = ["Change", "changes_on", "changing", "hearing", "unchanged"]

Change = Callable[[AttentionCall], AttentionCall]
"""Takes a call and returns what is to have happened: another output, another operator, or both."""


@dataclass(slots=True, eq=False)
class _Seam:
    """Who hears and who changes one model.

    Attributes:
        names: What is said of the changes, in order.
        changes: The changes, in order.
        listeners: Who hears, with the moments that they want to ride on the model's own calls.
        paused: How many contexts want the model as it is.
        is_open: Whether the adapters listen.
    """

    names: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    listeners: list[tuple[Listener, Riders]] = field(default_factory=list)
    paused: int = 0
    is_open: bool = False

    def heard(self, call: AttentionCall) -> Tensor:
        for change in () if self.paused else self.changes:
            call = change(call)
        for listener, _ in self.listeners:
            output = listener(call)
            call = call if output is call.output else replace(call, output=output)
        return call.output

    def riders(self, module: nn.Module) -> tuple[KeyFunction, ...]:
        return tuple(rider for _, riders in self.listeners for rider in riders(module))


_SEAMS: WeakKeyDictionary[nn.Module, _Seam] = WeakKeyDictionary()


@contextmanager
def hearing(model: nn.Module, listener: Listener, riders: Riders) -> Iterator[None]:
    """Hear every attention call of a model while the context is open, after all changes."""
    seam = _seam(model)
    with ExitStack() as stack:
        _join(stack, seam.listeners, (listener, riders))
        stack.enter_context(_adapters(model, seam))
        yield


@contextmanager
def changing(
    model: nn.Module, names: Sequence[str], change: Change | None = None
) -> Iterator[None]:
    """Change what a model's attention does while the context is open.

    Args:
        model: The model.
        names: What is said of it in the provenance of traces.
        change: Applied to every attention call; None where the model is changed elsewhere.
    """
    seam = _seam(model)
    with ExitStack() as stack:
        for name in names:
            _join(stack, seam.names, name)
        if change is not None:
            _join(stack, seam.changes, change)
            stack.enter_context(_adapters(model, seam))
        yield


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Let a model's attention be as it is without any change while the context is open."""
    seam = _seam(model)
    seam.paused += 1
    try:
        yield
    finally:
        seam.paused -= 1


def changes_on(model: nn.Module) -> tuple[str, ...]:
    """Return what is said of the changes that are on at the moment."""
    seam = _seam(model)
    return () if seam.paused else tuple(seam.names)


def _seam(model: nn.Module) -> _Seam:
    return _SEAMS.setdefault(model, _Seam())


def _join(stack: ExitStack, members: list[Any], member: Any) -> None:
    members.append(member)
    stack.callback(members.remove, member)


@contextmanager
def _adapters(model: nn.Module, seam: _Seam) -> Iterator[None]:
    """Open every adapter on a model, unless that was done further out.

    Adapters listen in Python, so that what was compiled runs as it was written meanwhile.
    """
    if seam.is_open:
        yield
        return
    with ExitStack() as stack:
        stack.callback(setattr, seam, "is_open", False)
        seam.is_open = True
        if "torch._dynamo" in sys.modules:  # else nothing can have been compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for adapter in ADAPTERS:
            stack.enter_context(adapter.listening(model, seam.heard, seam.riders))
        yield
