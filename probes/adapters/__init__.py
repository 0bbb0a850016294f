"""Adapters: one file per model library, behind the one seam of a capture."""

from attnscope.probes.adapters import mixing_attention, timm_attention, transformers_attention
from attnscope.probes.adapters.adapter import Adapter, no_names

__all__ = ["ADAPTERS"]

ADAPTERS: tuple[Adapter, ...] = (
    Adapter(listening=transformers_attention.listening, names=no_names),
    Adapter(listening=mixing_attention.listening, names=mixing_attention.names),
    Adapter(listening=timm_attention.listening, names=timm_attention.names),
)
