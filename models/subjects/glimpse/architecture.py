"""The shape of the subject: LLaVA with a small CLIP tower and a small Llama decoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.models.subjects.glimpse.processor import (
    BOS,
    CONTEXT_LENGTH,
    EOS,
    IMAGE,
    PAD,
    PATCH,
    PATCHES,
    vocabulary,
)
from attnscope.models.subjects.glimpse.scenes import CANVAS

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

WEIGHTS = Path(__file__).parent / "weights"


def subject_config(
    *, tower: int = 3, layers: int = 5, hidden: int = 128, heads: int = 8
) -> LlavaConfig:
    """Return the configuration; tower and decoder are equally wide, their MLPs three times as wide.

    Args:
        tower: Layers of the vision tower, whose last one feeds the decoder.
        layers: Layers of the decoder.
        hidden: Width of both.
        heads: Heads of a decoder layer; a tower layer has half as many.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    tokens = vocabulary()
    vision = CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=tower,
        num_attention_heads=max(1, heads // 2),
        image_size=CANVAS,
        patch_size=PATCH,
        projection_dim=hidden,
    )
    text = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        pad_token_id=tokens[PAD],
        bos_token_id=tokens[BOS],
        eos_token_id=tokens[EOS],
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokens[IMAGE],
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )


def build_subject(config: LlavaConfig, *, seed: int) -> LlavaForConditionalGeneration:
    """Return an untrained model in float32, the same for the same seed."""
    import torch
    from transformers import LlavaForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config)


def load_subject(folder: Path = WEIGHTS) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Return the trained model in float32, ready to be read, and its processor."""
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), LlavaProcessor.from_pretrained(folder)
