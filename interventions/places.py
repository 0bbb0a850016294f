"""`Places`: which attention module of a model stands at which layer of which stack."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from attnscope.interventions.errors import InterventionError
from attnscope.probes import Subject
from attnscope.probes.adapters import ADAPTERS
from attnscope.probes.module_paths import module_paths
from attnscope.probes.sites import split_path

__all__ = ["Layers", "Place", "Places"]

Layers = Sequence[int] | Callable[[int], Iterable[int]] | None
"""Layer numbers, negative ones from the end, or a rule that names them for a depth; None: all."""

_PICTURE = re.compile(r"(^|\.)(vision|visual|image|vit|pixel|audio)\w*(\.|$)", re.IGNORECASE)
_CROSS = re.compile(r"cross|encoder_attn|encdecattention|enc_dec", re.IGNORECASE)
_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module stands.

    Attributes:
        path: Its path.
        stack: The path without the number of the layer.
        layer: The number of the layer.
        layers: How many layers the stack has.
        speaks: Whether it mixes the sequence that the model speaks, or its only one.
        sees: Whether it mixes the patches of a picture that a text refers to.
    """

    path: str
    stack: str
    layer: int
    layers: int
    speaks: bool
    sees: bool


class Places:
    """The places of a model's attention.

    Args:
        subject: The model.
    """

    def __init__(self, subject: Subject) -> None:
        model = subject.model
        named = {
            module: name for adapter in ADAPTERS for module, name in adapter.names(model).items()
        }
        paths = {module: path for module, path in module_paths(model).items() if path}
        names = {module: named.get(module) or split_path(path) for module, path in paths.items()}
        depth: dict[str, int] = {}
        for stack, layer in names.values():
            depth[stack] = max(depth.get(stack, 0), layer + 1)
        reads_text, by_decoder = _reads_text(model), subject.speaks_by_decoder
        self._places: dict[nn.Module, Place] = {}
        for module, (stack, layer) in names.items():
            path = paths[module]
            seen = reads_text and bool(_PICTURE.search(path))
            spoken = _in_decoder(path) if by_decoder else not seen and not _CROSS.search(path)
            self._places[module] = Place(path, stack, layer, depth[stack], spoken, seen)

    def __getitem__(self, module: nn.Module) -> Place:
        """Return where a module stands."""
        return self._places[module]

    def stacks(self, wanted: Callable[[Place], bool]) -> dict[str, int]:
        """Return the stacks of attention modules, in order, with their depths."""
        return {
            place.stack: place.layers
            for module, place in self._places.items()
            if _ATTENTION.search(type(module).__name__) and wanted(place)
        }

    def resolved(self, layers: Layers, stack: str | None = None) -> frozenset[int]:
        """Return the numbers of layers of a stack, by default of those that the model speaks with.

        Raises:
            InterventionError: The stack or a layer does not exist.
        """
        every = self.stacks(lambda place: True)
        if stack is not None and stack not in every:
            raise InterventionError(f"no stack {stack!r} in this model; it has {sorted(every)}")
        spoken = every if stack is not None else self.stacks(lambda place: place.speaks)
        if not spoken:
            raise InterventionError("the model has no attention modules that its path tells")
        depth = spoken[stack] if stack is not None else max(spoken.values())
        if layers is None:
            return frozenset(range(depth))
        asked = list(layers(depth) if callable(layers) else layers)
        wrong = [layer for layer in asked if not -depth <= layer < depth]
        if wrong:
            raise InterventionError(
                f"no layer {', '.join(map(str, wrong))}: {stack or ' and '.join(spoken)} has "
                f"layers 0 to {depth - 1}, or {-depth} to -1 from the end"
            )
        return frozenset(layer % depth for layer in asked)

    def blocks(self, layers: frozenset[int]) -> dict[int, nn.Module]:
        """Return the modules whose input is the residual stream that enters each layer.

        Raises:
            InterventionError: Layers have no module of their own.
        """
        spoken = [
            place
            for module, place in self._places.items()
            if place.speaks and _ATTENTION.search(type(module).__name__)
        ]
        by_path = {place.path: module for module, place in self._places.items()}
        found: dict[int, nn.Module] = {}
        for place in spoken:
            match = re.match(r"(.*?\.\d+)(\.|$)", place.path)
            if match and place.layer in layers:
                found.setdefault(place.layer, by_path[match.group(1)])
        missing = sorted(layers - set(found))
        if missing:
            raise InterventionError(f"layers {missing} have no module whose input can be changed")
        return found


def _reads_text(model: nn.Module) -> bool:
    config: Any = getattr(model, "config", None)
    return any(hasattr(config, name) for name in ("vocab_size", "text_config"))


def _in_decoder(path: str) -> bool:
    return not _CROSS.search(path) and any(part.startswith("decoder") for part in path.split("."))
