"""Tiny random vision-language models of many families, with a picture, a question and an answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from attnscope.probes import Encoded, Subject
from attnscope.traces import Segment, Segments, TokenSequence

IMAGE, START, STOP, BREAK = 98, 97, 96, 95
_TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 6,
}
_LLAMA = _TEXT | {"model_type": "llama"}
_GEMMA = _TEXT | {"head_dim": 8}
_CLIP = _VISION | {"model_type": "clip_vision_model"}
_SIGLIP = _VISION | {"model_type": "siglip_vision_model", "vision_use_head": False}
_MROPE = {
    "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
}
_QWEN = {"depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 6}


@dataclass(frozen=True)
class Family:
    """How to build a model, how a picture stands in its text, and what is given of the picture."""

    name: str
    options: Mapping[str, Any]
    placeholders: tuple[int, ...]
    pixels: Callable[[], dict[str, Tensor]]
    grids: tuple[tuple[int, int] | None, ...]


def _pixels(*shape: int, **more: Tensor) -> Callable[[], dict[str, Tensor]]:
    def make() -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(5)
        return {"pixel_values": torch.randn(*shape, generator=generator), **more}

    return make


def _runs(*lengths: int) -> tuple[int, ...]:
    """Return tiles between the tokens that open and close a picture."""
    return tuple(token for n in lengths for token in (START, *[IMAGE] * n, STOP))


_QWEN_PICTURE = _pixels(24, 3 * 2 * 6 * 6, image_grid_thw=torch.tensor([[1, 4, 6]]))

FAMILIES: dict[str, Family] = {
    "LLaVA": Family(
        "Llava",
        {"text_config": _LLAMA, "vision_config": _CLIP, "image_token_index": IMAGE},
        (IMAGE,) * 32,  # two pictures, one after the other
        _pixels(2, 3, 24, 24),
        ((4, 4), (4, 4)),
    ),
    "LLaVA-NeXT": Family(
        "LlavaNext",
        {
            "text_config": _LLAMA,
            "vision_config": _CLIP,
            "image_token_index": IMAGE,
            "image_grid_pinpoints": [[24, 48], [48, 24], [48, 48]],
        },
        (IMAGE,) * (16 + 4 * 9),
        _pixels(1, 3, 3, 24, 24, image_sizes=torch.tensor([[20, 40]])),
        ((4, 4), (4, 9)),
    ),
    "LLaVA-NeXT (cut)": Family(
        "LlavaNext",
        {
            "text_config": _LLAMA,
            "vision_config": _CLIP,
            "image_token_index": IMAGE,
            "image_grid_pinpoints": [[48, 48]],
        },
        (IMAGE,) * (16 + 4 * 9),
        _pixels(1, 5, 3, 24, 24, image_sizes=torch.tensor([[20, 40]])),
        ((4, 4), (4, 9)),
    ),
    "Qwen2-VL": Family(
        "Qwen2VL",
        {
            "text_config": _TEXT | _MROPE,
            "vision_config": _QWEN | {"embed_dim": 32, "mlp_ratio": 2},
            "image_token_id": IMAGE,
        },
        _runs(6),
        _QWEN_PICTURE,
        ((2, 3),),
    ),
    "Qwen2.5-VL": Family(
        "Qwen2_5_VL",
        {
            "text_config": _TEXT | _MROPE,
            "vision_config": _QWEN
            | {
                "out_hidden_size": 32,
                "intermediate_size": 48,
                "window_size": 24,
                "fullatt_block_indexes": [1],
            },
            "image_token_id": IMAGE,
        },
        _runs(6),
        _QWEN_PICTURE,
        ((2, 3),),
    ),
    "InternVL": Family(
        "InternVL",
        {
            "text_config": _TEXT | {"model_type": "qwen2"},
            "vision_config": _VISION
            | {"model_type": "internvl_vision", "image_size": [24, 24], "patch_size": [6, 6]},
            "image_token_id": IMAGE,
        },
        _runs(12),  # three tiles of four tokens, merged from sixteen patches
        _pixels(3, 3, 24, 24),
        ((2, 2), (2, 2), (2, 2)),
    ),
    "Idefics3": Family(
        "Idefics3",
        {
            "text_config": _LLAMA,
            "vision_config": _VISION | {"model_type": "idefics3_vision"},
            "image_token_id": IMAGE,
            "scale_factor": 2,
        },
        _runs(4, 4),
        _pixels(1, 2, 3, 24, 24),
        ((2, 2), (2, 2)),
    ),
    "SmolVLM": Family(
        "SmolVLM",
        {
            "text_config": _LLAMA,
            "vision_config": _VISION | {"model_type": "smolvlm_vision"},
            "image_token_id": IMAGE,
            "scale_factor": 2,
        },
        _runs(4, 4),
        _pixels(1, 2, 3, 24, 24),
        ((2, 2), (2, 2)),
    ),
    "PaliGemma": Family(
        "PaliGemma",
        {
            "text_config": _GEMMA | {"model_type": "gemma"},
            "vision_config": _SIGLIP | {"projection_dim": 32},
            "image_token_index": IMAGE,
            "projection_dim": 32,
        },
        (IMAGE,) * 16,
        _pixels(1, 3, 24, 24),
        ((4, 4),),
    ),
    "Gemma 3": Family(
        "Gemma3",
        {
            "text_config": _GEMMA | {"model_type": "gemma3_text", "sliding_window": 64},
            "vision_config": _SIGLIP,
            "image_token_index": IMAGE,
            "mm_tokens_per_image": 4,
        },
        _runs(4),
        _pixels(1, 3, 24, 24),
        ((2, 2),),
    ),
    "Mistral 3": Family(
        "Mistral3",
        {
            "text_config": _TEXT | {"model_type": "mistral", "head_dim": 8},
            "vision_config": _VISION | {"model_type": "pixtral", "head_dim": 8, "image_size": 48},
            "image_token_index": IMAGE,
            "spatial_merge_size": 2,
        },
        (IMAGE, IMAGE, BREAK, IMAGE, IMAGE, STOP),
        _pixels(1, 3, 24, 24, image_sizes=torch.tensor([[24, 24]])),
        ((2, 3),),
    ),
    "BLIP-2": Family(
        "Blip2",
        {
            "text_config": _TEXT | {"model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32},
            "vision_config": _VISION | {"initializer_range": 0.3},
            "qformer_config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 48,
                "encoder_hidden_size": 32,
                "vocab_size": 99,
                "initializer_range": 0.3,
            },
            "num_query_tokens": 4,
            "initializer_range": 0.3,
            "image_token_index": IMAGE,
        },
        (IMAGE,) * 4,
        _pixels(1, 3, 24, 24),
        (None,),  # a resampler's tokens are no patches
    ),
}


@cache
def _model(name: str) -> torch.nn.Module:
    import transformers

    family = FAMILIES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family.name}Config")(**family.options)
    model = getattr(transformers, f"{family.name}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():  # a projector that starts at nothing
                parameter.normal_(std=0.3)
    return model


def subject(name: str) -> Subject:
    """Return the model of a family."""
    return Subject(_model(name), name=name)


def inputs(name: str, answer: int = 4) -> dict[str, Tensor]:
    """Return a picture, five tokens of a question, and an answer."""
    generator = torch.Generator().manual_seed(3)
    said = torch.randint(3, 90, (5 + answer,), generator=generator).tolist()
    ids = torch.tensor([[1, *FAMILIES[name].placeholders, *said]])
    pixels = FAMILIES[name].pixels()
    if name.startswith("Qwen"):
        pixels["mm_token_type_ids"] = (ids == IMAGE).int()
    if name == "Gemma 3":
        pixels["token_type_ids"] = (ids == IMAGE).long()
    if name == "PaliGemma":  # picture and question see each other; the answer is causal
        pixels["token_type_ids"] = (torch.arange(len(ids[0])) >= len(ids[0]) - answer)[None].long()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}


def answered(name: str, answer: int = 4) -> Encoded:
    """Return the same, the last tokens being the response."""
    encoded = subject(name).encode(inputs(name, answer))
    text = encoded.sequences["text"]
    runs = list(text.segments)[:-1]
    stop = len(text) - answer
    runs.append(Segment(name="prompt", start=stop - 5, stop=stop))
    runs.append(Segment(name="response", start=stop, stop=len(text)))
    told = TokenSequence(
        name="text", tokens=text.tokens, ids=text.ids, segments=Segments(tuple(runs))
    )
    return Encoded(model_inputs=encoded.model_inputs, sequences={"text": told})
