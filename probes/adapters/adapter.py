"""`Adapter`: how the attention of one kind of model is heard."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import nn

from attnscope.probes.attention_call import Listener, Riders

__all__ = ["Adapter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """How the attention of one kind of model is heard.

    Attributes:
        listening: `listening(model, listener, riders)`, a context in which every attention call
            goes through the listener. It hears nothing in a model of another kind, costs nothing
            then, and on every exit leaves the model as it was.
        names: `(stack, layer)` of modules whose path does not tell them by its first number.
    """

    listening: Callable[[nn.Module, Listener, Riders], AbstractContextManager[None]]
    names: Callable[[nn.Module], Mapping[nn.Module, tuple[str, int]]]
