"""Any module that asks torch itself for fused or multi-head attention, whatever its library."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType

import torch
from torch import nn

from attnscope.probes.adapters.mixing_attention import layer_by_last_number
from attnscope.probes.adapters.torch_ear import FusedEar
from attnscope.probes.attention_call import Listener, Riders
from attnscope.probes.module_paths import module_paths

__all__ = ["listening", "names"]


@contextmanager
def listening(model: nn.Module, listener: Listener, riders: Riders) -> Iterator[None]:
    """Hear every fused attention of a model while the context is open.

    An ear costs every call of torch some microseconds, so that a model none of whose modules could
    ask for attention is left alone. The fast path of torch's own transformer layers, which skips
    Python, is off for that time. Ears that are opened later hear first, and what they hear does
    not get here.

    Raises:
        CaptureError: A module drops attention in evaluation mode, or reads nested tensors.
    """
    if not any(_may_ask(kind) for kind in {type(module) for module in model.modules()}):
        yield
        return
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FusedEar(module_paths(model), listener, riders):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def names(model: nn.Module) -> dict[nn.Module, tuple[str, int]]:
    """Return names for what paths do not name: a model that is attention itself, named layers.

    Layers in an ordered row may be called `block_0`, `block_1`, ...: their number is the layer. In
    the stages of a diffusion network, whose maps differ in size, blocks count within their stage.
    """
    found = {model: (type(model).__name__, 0)}
    for path, module in model.named_modules():
        if type(module).__module__.startswith("diffusers.") and _DIGITS.search(path):
            found[module] = layer_by_last_number(path)
    for path, row in model.named_modules():
        layers = [_NUMBERED.fullmatch(name) for name, _ in row.named_children()]
        if not isinstance(row, nn.Sequential | nn.ModuleDict) or _DIGITS.search(path):
            continue
        for layer in layers:
            if layer is not None:
                _name_layer(row, path, layer, found)
    return found


def _may_ask(kind: type[nn.Module]) -> bool:
    """Return whether modules of a class may ask torch for attention; of strangers any may."""
    library = kind.__module__.partition(".")[0]
    if library == "torch":
        return issubclass(kind, nn.MultiheadAttention)
    return library != "transformers" or _names_the_kernel(kind.__module__)


@cache
def _names_the_kernel(source: str) -> bool:
    """Return whether a function or method of a source file names the fused kernel."""
    held = list(vars(sys.modules[source]).values())
    kinds = [one for one in held if isinstance(one, type) and one.__module__ == source]
    functions = [*held, *(method for kind in kinds for method in vars(kind).values())]
    codes = [function.__code__ for function in functions if isinstance(function, FunctionType)]
    return any("scaled_dot_product_attention" in code.co_names for code in codes)


_NUMBERED = re.compile(r"(\w+_)(\d+)")
_DIGITS = re.compile(r"(^|\.)\d+(\.|$)")


def _name_layer(
    row: nn.Module, path: str, layer: re.Match[str], into: dict[nn.Module, tuple[str, int]]
) -> None:
    stem = f"{path}.{layer[1].rstrip('_')}".strip(".")
    for inner, module in row.get_submodule(layer[0]).named_modules():
        if not _DIGITS.search(inner):
            into[module] = f"{stem}.{inner}".strip("."), int(layer[2])
