"""Models of this project and any other that applies operators through `Mixing` modules."""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from attnscope.attention import Mixing
from attnscope.probes.attention_call import AttentionCall, Listener, Riders

__all__ = ["layer_by_last_number", "listening", "names"]

_SIGNATURE = inspect.signature(Mixing.forward)


@contextmanager
def listening(model: nn.Module, listener: Listener, riders: Riders) -> Iterator[None]:
    """Hear every `Mixing` module while the context is open; it is handed the operator itself."""

    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor:
        given = _SIGNATURE.bind(module, *args, **kwargs).arguments
        attention, grid = given["attention"], _sizes(given.get("grid"))
        same = attention.keys == attention.queries
        return listener(
            AttentionCall(
                module=module,
                attention=attention,
                value=given["values"],
                output=output,
                laid_out=True,
                grid=grid,
                key_grid=_sizes(given.get("key_grid")) or (grid if same else None),
                library="attnscope",
                computation="the model itself",
            )
        )

    with ExitStack() as stack:
        for module in _mixings(model).values():
            handle = module.register_forward_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def names(model: nn.Module) -> dict[nn.Module, tuple[str, int]]:
    """Return stack and layer of each `Mixing`: blocks count within their stage."""
    return {module: layer_by_last_number(path) for path, module in _mixings(model).items()}


def layer_by_last_number(path: str) -> tuple[str, int]:
    """Return the stack and the layer of a module path whose last number counts the layers.

    Example:
        >>> layer_by_last_number("stages.1.4.attention.mixing")
        ('stages.1.attention.mixing', 4)
    """
    parts = path.split(".")
    places = [place for place, part in enumerate(parts) if part.isdigit()]
    if not places:
        return path, 0
    place = places[-1]
    return ".".join(parts[:place] + parts[place + 1 :]), int(parts[place])


def _mixings(model: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in model.named_modules() if isinstance(module, Mixing)}


def _sizes(grid: Any) -> tuple[int, ...] | None:
    return None if grid is None else tuple(int(size) for size in grid)
