"""Models that TransformerLens holds: its bridges compute a softmax of their own.

The library's hooks stay where they are, fire as they do without a capture, and what they change is
what is heard.
"""

import sys

from torch import nn

from attnscope.probes.adapters.eager_ear import Reader
from attnscope.probes.adapters.eager_factors import from_scores

__all__ = ["names", "readers"]

_INNER = "_original_component"


def readers(model: nn.Module) -> dict[nn.Module, Reader]:
    """Return how each attention bridge of a model is read; none where there is no bridge.

    A bridge that hands its work to the module inside it is heard in its own name.
    """
    return dict.fromkeys(_bridges(model).values(), from_scores)


def names(model: nn.Module) -> dict[nn.Module, tuple[str, int]]:
    """Return stack and layer of all that stands in a bridge, by the library's numbers of blocks."""
    if not _bridges(model):
        return {}
    return {module: _name(path) for path, module in model.named_modules() if _INNER in path}


def _bridges(model: nn.Module) -> dict[str, nn.Module]:
    if "transformer_lens" not in sys.modules:
        return {}
    from transformer_lens.model_bridge.generalized_components import AttentionBridge

    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, AttentionBridge)
    }


def _name(path: str) -> tuple[str, int]:
    """Return the stack and the layer of a path, without the modules that stand in for others.

    Example:
        >>> _name("blocks.3._original_component.self_attn")
        ('blocks.self_attn', 3)
    """
    parts = [part for part in path.split(".") if part != _INNER]
    place = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    if place is None:
        return ".".join(parts), 0
    return ".".join(parts[:place] + parts[place + 1 :]), int(parts[place])
