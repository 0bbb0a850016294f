"""Adaptive hypergraph computation (YOLOv13): hyperedges gather tokens, tokens read hyperedges.

    P = P0 + reshape(Linear[mean_N X, max_N X])                    M prototypes of width D
    logit(m, i) = mean over h heads of  P_m^h . Linear(X_i)^h / sqrt(D / h)
    A(m, .) = softmax over the tokens i        (M, N): each hyperedge is a distribution
    E = GELU(Linear(A X)),    Y = GELU(Linear(A^T E)) + X

Cost O(N M D) for N tokens and M hyperedges, against O(N^2 D). The mean over heads of their products
is the whole product over `h`. Both readings are operators: the second is the first transposed, and
its rows are no distributions. What tokens have to do with each other is `A^T A`, which the step
between (a layer and a GELU on the hyperedges) bends: structure, not the block's exact map.

Reference: Lei et al. 2025, arXiv:2506.17733. The equations are those of the released code as
described, its softmax running over tokens; the paper's own were not reached. Initialization of the
prototypes (Xavier uniform) is our reading.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu

from attnscope.attention import AttentionOperator, DenseAttention, Mixing

__all__ = ["HyperedgeGeneration", "HypergraphConvolution", "token_relations"]


class HyperedgeGeneration(nn.Module):
    """Finds the hyperedges of a map: which tokens take part in each, and how much.

    The paper calls it AdaHyperedgeGen.

    Args:
        dim: Channels of the tokens.
        hyperedges: Number of hyperedges.
        heads: Number of heads over which logits are averaged.
        dropout: Share of logits that training sets to 0.

    Example:
        >>> generation = HyperedgeGeneration(1, 1, heads=1)
        >>> for part in (generation.context, generation.project):
        ...     _ = nn.init.zeros_(part.weight), nn.init.zeros_(part.bias)
        >>> _ = nn.init.ones_(generation.prototypes), nn.init.ones_(generation.project.weight)
        >>> participation = generation.eval()(torch.tensor([[[0.0], [1.0]]]))
        >>> [round(share, 4) for share in participation.dense().flatten().tolist()]
        [0.2689, 0.7311]
    """

    def __init__(self, dim: int, hyperedges: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.prototypes = nn.Parameter(torch.empty(hyperedges, dim))
        self.context = nn.Linear(2 * dim, hyperedges * dim)
        self.project = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.prototypes)

    def forward(self, tokens: Float[Tensor, "batch token dim"]) -> DenseAttention:
        """Return the participation, `(batch, 1, hyperedge, token)`."""
        context = torch.cat([tokens.mean(1), tokens.amax(1)], dim=-1)
        change = rearrange(
            self.context(context), "batch (edge dim) -> batch edge dim", dim=tokens.shape[-1]
        )
        prototypes = self.prototypes + change
        head_dim = tokens.shape[-1] // self.heads
        logits = prototypes @ self.project(tokens).mT / (self.heads * head_dim**0.5)
        participation = dropout(logits, self.dropout, self.training).softmax(-1)
        return DenseAttention(
            rearrange(participation, "batch edge token -> batch 1 edge token"),
            query_axis="hyperedge",
            key_axis="patch",
        )


class HypergraphConvolution(nn.Module):
    """Passes messages from tokens to hyperedges and back. The paper calls it AdaHGConv.

    Args:
        dim: Channels of the tokens.
        hyperedges: Number of hyperedges.
        heads: Number of heads over which logits are averaged.
    """

    def __init__(self, dim: int, hyperedges: int, heads: int) -> None:
        super().__init__()
        self.generation = HyperedgeGeneration(dim, hyperedges, heads)
        self.edge, self.node = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.edge_mixing, self.node_mixing = Mixing(), Mixing()

    def forward(
        self, features: Float[Tensor, "batch dim row column"]
    ) -> Float[Tensor, "batch dim row column"]:
        """Return the map after one exchange with its hyperedges."""
        grid = features.shape[-2], features.shape[-1]
        tokens = rearrange(features, "batch dim row column -> batch 1 (row column) dim")
        participation = self.generation(tokens[:, 0])
        edges = self.edge_mixing(participation, tokens, key_grid=grid)
        edges = gelu(self.edge(edges))
        nodes = self.node_mixing(participation.T, edges, grid=grid)
        nodes = gelu(self.node(nodes)) + tokens
        return rearrange(nodes, "batch 1 (row column) dim -> batch dim row column", row=grid[0])


def token_relations(participation: AttentionOperator) -> AttentionOperator:
    """Return how tokens are tied through hyperedges, `A^T A` with rows divided by their sum.

    For display: the hyperedges' own maps are the rows of `participation`.

    Example:
        >>> participation = DenseAttention(torch.tensor([[[0.25, 0.75]]]), offset=None)
        >>> token_relations(participation).dense().tolist()
        [[[0.25, 0.75], [0.25, 0.75]]]
    """
    return (participation.T @ participation).normalized()
