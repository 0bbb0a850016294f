"""State-space and hybrid architectures of transformers, tiny: class, configuration and sizes."""

from collections.abc import Mapping
from typing import Any

__all__ = ["STATE_SPACE"]

_PURE = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
_HYBRID = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
}
_SCAN = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 8,
}
_DELTA = {
    "head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

STATE_SPACE: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "Mamba": ("MambaForCausalLM", "MambaConfig", _PURE),
    "Falcon Mamba": ("FalconMambaForCausalLM", "FalconMambaConfig", _PURE),
    "Mamba-2": (
        "Mamba2ForCausalLM",
        "Mamba2Config",
        _PURE | {"num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    ),
    "Jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        _HYBRID
        | _EXPERTS
        | {
            "attn_layer_period": 4,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 4,
            "mamba_dt_rank": 4,
        },
    ),
    "Bamba": ("BambaForCausalLM", "BambaConfig", _HYBRID | _SCAN | {"attn_layer_indices": [2]}),
    "Falcon-H1": (
        "FalconH1ForCausalLM",
        "FalconH1Config",
        _HYBRID | _SCAN | {"num_hidden_layers": 2, "head_dim": 8, "mamba_d_ssm": 64},
    ),
    "Granite 4 (hybrid)": (
        "GraniteMoeHybridForCausalLM",
        "GraniteMoeHybridConfig",
        _HYBRID | _EXPERTS | _SCAN | {"layer_types": ["mamba", "mamba", "attention", "mamba"]},
    ),
    "Nemotron-H": (
        "NemotronHForCausalLM",
        "NemotronHConfig",
        _HYBRID
        | {
            "head_dim": 8,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
            "chunk_size": 8,
            "layers_block_type": ["mamba", "mlp", "attention", "mamba"],
        },
    ),
    "Zamba2": (
        "Zamba2ForCausalLM",
        "Zamba2Config",
        _HYBRID
        | {
            "n_mamba_heads": 8,
            "mamba_headdim": 8,
            "mamba_d_state": 8,
            "mamba_ngroups": 2,
            "chunk_size": 8,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "num_mem_blocks": 1,
            "adapter_rank": 4,
        },
    ),
    "Qwen3-Next": ("Qwen3NextForCausalLM", "Qwen3NextConfig", _HYBRID | _EXPERTS | _DELTA),
    "Qwen3.5": ("Qwen3_5ForCausalLM", "Qwen3_5TextConfig", _HYBRID | _DELTA),
    "OLMo hybrid": ("OlmoHybridForCausalLM", "OlmoHybridConfig", _HYBRID | _DELTA),
}
"""Families by name."""
