"""One contract for every family of vision transformers in timm.

`python -m benchmarks.timm_families` checks each on a small random model and writes the table of
probes/README.md: the captured map of every module equals the map that it makes itself with fused
kernels off, the logits under capture are what they were, and hooks, modes and flags are left alone.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnscope.attention import WindowedAttention
from attnscope.probes import CaptureError, Subject, capture
from attnscope.traces import Observation
from benchmarks.families import Outcome
from benchmarks.results import PROBES_PAGE, write_section
from benchmarks.timm_models import TIMM_FAMILIES, small

__all__ = ["check"]


def check(name: str) -> Outcome:
    """Return how far a family's captured maps are from its own, or why it is refused."""
    model, picture = small(name)
    with torch.no_grad():
        before = _tensor(model(picture))
    seen: list[Tensor] = []
    with _unchanged(model):
        handle = model.register_forward_hook(lambda module, _, output: seen.append(_tensor(output)))
        try:
            trace = capture(Subject(model), {"pixel_values": picture})
        except CaptureError as error:
            return Outcome(0, torch.nan, torch.nan, str(error))
        finally:
            handle.remove()
    maps = _own_maps(model, picture, {site.path for site in trace.sites})
    errors = [_error(model, seen_at, maps) for seen_at in trace.observations]
    logits_error = float((before - seen[0]).abs().max() / before.abs().max())
    return Outcome(len(trace.sites), max(errors), logits_error)


def _tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _error(model: nn.Module, seen_at: Observation, maps: dict[str, list[Tensor]]) -> float:
    """Return how far a captured map is from the module's own, where it has two: from their mix."""
    module: Any = model.get_submodule(seen_at.site.path)
    found = maps[seen_at.site.path]
    own = _MIXED.get(type(module).__name__, lambda module, maps: maps[0])(module, found)
    attention = seen_at.attention
    if isinstance(attention, WindowedAttention):
        captured = attention.inner.dense()
        if type(module).__module__.rpartition(".")[2] in _HEADS_FIRST:
            own = own.reshape(attention.heads, -1, *own.shape[-2:]).transpose(0, 1)
    else:
        captured = attention.dense()
    return float((captured - own.reshape(captured.shape)).abs().max())


_HEADS_FIRST = ("halo_attn", "hiera", "nest")
"""Files of timm whose modules keep heads before windows."""


def _talking(module: Any, maps: list[Tensor]) -> Tensor:
    return module.proj_w(maps[0].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _gated(module: Any, maps: list[Tensor]) -> Tensor:
    gate = torch.sigmoid(module.gating_param).view(1, -1, 1, 1)
    content, position = maps
    return (1 - gate) * content + gate * position


def _differential(module: Any, maps: list[Tensor]) -> Tensor:
    first, second = maps[0].unflatten(1, (-1, 2)).unbind(2)
    return first - module._compute_lambda() * second


def _folded(module: Any, maps: list[Tensor]) -> Tensor:
    """Return what the outlook of one picture does to each patch of a grid of 8 x 8."""
    windows = maps[0][0]  # head window slot slot
    cut = {"kernel_size": module.kernel_size, "padding": module.padding, "stride": module.stride}
    units = torch.eye(64).reshape(64, 1, 8, 8)
    slots = torch.nn.functional.unfold(units, **cut)  # unit slot window
    read = torch.einsum("hwab,ubw->huaw", windows, slots).flatten(0, 1)
    folded = torch.nn.functional.fold(read, (8, 8), **cut)
    return folded.reshape(len(windows), 64, 64).mT


_MIXED: dict[str, Callable[[Any, list[Tensor]], Tensor]] = {
    "Attention2d": lambda module, maps: getattr(module, "talking_head2", nn.Identity())(maps[0]),
    "DiffAttention": _differential,
    "DiffParallelScalingBlock": _differential,
    "GPSA": _gated,
    "OutlookAttention": _folded,
    "TalkingHeadAttn": _talking,
}
"""How modules mix what they normalized before it meets the values, by class."""


class _Softmaxes(TorchFunctionMode):
    """Keeps what every softmax of a running module returns."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: dict[str, list[Tensor]] = defaultdict(list)
        self.running: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.running and getattr(func, "__name__", "") == "softmax":
            self.maps[self.running[-1]].append(result.clone())
        return result


def _own_maps(model: nn.Module, picture: Tensor, paths: set[str]) -> dict[str, list[Tensor]]:
    """Return what the modules' own softmaxes give with fused kernels off."""
    mode = _Softmaxes()
    flags = {module: module.fused_attn for module in model.modules() if _has_flag(module)}
    with ExitStack() as stack, torch.no_grad():
        for module, flag in flags.items():
            stack.callback(setattr, module, "fused_attn", flag)
            module.fused_attn = False  # pyright: ignore[reportArgumentType] - a flag of timm's
        for path in paths:
            module = model.get_submodule(path)
            enter = module.register_forward_pre_hook(_pushing(mode.running, path))
            leave = module.register_forward_hook(lambda *_: mode.running.pop() and None)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(mode)
        model(picture)
    return mode.maps


def _pushing(running: list[str], path: str) -> Callable[..., None]:
    def push(*_: Any) -> None:
        running.append(path)

    return push


def _has_flag(module: nn.Module) -> bool:
    return hasattr(module, "fused_attn")


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    def state() -> list[Any]:
        hooks = [len(one._forward_pre_hooks) + len(one._forward_hooks) for one in model.modules()]
        flags = [getattr(one, "fused_attn", None) for one in model.modules()]
        return [hooks, flags, [one.training for one in model.modules()]]

    before = state()
    yield
    if state() != before:
        raise CaptureError("a capture left something of itself in the model")


def main() -> None:
    """Write the table of timm's families."""
    lines = [
        "| family of timm | sites | largest error of a map | of a logit, relative | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in TIMM_FAMILIES:
        outcome = check(name)
        if outcome.refusal:
            lines.append(f"| {name} | | | | refused: {_reason(outcome.refusal)} |")
        else:
            errors = f"{outcome.error:.0e} | {outcome.logits_error:.0e}"
            lines.append(f"| {name} | {outcome.sites} | {errors} | works |")
    write_section("timm families", "\n".join(lines), PROBES_PAGE)


def _reason(refusal: str) -> str:
    """Return the middle of a refusal: what the model does instead."""
    told = refusal.partition("), ")[2] or refusal.partition("(")[2].partition(")")[0]
    return told.partition(":")[0]


if __name__ == "__main__":
    main()
