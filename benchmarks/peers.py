"""What users do today: hold every map, and reduce it."""

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["dense_rhythm", "transformer_lens_model"]


def dense_rhythm(patterns: Sequence[Tensor]) -> Mapping[str, Tensor]:
    """Return WAAD, FAI, head span and first-token mass from each layer's maps, head query key."""
    tokens = patterns[0].shape[-1]
    position = torch.arange(tokens)
    distance = position[:, None] - position[None, :]
    clipped = distance.clamp(0, 10).float()
    horizon = ((distance >= 10) & (distance <= 50)).float()
    readers = horizon.sum(0)
    return {
        "waad": torch.stack([(pattern * clipped).sum(-1) for pattern in patterns]),
        "fai": torch.stack(
            [torch.einsum("hqk,qk->hk", pattern, horizon) / readers for pattern in patterns]
        ),
        "head_span": torch.stack([(pattern * distance).sum(-1).mean(-1) for pattern in patterns]),
        "sink_mass": torch.stack([pattern[..., 0].mean(-1) for pattern in patterns]),
    }


def transformer_lens_model(network: Any) -> Any:
    """Return the same model as TransformerLens holds it, with a copy of the weights."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    vocabulary = {str(number): number for number in range(network.config.vocab_size)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="0"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="0",
        pad_token="1",
        eos_token="2",
        bos_token="3",
    )
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return TransformerBridge.boot_transformers(folder, device="cpu")
