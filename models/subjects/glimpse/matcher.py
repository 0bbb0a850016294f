"""The matcher: a small BLIP that tells whether a text fits a picture, and how well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.models.subjects.glimpse.processor import (
    CONTEXT_LENGTH,
    MEAN,
    PAD,
    PATCH,
    SPREAD,
    UNKNOWN,
)
from attnscope.models.subjects.glimpse.scenes import CANVAS
from attnscope.models.subjects.glimpse.tasks import vocabulary_sources

if TYPE_CHECKING:
    from transformers import BlipConfig, BlipForImageTextRetrieval, BlipProcessor

MATCHER_WEIGHTS = Path(__file__).parent / "matcher_weights"
CLASS, SEPARATOR = "<cls>", "<sep>"


def matcher_vocabulary() -> dict[str, int]:
    """Return every token of the matcher with its id: special tokens, then words by the alphabet."""
    words = sorted(set(" ".join(vocabulary_sources()).split()))
    return {token: index for index, token in enumerate((PAD, CLASS, SEPARATOR, UNKNOWN, *words))}


def build_matcher_processor() -> BlipProcessor:
    """Return the processor, which puts a class token before a text and a separator after it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import BlipImageProcessor, BlipProcessor, PreTrainedTokenizerFast

    tokens = matcher_vocabulary()
    engine = Tokenizer(WordLevel(tokens, unk_token=UNKNOWN))
    engine.pre_tokenizer = WhitespaceSplit()
    engine.post_processor = TemplateProcessing(
        single=f"{CLASS} $A {SEPARATOR}",
        special_tokens=[(CLASS, tokens[CLASS]), (SEPARATOR, tokens[SEPARATOR])],
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=engine,
        pad_token=PAD,
        cls_token=CLASS,
        sep_token=SEPARATOR,
        unk_token=UNKNOWN,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    pictures = BlipImageProcessor(
        size={"height": CANVAS, "width": CANVAS}, image_mean=[MEAN] * 3, image_std=[SPREAD] * 3
    )
    return BlipProcessor(image_processor=pictures, tokenizer=words)


def matcher_config(*, layers: int = 3, hidden: int = 96, heads: int = 4) -> BlipConfig:
    """Return the configuration: picture and text encoder are equally deep and wide."""
    from transformers import BlipConfig, BlipTextConfig, BlipVisionConfig

    tokens = matcher_vocabulary()
    text = BlipTextConfig(
        vocab_size=len(tokens),
        hidden_size=hidden,
        encoder_hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT_LENGTH,
        projection_dim=hidden,
        pad_token_id=tokens[PAD],
        bos_token_id=tokens[CLASS],
        eos_token_id=tokens[SEPARATOR],
        sep_token_id=tokens[SEPARATOR],
    )
    vision = BlipVisionConfig(
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=CANVAS,
        patch_size=PATCH,
        projection_dim=hidden,
        initializer_range=0.02,
    )
    return BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=hidden)


def build_matcher(config: BlipConfig, *, seed: int) -> BlipForImageTextRetrieval:
    """Return an untrained matcher in float32, the same for the same seed."""
    import torch
    from transformers import BlipForImageTextRetrieval

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BlipForImageTextRetrieval(config)


def load_matcher(
    folder: Path = MATCHER_WEIGHTS,
) -> tuple[BlipForImageTextRetrieval, BlipProcessor]:
    """Return the trained matcher in float32, ready to be read, and its processor."""
    import torch
    from transformers import BlipForImageTextRetrieval, BlipProcessor

    model = BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), BlipProcessor.from_pretrained(folder)
