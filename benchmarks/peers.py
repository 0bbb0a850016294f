"""What users do today: hold every map, and reduce it; or hold a block of its rows at a time."""

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["blockwise_dense", "dense_rhythm", "transformer_lens_model"]

_ROWS = 256


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


def blockwise_dense(network: Any, tokens: Tensor, *, columns: bool = False) -> Mapping[str, Tensor]:
    """Return WAAD, FAI, head span and first-token mass, read beside the model's own attention.

    Of our making, after what monitors of attention do: each layer's queries and keys go through a
    second softmax, 256 rows of the map at a time, up to the last key that these can see.

    Args:
        network: A causal model of transformers whose every layer reads the whole text.
        tokens: `(1, token)`.
        columns: Whether to read entropy and received attention as well.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    layers: list[Mapping[str, Tensor]] = []

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, **options: Any
    ) -> tuple[Tensor, None]:
        layers.append(_read_by_blocks(query[0], key[0], options["scaling"], columns=columns))
        output = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return output.transpose(1, 2).contiguous(), None

    before = network.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register("blockwise", attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register("blockwise", lambda *_, **__: None)
    network.set_attn_implementation("blockwise")
    try:
        with torch.no_grad():
            network(input_ids=tokens, use_cache=False, logits_to_keep=1)
    finally:
        network.set_attn_implementation(before)
    return {name: torch.stack([layer[name] for layer in layers]) for name in layers[0]}


def _read_by_blocks(
    query: Tensor, key: Tensor, scale: float, *, columns: bool
) -> Mapping[str, Tensor]:
    """Return one layer's readings from queries, head token dim, and keys that groups share."""
    heads, tokens, _ = query.shape
    position = torch.arange(tokens)
    influence, received = torch.zeros(2, heads, tokens)
    by_row: dict[str, list[Tensor]] = {"waad": [], "span": [], "first": [], "entropy": []}
    for start in range(0, tokens, _ROWS):
        stop = min(start + _ROWS, tokens)
        grouped = query[:, start:stop].reshape(len(key), -1, query.shape[-1])
        scores = (grouped @ key[:, :stop].mT * scale).view(heads, stop - start, stop)
        hidden = position[start:stop, None] < position[start:stop]
        scores[..., start:].masked_fill_(hidden, -torch.inf)
        pattern = scores.softmax(-1)
        low = max(0, start - 50)  # FAI and WAAD look no further back than this
        near, distance = pattern[..., low:], position[start:stop, None] - position[low:stop]
        lacking = (10 - distance).clamp_min(0) * (distance >= 0)
        by_row["waad"].append(10 - (near * lacking).sum(-1))
        influence[:, low:stop] += (near * ((distance >= 10) & (distance <= 50))).sum(-2)
        by_row["span"].append(position[start:stop] - pattern @ position[:stop].float())
        by_row["first"].append(pattern[..., 0])
        if columns:
            received[:, :stop] += pattern.sum(-2)
            by_row["entropy"].append(torch.special.entr(pattern).sum(-1))
    readers = (tokens - 10 - position).clamp(0, 41)
    rows = {name: torch.cat(parts, dim=-1) for name, parts in by_row.items() if parts}
    found = {
        "waad": rows["waad"],
        "fai": influence / readers,
        "head_span": rows["span"].mean(-1),
        "sink_mass": rows["first"].mean(-1),
    }
    if not columns:
        return found
    return found | {
        "entropy": rows["entropy"],
        "received_attention": received / (tokens - position),
    }
