"""Adapters: one file per model library, behind the one seam of a capture."""

from attnscope.probes.adapters import (
    eager_attention,
    lens_attention,
    mixing_attention,
    state_space,
    timm_attention,
    torch_attention,
)
from attnscope.probes.adapters.adapter import Adapter

__all__ = ["ADAPTERS"]

# Torch's ear stands first, outside: what those after it hear does not reach it.
ADAPTERS: tuple[Adapter, ...] = (
    Adapter(listening=torch_attention.listening, names=torch_attention.names),
    Adapter(listening=eager_attention.listening, names=lens_attention.names),
    Adapter(listening=mixing_attention.listening, names=mixing_attention.names),
    Adapter(listening=state_space.listening, names=state_space.names),
    Adapter(listening=timm_attention.listening, names=timm_attention.names),
)
