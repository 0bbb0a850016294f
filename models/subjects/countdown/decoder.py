"""The shape of the subject: a small decoder of the Qwen3 family with grouped-query attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.models.subjects.countdown.tokenizer import BOS, CONTEXT_LENGTH, EOS, PAD, vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

WEIGHTS = Path(__file__).parent / "weights"

FLIGHT = Path(__file__).parent / "flight.parquet"
"""What each head measured while the subject learned (`python -m benchmarks.flight`)."""


def subject_config(*, layers: int = 6, hidden: int = 192, heads: int = 6) -> Qwen3Config:
    """Return the configuration: two key-value heads, the MLP 8/3 as wide as the residual stream."""
    from transformers import Qwen3Config

    tokens = vocabulary()
    return Qwen3Config(
        vocab_size=len(tokens),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        head_dim=hidden // heads,
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        pad_token_id=tokens[PAD],
        bos_token_id=tokens[BOS],
        eos_token_id=tokens[EOS],
    )


def build_subject(config: Qwen3Config, *, seed: int) -> Qwen3ForCausalLM:
    """Return an untrained decoder in float32, the same for the same seed."""
    import torch
    from transformers import Qwen3ForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def load_subject(folder: Path = WEIGHTS) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Return the trained model in float32, ready to be read, and its tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)
