"""Which stack and layer of a trace each attention module of a timm model is."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import groupby

from torch import nn

__all__ = ["stacks_and_layers"]


def stacks_and_layers(
    model: nn.Module, modules: Mapping[str, nn.Module]
) -> dict[nn.Module, tuple[str, int]]:
    """Return stack and layer of each attention module: blocks count within their stage.

    A stack holds one kind of attention with one number of heads. A row of blocks whose number of
    heads changes on its way (Hiera) is told apart into stages; one in which kinds alternate or
    follow each other (Twins, ConViT, the windows and whole grids of SAM) into a stack for each.

    Args:
        model: The model.
        modules: Its attention modules, by path.
    """
    rows: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for path in modules:
        row, layer = _row_of(path, model)
        rows[row].append((layer, path))
    found: dict[nn.Module, tuple[str, int]] = {}
    for row, members in rows.items():
        runs = [list(run) for _, run in groupby(members, lambda one: _heads(modules[one[1]]))]
        for number, run in enumerate(runs):
            staged = len(runs) > 1
            labels = _labels({path: _kind(path, model) for _, path in run})
            for place, (layer, path) in enumerate(run):
                stack = f"stages.{number}.{row}" if staged else row
                found[modules[path]] = stack + labels[path], place if staged else layer
    return found


def _row_of(path: str, model: nn.Module) -> tuple[str, int]:
    """Return a path without the number that counts its layers, and that number.

    It is the last one that counts neither stages nor blocks of different classes.
    """
    parts = path.split(".")
    counting = [
        place
        for place in range(1, len(parts))
        if parts[place].isdigit() and parts[place - 1] != "stages"
    ]
    if len(counting) > 1 and _classes(model.get_submodule(".".join(parts[: counting[-1]]))) > 1:
        counting.pop()
    if not counting:
        return path, 0
    place = counting[-1]
    return ".".join(parts[:place] + parts[place + 1 :]), int(parts[place])


def _classes(row: nn.Module) -> int:
    return len({type(block) for block in row.children()})


def _heads(module: nn.Module) -> object:
    return getattr(module, "num_heads", getattr(module, "heads", None))


def _kind(path: str, model: nn.Module) -> tuple[str, str]:
    """Return the class of a module, and whether its block cuts windows."""
    block = model.get_submodule(path.rpartition(".")[0])
    size = getattr(block, "window_size", 0)
    cuts = any(size) if isinstance(size, tuple | list) else bool(size)
    return type(model.get_submodule(path)).__name__, "windows" if cuts else "whole"


def _labels(kinds: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return what to add to the name of a stack, by path: those words in which its blocks differ.

    Example:
        >>> _labels({"0": ("Attention", "windows"), "1": ("Attention", "whole")})
        {'0': '.windows', '1': '.whole'}
    """
    telling = [len(set(words)) > 1 for words in zip(*kinds.values(), strict=True)]
    return {
        path: "".join(f".{word}" for word, tells in zip(kind, telling, strict=True) if tells)
        for path, kind in kinds.items()
    }
