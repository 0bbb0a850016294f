"""The Routing Transformer: a decoder with local heads and routing heads side by side.

Local heads read their own block of 256 tokens and the block before it, causally. Layers before
`first_routing` have local heads alone, as many as the others have of both. Each layer is

    x = x + W [local(LN x); routing(LN x)];  x = x + GEGLU(LN x)

Positions are learned per token (our reading: the code learns relative tables for keys and values
instead, whose value part is no attention over values), and layers normalize first (our reading).

Reference: Roy et al. 2021, arXiv:2003.05997; the published configurations are those of the code.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnscope.attention import Mask, Mixing, SoftmaxAttention, WindowedAttention
from attnscope.models.routing import Routing, RoutingAttention, causal_routing

__all__ = ["ROUTING_VARIANTS", "LocalAttention", "RoutingTransformer", "RoutingVariant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingVariant:
    """The sizes of a model.

    Attributes:
        tokens: Longest sequence.
        channels: Width of a token between layers.
        embedding: Width of a token's embedding, and of the last projection before the logits.
        hidden: Width of the gated MLP.
        depth: Number of layers.
        local_heads: Local heads of a layer with routing.
        routing_heads: Routing heads of it.
        clusters: Clusters of a routing head.
        window: Members of a cluster that are read at most.
        first_routing: First layer with routing heads.
        block: Tokens of a local block.
        dropout: Share of numbers that are dropped from the embedding in training.
    """

    tokens: int
    channels: int
    embedding: int
    hidden: int
    depth: int
    local_heads: int
    routing_heads: int
    clusters: int
    window: int = 512
    first_routing: int = 0
    block: int = 256
    dropout: float = 0.0


ROUTING_VARIANTS: Mapping[str, RoutingVariant] = {
    "wikitext103": RoutingVariant(
        tokens=4096,
        channels=1024,
        embedding=256,
        hidden=3072,
        depth=14,
        local_heads=8,
        routing_heads=8,
        clusters=8,
        dropout=0.4,
    ),
    "enwik8": RoutingVariant(
        tokens=8192,
        channels=1024,
        embedding=1024,
        hidden=3072,
        depth=12,
        local_heads=4,
        routing_heads=4,
        clusters=16,
    ),
    "pg19": RoutingVariant(
        tokens=8192,
        channels=1032,
        embedding=1032,
        hidden=4096,
        depth=22,
        local_heads=6,
        routing_heads=2,
        clusters=16,
        first_routing=21,
    ),
}
"""The published language models."""


class LocalAttention(nn.Module):
    """Causal softmax heads over a token's own block and the one before it.

    Args:
        channels: Width of a token.
        heads: Number of heads.
        dim: Width of a head.
        block: Tokens of a block.
    """

    def __init__(self, channels: int, heads: int, *, dim: int, block: int) -> None:
        super().__init__()
        self.heads, self.block = heads, block
        self.query_key_value = nn.Linear(channels, 3 * heads * dim, bias=False)
        self.mixing = Mixing()

    def forward(
        self, features: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch token width"]:
        """Return what the heads read, side by side."""
        query, key, value = rearrange(
            self.query_key_value(features),
            "batch token (factor head dim) -> factor batch head token dim",
            factor=3,
            head=self.heads,
        )
        output = self.mixing(self._blocks(query, key), value)
        return rearrange(output, "batch head token dim -> batch token (head dim)")

    def _blocks(
        self,
        query: Float[Tensor, "batch head token dim"],
        key: Float[Tensor, "batch head token dim"],
    ) -> WindowedAttention:
        tokens, device = query.shape[2], query.device
        size = min(self.block, tokens)
        own = torch.arange(tokens + -tokens % size, device=device).reshape(-1, size)
        seen = torch.cat([own - size, own], dim=-1)
        own, seen = own.masked_fill(own >= tokens, -1), seen.masked_fill(seen >= tokens, -1)
        seen = seen.clamp_min(-1)
        mask = Mask(after=0, query_origin=size, key_valid=(seen >= 0).expand(len(query), -1, -1))
        inner = SoftmaxAttention(_in_blocks(query, own), _in_blocks(key, seen), mask=mask)
        return WindowedAttention(inner, own, seen, tokens, tokens, offset=0)


class RoutingLayer(nn.Module):
    """Local and routing heads and a gated MLP, each behind a layer norm.

    Args:
        variant: The sizes.
        routes: Whether some heads route; else all are local.
        routing: The rule of membership.
    """

    def __init__(self, variant: RoutingVariant, *, routes: bool, routing: Routing) -> None:
        super().__init__()
        channels, heads = variant.channels, variant.local_heads + variant.routing_heads
        local_heads, dim = variant.local_heads if routes else heads, channels // heads
        self.attention_norm = nn.LayerNorm(channels)
        self.local_attention = LocalAttention(channels, local_heads, dim=dim, block=variant.block)
        self.routing_attention: RoutingAttention | None = None
        if routes:
            self.routing_attention = RoutingAttention(
                channels,
                variant.routing_heads,
                dim=dim,
                clusters=variant.clusters,
                window=variant.window,
                routing=routing,
            )
        self.projection = nn.Linear(heads * dim, channels, bias=False)
        self.mlp_norm = nn.LayerNorm(channels)
        self.gate, self.expansion = (nn.Linear(channels, variant.hidden) for _ in range(2))
        self.contraction = nn.Linear(variant.hidden, channels)

    def forward(
        self, features: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch token channel"]:
        """Return the tokens of the next layer."""
        tokens = self.attention_norm(features)
        read = [self.local_attention(tokens)]
        if self.routing_attention is not None:
            read.append(self.routing_attention(tokens))
        features = features + self.projection(torch.cat(read, dim=-1))
        tokens = self.mlp_norm(features)
        gated = nn.functional.gelu(self.gate(tokens)) * self.expansion(tokens)
        return features + self.contraction(gated)


class RoutingTransformer(nn.Module):
    """The language model.

    Args:
        variant: One of `ROUTING_VARIANTS`, or sizes of one's own.
        vocabulary: Number of tokens to choose from.
        routing: The rule of membership; `published_routing` lets the future leak into membership.

    Example:
        >>> with torch.device("meta"):
        ...     model = RoutingTransformer(ROUTING_VARIANTS["pg19"], 256)
        >>> [layer.routing_attention is not None for layer in model.layers][-2:]
        [False, True]
    """

    def __init__(
        self, variant: RoutingVariant, vocabulary: int, routing: Routing = causal_routing
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, variant.embedding)
        self.dropout = nn.Dropout(variant.dropout)
        self.widening = nn.Linear(variant.embedding, variant.channels)
        self.position_embedding = nn.Embedding(variant.tokens, variant.channels)
        self.layers = nn.ModuleList(
            RoutingLayer(variant, routes=number >= variant.first_routing, routing=routing)
            for number in range(variant.depth)
        )
        self.norm = nn.LayerNorm(variant.channels)
        self.narrowing = nn.Linear(variant.channels, variant.embedding)
        self.head = nn.Linear(variant.embedding, vocabulary)
        for embedding in (self.token_embedding, self.position_embedding):
            nn.init.normal_(embedding.weight, std=0.02)

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
        features = self.widening(self.dropout(self.token_embedding(input_ids)))
        features = features + self.position_embedding.weight[:tokens]
        for layer in self.layers:
            features = layer(features)
        return self.head(self.narrowing(self.norm(features)))

    def commitment_loss(self, weight: float = 1e-4) -> Float[Tensor, ""]:
        """Return what is added to the loss after a training step's forward pass.

        Raises:
            ValueError: No forward pass was made in training mode.
        """
        routing = [module for module in self.modules() if isinstance(module, RoutingAttention)]
        terms = [module.commitment for module in routing if module.commitment is not None]
        if len(terms) < max(1, len(routing)):
            raise ValueError("no commitment yet: make a forward pass in training mode first")
        return weight * torch.stack(terms).sum()


def _in_blocks(
    vectors: Float[Tensor, "batch head token dim"], index: Int[Tensor, "block slot"]
) -> Float[Tensor, "batch block head slot dim"]:
    taken = vectors[:, :, index.clamp_min(0)]
    return rearrange(taken, "batch head block slot dim -> batch block head slot dim")
