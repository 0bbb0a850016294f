"""Gated Associative Memory (GAM): a language model without attention among tokens.

A block reads, of its normalized tokens h, a causal depthwise convolution and a bank M of learned
slots, and lets a gate per token and channel decide how much of each is added:

    local = conv_k(h);   memory = softmax(h M^T) M
    (g_l, g_m) = W h + b;   x = x + sigmoid(g_l) local + sigmoid(g_m) memory;   x = x + MLP(LN x)

The products are not scaled. The memory looks tokens up, one by one, in what was learned: it passes
nothing from token to token. That the convolution alone does, `k - 1` tokens back per block, so that
a model of L blocks sees `1 + L (k - 1)` tokens: 13 of them as published. Its map is a map of slots,
where entropy and column mass tell which slots serve; rollout has nothing to follow in it.

O(T slots channels) time, O(T (slots + channels)) memory.

Reference: 2025, arXiv:2509.00605, and the authors' code.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnscope.attention import (
    ConvolutionAttention,
    GateAttention,
    Mixing,
    SoftmaxAttention,
)

__all__ = [
    "GAM_VARIANTS",
    "GatedAssociativeMemory",
    "GatedAssociativeMemoryModel",
    "GatedAssociativeMemoryVariant",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedAssociativeMemoryVariant:
    """The sizes of a model.

    Attributes:
        window: Tokens of the convolution, the own included; 0 for a model without it.
        slots: Slots of the memory; 0 for a model without it.
        gated: Whether what is read is gated before it is added.
        channels: Width of a token.
        depth: Number of blocks.
        tokens: Longest sequence.
        vocabulary: Number of tokens to choose from.
    """

    window: int = 3
    slots: int = 512
    gated: bool = True
    channels: int = 512
    depth: int = 6
    tokens: int = 256
    vocabulary: int = 10_000


GAM_VARIANTS: Mapping[str, GatedAssociativeMemoryVariant] = {
    "full": GatedAssociativeMemoryVariant(),
    "memory": GatedAssociativeMemoryVariant(window=0, gated=False),
    "sum": GatedAssociativeMemoryVariant(gated=False),
    "local": GatedAssociativeMemoryVariant(slots=0, gated=False),
}
"""The published model and its ablations."""


class GatedAssociativeMemory(nn.Module):
    """What a block adds to its tokens.

    Args:
        variant: The sizes.
    """

    def __init__(self, variant: GatedAssociativeMemoryVariant) -> None:
        super().__init__()
        channels = variant.channels
        if variant.window:
            self.convolution = nn.Conv1d(channels, channels, variant.window, groups=channels)
            self.local_mixing, self.local_gate_mixing = Mixing(), Mixing()
        if variant.slots:
            self.memory = nn.Parameter(torch.empty(variant.slots, channels))
            self.memory_mixing, self.memory_gate_mixing = Mixing(), Mixing()
            nn.init.xavier_uniform_(self.memory)
        if variant.gated:
            self.gates = nn.Linear(channels, 2 * channels)
        self.variant = variant

    def forward(
        self, features: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch token channel"]:
        """Return the sum of what was read, gated, of normalized tokens."""
        total = torch.zeros_like(features)
        gates = self.gates(features).sigmoid().chunk(2, dim=-1) if self.variant.gated else None
        if self.variant.window:
            local = self._local(features)
            total = total + (local if gates is None else self._local_gated(local, gates[0]))
        if self.variant.slots:
            memory = self._looked_up(features)
            total = total + (memory if gates is None else self._memory_gated(memory, gates[1]))
        return total

    def _local(self, features: Float[Tensor, "batch token channel"]) -> Tensor:
        """Return the convolution: a head is a channel."""
        kernel = self.convolution.weight.squeeze(1).expand(len(features), -1, -1)
        attention = ConvolutionAttention(kernel, [features.shape[1]], causal=True)
        mixed = self.local_mixing(attention, _by_channel(features))
        return _by_token(mixed) + self.convolution.get_parameter("bias")

    def _looked_up(self, features: Float[Tensor, "batch token channel"]) -> Tensor:
        """Return what each token finds in the memory."""
        query = rearrange(features, "batch token channel -> batch 1 token channel")
        slots = repeat(self.memory, "slot channel -> batch 1 slot channel", batch=len(features))
        attention = SoftmaxAttention(query, slots, 1.0, False, key_axis="memory")
        found = self.memory_mixing(attention, slots)
        return rearrange(found, "batch 1 token channel -> batch token channel")

    def _local_gated(self, read: Tensor, gate: Tensor) -> Tensor:
        attention = GateAttention(rearrange(gate, "batch token channel -> batch channel token"))
        return _by_token(self.local_gate_mixing(attention, _by_channel(read)))

    def _memory_gated(self, read: Tensor, gate: Tensor) -> Tensor:
        attention = GateAttention(rearrange(gate, "batch token channel -> batch channel token"))
        return _by_token(self.memory_gate_mixing(attention, _by_channel(read)))


class GatedAssociativeMemoryBlock(nn.Module):
    """Reading and MLP, each behind a layer norm and a residual connection."""

    def __init__(self, variant: GatedAssociativeMemoryVariant, dropout: float) -> None:
        super().__init__()
        channels = variant.channels
        self.reading_norm = nn.LayerNorm(channels)
        self.reading = GatedAssociativeMemory(variant)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            nn.Dropout(dropout),
        )

    def forward(
        self, features: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch token channel"]:
        """Return the tokens of the next block."""
        features = features + self.reading(self.reading_norm(features))
        return features + self.mlp(self.mlp_norm(features))


class GatedAssociativeMemoryModel(nn.Module):
    """The language model: learned positions, blocks, and one matrix for tokens and logits.

    Args:
        variant: One of `GAM_VARIANTS`, or sizes of one's own.
        dropout: Share of numbers that are dropped after the embedding and each MLP in training.

    Example:
        >>> with torch.device("meta"):
        ...     model = GatedAssociativeMemoryModel(GAM_VARIANTS["full"])
        >>> sum(parameter.numel() for parameter in model.parameters())
        22599680
    """

    def __init__(self, variant: GatedAssociativeMemoryVariant, dropout: float = 0.1) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(variant.vocabulary, variant.channels)
        self.position_embedding = nn.Embedding(variant.tokens, variant.channels)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            GatedAssociativeMemoryBlock(variant, dropout) for _ in range(variant.depth)
        )
        self.norm = nn.LayerNorm(variant.channels)
        self.head = nn.Linear(variant.channels, variant.vocabulary, bias=False)
        self.token_embedding.weight = self.head.weight

    def forward(
        self, input_ids: Int[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token vocabulary"]:
        """Return the logits of each next token.

        Raises:
            ValueError: The sequence is longer than the positions that were learned.
        """
        tokens, longest = input_ids.shape[1], self.position_embedding.num_embeddings
        if tokens > longest:
            raise ValueError(f"input_ids has {tokens} tokens; this model has {longest} positions")
        positions = self.position_embedding.weight[:tokens]
        features = self.dropout(self.token_embedding(input_ids) + positions)
        for block in self.blocks:
            features = block(features)
        return self.head(self.norm(features))


def _by_channel(features: Tensor) -> Tensor:
    return rearrange(features, "batch token channel -> batch channel token 1")


def _by_token(features: Tensor) -> Tensor:
    return rearrange(features, "batch channel token 1 -> batch token channel")
