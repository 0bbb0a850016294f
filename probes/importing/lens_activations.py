"""An `ActivationCache` of TransformerLens."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.probes.errors import CaptureError
from attnscope.probes.importing.map_checks import checked_map, imported_trace, numbered, observed
from attnscope.traces import Observation, Trace

__all__ = ["from_lens_cache"]

_NAME = re.compile(r"blocks\.(\d+)\.attn\.hook_(\w+)")
_CLOSE = 1e-4


def from_lens_cache(
    cache: Any, tokens: Sequence[str] | None = None, *, partial: bool = False, model: str = ""
) -> Trace:
    """Return the trace of an `ActivationCache`, or of any mapping with its names.

    Each layer needs its `hook_pattern`. Where `hook_rot_q` and `hook_rot_k` (or `hook_q` and
    `hook_k`) are there too and give that very map, factors are kept instead; the notes say which.
    What stands under `hook_attn_scores` is not read: some bridges put the map there, after the
    softmax.

    Args:
        cache: The cache, with or without its batch axis.
        tokens: What to print at each position; by default numbers.
        partial: Rows may sum to less than 1, as beside a learned sink.
        model: The model's name.

    Raises:
        CaptureError: It holds no pattern, or one that is no map.
    """
    layers = _by_layer(getattr(cache, "cache_dict", cache))
    observations: list[Observation] = []
    for layer, held in sorted(layers.items()):
        pattern = checked_map(held["pattern"], f"hook_pattern of layer {layer}", partial=partial)
        text = numbered("text", tokens, pattern.shape[-1])
        factors = _factors(held, pattern)
        attention = DenseAttention(pattern) if factors is None else factors
        value = _heads_first(held.get("v"))
        observations.append(observed(attention, ("blocks.attn", layer), text, text, value=value))
    kinds = [
        "factors" if isinstance(one.attention, SoftmaxAttention) else "dense maps"
        for one in observations
    ]
    notes = {
        "imported from": "an activation cache of TransformerLens",
        "kept as": ", ".join(f"{kind} of {kinds.count(kind)} layers" for kind in sorted({*kinds})),
    }
    return imported_trace(observations, "text", notes, model)


def _by_layer(cache: Mapping[str, Any]) -> dict[int, dict[str, Tensor]]:
    layers: dict[int, dict[str, Tensor]] = {}
    for name in cache:
        found = _NAME.fullmatch(name)
        if found is not None and cache[name] is not None:
            layers.setdefault(int(found[1]), {})[found[2]] = cache[name]
    without = sorted(layer for layer, held in layers.items() if "pattern" not in held)
    if not layers or without:
        which = f"layers {without}" if without else "any layer"
        raise CaptureError(
            f"the cache holds no hook_pattern of {which}; names are such as "
            f"'blocks.0.attn.hook_pattern', and it has {sorted(cache)[:8]}"
        )
    return layers


def _heads_first(given: Tensor | None) -> Tensor | None:
    """Return `(position, head, dim)`, perhaps in a batch of one, with its heads in front."""
    if given is None:
        return None
    given = given[0] if given.ndim == 4 and len(given) == 1 else given
    return given.detach().cpu().transpose(0, 1) if given.ndim == 3 else None


def _factors(held: Mapping[str, Tensor], pattern: Tensor) -> SoftmaxAttention | None:
    """Return the softmax of cached queries and keys if it is the cached map."""
    query, key = (_heads_first(held.get(f"rot_{side}", held.get(side))) for side in "qk")
    if query is None or key is None:
        return None
    heads, queries, keys = pattern.shape
    fitting = len(query) == heads and heads % len(key) == 0 and query.shape[2] == key.shape[2]
    if not fitting or (query.shape[1], key.shape[1]) != (queries, keys):
        return None
    attention = SoftmaxAttention(query, key, causal=not bool(pattern.triu(1).any()))
    error = (attention.dense(limit=pattern.numel()) - pattern).abs().max()
    return attention if float(error) <= _CLOSE else None
