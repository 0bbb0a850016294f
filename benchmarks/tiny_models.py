"""Architectures of transformers, built tiny from their configurations, and inputs for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tiny_state_space import STATE_SPACE

__all__ = ["FAMILIES", "Family", "Inputs", "tiny"]

Inputs = dict[str, Tensor]
_TOKENS = 19
_SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_GROUPED = _SMALL | {
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MOE = _GROUPED | {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 6,
}
_SEQ2SEQ = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}


@dataclass(frozen=True, slots=True)
class Family:
    """How to build a tiny model of one architecture, and what to feed it."""

    model: str
    config: str
    options: Mapping[str, Any]
    inputs: Callable[[], Inputs]


def _text() -> Inputs:
    return {"input_ids": torch.randint(3, 90, (1, _TOKENS))}


def _image() -> Inputs:
    return {"pixel_values": torch.randn(1, 3, 24, 24)}


def _pair() -> Inputs:
    return _text() | {"decoder_input_ids": torch.randint(3, 90, (1, 7))}


def _speech() -> Inputs:
    return {
        "input_features": torch.randn(1, 16, 40),
        "decoder_input_ids": torch.randint(3, 90, (1, 7)),
    }


def _text_and_image() -> Inputs:
    return _text() | _image()


def _llava() -> Inputs:
    ids = torch.randint(3, 90, (1, _TOKENS + 16))
    ids[0, 2:18] = 98
    return {"input_ids": ids, **_image()}


def _qwen_vision() -> Inputs:
    ids = torch.randint(3, 80, (1, _TOKENS))
    ids[0, 2:6] = 98
    return {
        "input_ids": ids,
        "mm_token_type_ids": (ids == 98).int(),
        "pixel_values": torch.randn(16, 3 * 2 * 6 * 6),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
    }


def _decoder(
    name: str, options: Mapping[str, Any] | None = None, config: str | None = None
) -> Family:
    return Family(f"{name}ForCausalLM", config or f"{name}Config", options or _GROUPED, _text)


_GPT = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4}
_WINDOW = {"sliding_window": 6, "use_sliding_window": True}
_HEAD_DIM = {"head_dim": 8}
_LLAVA = {
    "vision_config": _VISION | {"model_type": "clip_vision_model"},
    "text_config": _GROUPED | {"model_type": "llama"},
    "image_token_index": 98,
    "image_token_id": 98,
}
_QWEN_VISION = {
    "depth": 2,
    "embed_dim": 32,
    "hidden_size": 32,
    "num_heads": 4,
    "mlp_ratio": 2,
    "patch_size": 6,
}
_ROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}

FAMILIES: dict[str, Family] = {
    "Llama": _decoder("Llama"),
    "Qwen2": _decoder("Qwen2"),
    "Qwen2 (sliding window)": _decoder("Qwen2", _GROUPED | _WINDOW | {"max_window_layers": 1}),
    "Qwen3": _decoder("Qwen3", _GROUPED | _HEAD_DIM),
    "Qwen3-MoE": _decoder("Qwen3Moe", _MOE | _HEAD_DIM),
    "Gemma": _decoder("Gemma", _GROUPED | _HEAD_DIM),
    "Gemma 2": _decoder(
        "Gemma2", _GROUPED | _HEAD_DIM | {"sliding_window": 6, "attn_logit_softcapping": 5.0}
    ),
    "Gemma 3": _decoder("Gemma3", _GROUPED | _HEAD_DIM | {"sliding_window": 6}, "Gemma3TextConfig"),
    "Mistral": _decoder("Mistral", _GROUPED | {"sliding_window": 6}),
    "Mixtral": _decoder("Mixtral", _MOE),
    "Phi": _decoder("Phi", _SMALL),
    "Phi-3": _decoder("Phi3", _GROUPED | {"sliding_window": 6}),
    "OLMo 2": _decoder("Olmo2"),
    "OLMoE": _decoder("Olmoe", _MOE),
    "GPT-2": Family("GPT2LMHeadModel", "GPT2Config", _GPT, _text),
    "GPT-NeoX": _decoder("GPTNeoX", _SMALL),
    "GPT-J": _decoder("GPTJ", _GPT | {"rotary_dim": 4}),
    "gpt-oss": _decoder("GptOss", _MOE | _HEAD_DIM | {"sliding_window": 6}),
    "Granite": _decoder("Granite"),
    "Cohere": _decoder("Cohere"),
    "Cohere 2": _decoder("Cohere2", _GROUPED | {"sliding_window": 6}),
    "StableLM": _decoder("StableLm"),
    "StarCoder 2": _decoder("Starcoder2"),
    "SmolLM3": _decoder("SmolLM3"),
    "DeepSeek-V3": _decoder(
        "DeepseekV3",
        _GROUPED
        | {
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 12,
            "first_k_dense_replace": 1,
        },
    ),
    "OPT": _decoder(
        "OPT", _SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
    ),
    "BLOOM": _decoder("Bloom", {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "Falcon": _decoder("Falcon", _SMALL),
    "MPT": _decoder("Mpt", {"vocab_size": 99, "d_model": 32, "n_layers": 2, "n_heads": 4}),
    **{name: Family(*parts, _text) for name, parts in STATE_SPACE.items()},
    "RWKV": _decoder("Rwkv", {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2}),
    "XLNet": Family(
        "XLNetLMHeadModel",
        "XLNetConfig",
        {"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
        _text,
    ),
    "BERT": Family("BertForMaskedLM", "BertConfig", _SMALL, _text),
    "RoBERTa": Family("RobertaForMaskedLM", "RobertaConfig", _SMALL, _text),
    "ModernBERT": Family(
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        _SMALL | {"local_attention": 6, "global_attn_every_n_layers": 2, "pad_token_id": 0},
        _text,
    ),
    "DistilBERT": Family(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": 99, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
        _text,
    ),
    "ELECTRA": Family(
        "ElectraForMaskedLM", "ElectraConfig", _SMALL | {"embedding_size": 32}, _text
    ),
    "ALBERT": Family("AlbertForMaskedLM", "AlbertConfig", _SMALL | {"embedding_size": 16}, _text),
    "DeBERTa-v2": Family("DebertaV2ForMaskedLM", "DebertaV2Config", _SMALL, _text),
    "ViT": Family("ViTForImageClassification", "ViTConfig", _VISION, _image),
    "DeiT": Family("DeiTForImageClassification", "DeiTConfig", _VISION, _image),
    "DINOv2": Family("Dinov2Model", "Dinov2Config", _VISION, _image),
    "DINOv3": Family("DINOv3ViTModel", "DINOv3ViTConfig", _VISION, _image),
    "BEiT": Family("BeitForImageClassification", "BeitConfig", _VISION, _image),
    "Swin": Family(
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 24,
            "patch_size": 3,
            "embed_dim": 16,
            "depths": [1, 2],
            "num_heads": [2, 4],
            "window_size": 2,
        },
        _image,
    ),
    "SigLIP": Family(
        "SiglipModel",
        "SiglipConfig",
        {"text_config": _SMALL | {"max_position_embeddings": 64}, "vision_config": _VISION},
        _text_and_image,
    ),
    "CLIP": Family(
        "CLIPModel",
        "CLIPConfig",
        {
            "text_config": _SMALL | {"max_position_embeddings": 64},
            "vision_config": _VISION,
            "projection_dim": 16,
        },
        _text_and_image,
    ),
    "Whisper": Family(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        _SEQ2SEQ | {"num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 32},
        _speech,
    ),
    "BART": Family("BartForConditionalGeneration", "BartConfig", _SEQ2SEQ, _pair),
    "Pegasus": Family("PegasusForConditionalGeneration", "PegasusConfig", _SEQ2SEQ, _pair),
    "T5": Family(
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": 99,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        _pair,
    ),
    "LLaVA": Family("LlavaForConditionalGeneration", "LlavaConfig", _LLAVA, _llava),
    "Qwen2-VL": Family(
        "Qwen2VLForConditionalGeneration",
        "Qwen2VLConfig",
        {"text_config": _GROUPED | _ROPE, "vision_config": _QWEN_VISION, "image_token_id": 98},
        _qwen_vision,
    ),
}


def tiny(name: str, implementation: str = "sdpa") -> tuple[nn.Module, Inputs]:
    """Return a tiny random model of a family, and inputs for it."""
    import transformers

    family = FAMILIES[name]
    torch.manual_seed(0)
    config = getattr(transformers, family.config)(**family.options)
    model = (
        getattr(transformers, family.model)
        ._from_config(config, attn_implementation=implementation)
        .eval()
    )
    with torch.no_grad():
        for (
            label,
            parameter,
        ) in model.named_parameters():  # small initial weights make near-uniform maps
            if parameter.ndim >= 2 and "embed" not in label:
                parameter.mul_(4)
    return model, family.inputs()
