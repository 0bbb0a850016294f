"""Models of transformers, those too whose attention does not go through the library's seam.

A family whose source does not name the seam, and a model that TransformerLens holds, run with the
implementation that they were given: their softmax is heard where it is computed (or, where they
call torch's fused kernel themselves, there).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from attnscope.probes.adapters import lens_attention, transformers_attention
from attnscope.probes.adapters.eager_ear import EagerEar
from attnscope.probes.adapters.eager_families import reader_of
from attnscope.probes.attention_call import Listener, Riders

__all__ = ["listening"]

_SEAM = "ALL_ATTENTION_FUNCTIONS"


@contextmanager
def listening(model: nn.Module, listener: Listener, riders: Riders) -> Iterator[None]:
    """Hear every attention of a model of transformers while the context is open."""
    readers = lens_attention.readers(model)
    own = list(model.modules()) if readers else _without_seam(model)
    given = {id(config): (config, config._attn_implementation_internal) for config in _configs(own)}
    if not readers and _is_text(model):
        kinds = {module: type(module).__name__.lower() for module in own}
        readers = {module: reader_of(module) for module in own if "attention" in kinds[module]}
    with transformers_attention.listening(model, listener, riders):
        for config, implementation in given.values():
            config._attn_implementation_internal = implementation
        if not readers:
            yield
            return
        with EagerEar(readers, listener):
            yield


def _without_seam(model: nn.Module) -> list[nn.Module]:
    """Return the modules of transformers whose source does not name the attention seam."""
    return [
        module
        for module in model.modules()
        if type(module).__module__.startswith("transformers.models.")
        and _SEAM not in vars(sys.modules[type(module).__module__])
    ]


def _configs(modules: list[nn.Module]) -> list[Any]:
    """Return the configurations that these modules hold."""
    held = [getattr(module, "config", None) for module in modules]
    return [config for config in held if hasattr(config, "_attn_implementation_internal")]


def _is_text(model: nn.Module) -> bool:
    """Return whether queries are tokens: where pictures are mixed, a map alone does not say how."""
    config: Any = getattr(model, "config", None)
    return not getattr(config, "is_encoder_decoder", False) and hasattr(config, "vocab_size")
