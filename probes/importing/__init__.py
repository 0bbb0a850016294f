"""Importing: what other libraries returned or wrote becomes a trace, checked, never unpickled."""

from attnscope.probes.importing.inseq_scores import from_inseq
from attnscope.probes.importing.lens_activations import from_lens_cache
from attnscope.probes.importing.returned_maps import from_attentions, from_bertviz
from attnscope.probes.importing.serving_factors import from_vllm_hook

__all__ = ["from_attentions", "from_bertviz", "from_inseq", "from_lens_cache", "from_vllm_hook"]
