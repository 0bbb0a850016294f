"""Vision transformers of timm, heard in the torch functions that their attention modules call."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from attnscope.probes.adapters.timm_ear import Ear, Frame
from attnscope.probes.adapters.timm_families import UNREAD, classes_in_timm, family_of
from attnscope.probes.adapters.timm_names import stacks_and_layers
from attnscope.probes.attention_call import Listener, Riders
from attnscope.probes.errors import CaptureError

__all__ = ["listening", "names"]


@contextmanager
def listening(model: nn.Module, listener: Listener, riders: Riders) -> Iterator[None]:
    """Hear every attention module of timm that is understood while the context is open.

    Modules that can call the fused kernel do so for that time, and checkpointing pauses.

    Raises:
        CaptureError: All attention of a model of timm is of a kind that is not read, a module ran
            and its attention was not heard, or what it mixes does not fit its place.
    """
    known = _attention_modules(model)
    if not known:
        _refuse_unread(model)
        yield
        return
    ear = Ear(dict(model.named_modules()), listener, riders)
    with ExitStack() as stack:
        stack.enter_context(_flags(model, known))
        stack.enter_context(_pictures(model, ear))
        entered = stack.enter_context(_shapes(model, list(known)))
        for path, module in known.items():
            stack.enter_context(_framed(ear, path, module, entered))
        stack.enter_context(ear)
        yield


def names(model: nn.Module) -> dict[nn.Module, tuple[str, int]]:
    """Return stack and layer of each attention module: blocks count within their stage."""
    return stacks_and_layers(model, _attention_modules(model))


def _attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    if "timm" not in sys.modules:
        return {}
    return {path: module for path, module in model.named_modules() if family_of(module)}


def _refuse_unread(model: nn.Module) -> None:
    """Refuse a model of timm that mixes tokens in ways that are known not to be read."""
    if not classes_in_timm(model):
        return
    for path, module in model.named_modules():
        for name in classes_in_timm(module):
            if name in UNREAD:
                raise CaptureError(
                    f"{type(model).__name__} mixes tokens in {path} ({type(module).__name__}), "
                    f"{UNREAD[name]}: there is no map of attention to capture"
                )


@contextmanager
def _pictures(model: nn.Module, ear: Ear) -> Iterator[None]:
    """Tell the ear how many pictures enter the model, and their size."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        pictures = [one.shape for one in given if one.ndim == 4 and one.is_floating_point()]
        ear.batch = len(given[0]) if given else 1
        ear.picture = (pictures[0][2], pictures[0][3]) if pictures else None

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _shapes(model: nn.Module, paths: list[str]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Keep the shape of the first tensor that enters each module above the given ones."""
    entered: dict[str, tuple[int, ...]] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = (*args, *kwargs.values())
            if given and isinstance(given[0], Tensor):
                entered[path] = tuple(given[0].shape)

        return hook

    above = {match.string[: match.start()] for path in paths for match in re.finditer(r"\.", path)}
    with ExitStack() as stack:
        for path in above:
            handle = model.get_submodule(path).register_forward_pre_hook(
                keep(path), with_kwargs=True
            )
            stack.callback(handle.remove)
        yield entered


@contextmanager
def _framed(
    ear: Ear, path: str, module: nn.Module, entered: dict[str, tuple[int, ...]]
) -> Iterator[None]:
    """Put a module on the ear's stack while it runs."""
    family = family_of(module)
    if family is None:
        raise CaptureError(f"{path} ({type(module).__name__}) is no attention module of timm")

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = (*args, *kwargs.values())
        ear.frames.append(
            Frame(path=path, module=module, family=family, arguments=given, entered=entered)
        )

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        frame = ear.frames.pop()
        if not frame.calls and output is not None:
            raise CaptureError(
                f"{path} ({type(module).__name__}) ran, and no map of it met any values; this "
                "version of timm computes its attention in a way that is not known here"
            )

    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


@contextmanager
def _flags(model: nn.Module, known: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let modules call the fused kernel where they are read best so, and run everything once.

    Checkpointed blocks, which timm runs again in every backward pass, would be heard twice.
    """
    wanted = [(module, "fused_attn", family_of(module)) for module in known.values()]
    flags = [(module, name, family.fused) for module, name, family in wanted if family]
    flags += [(module, "grad_checkpointing", False) for module in model.modules()]
    before = [(one, name, getattr(one, name)) for one, name, _ in flags if hasattr(one, name)]
    try:
        for module, name, value in flags:
            if hasattr(module, name):
                setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
