"""The centroids of the Routing Transformer: online k-means by exponential moving averages.

Reference: Roy et al. 2021, arXiv:2003.05997, section 4, and the authors' code.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import layer_norm, one_hot

__all__ = ["OnlineClusters", "nearest_centroid", "normalized_vectors"]

_SMOOTHING = 1e-5


def normalized_vectors(vectors: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
    """Return vectors of mean 0 and norm `sqrt(dim)`: layer norm without parameters."""
    return layer_norm(vectors, vectors.shape[-1:], eps=1e-6)


def nearest_centroid(
    vectors: Float[Tensor, "*batch head token dim"], centroids: Float[Tensor, "head cluster dim"]
) -> Int[Tensor, "*batch head token"]:
    """Return the cluster of the largest product with each vector.

    Example:
        >>> vectors, centroids = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]), torch.eye(2)[None]
        >>> nearest_centroid(vectors, centroids).tolist()
        [[0, 1]]
    """
    return (vectors @ centroids.mT).argmax(-1)


class OnlineClusters(nn.Module):
    """Centroids that follow the vectors nearest to them, head by head.

    The counts start at 0 and the sums at the centroids, as published: the first updates of a
    cluster that few vectors join make its centroid long. Nothing shortens it again but later
    vectors.

    Args:
        heads: Number of heads.
        clusters: Clusters of each head.
        dim: Width of a vector.
        decay: What is kept of the sums and counts at an update.
    """

    def __init__(self, heads: int, clusters: int, dim: int, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.centroids: Tensor
        self.sums: Tensor
        self.counts: Tensor
        self.register_buffer("centroids", normalized_vectors(torch.randn(heads, clusters, dim)))
        self.register_buffer("sums", self.centroids.clone())
        self.register_buffer("counts", torch.zeros(heads, clusters))

    def commitment(self, vectors: Float[Tensor, "batch head token dim"]) -> Float[Tensor, ""]:
        """Return the mean squared difference to the nearest centroid, which pulls the vectors."""
        nearest = nearest_centroid(vectors, self.centroids)
        heads = torch.arange(len(self.centroids), device=vectors.device)[:, None]
        return (vectors - self.centroids[heads, nearest]).square().mean()

    @torch.no_grad()
    def learn(self, vectors: Float[Tensor, "batch head token dim"]) -> None:
        """Move the centroids: averages of sums and counts, counts smoothed, one by the other."""
        clusters = self.counts.shape[-1]
        member = one_hot(nearest_centroid(vectors, self.centroids), clusters).to(vectors.dtype)
        counts = member.sum((0, 2))
        sums = (member.mT @ vectors).sum(0)
        self.counts.lerp_(counts.to(self.counts.dtype), 1 - self.decay)
        self.sums.lerp_(sums.to(self.sums.dtype), 1 - self.decay)
        total = self.counts.sum(-1, keepdim=True)
        smoothed = (self.counts + _SMOOTHING) / (total + clusters * _SMOOTHING) * total
        self.centroids.copy_(self.sums / smoothed.unsqueeze(-1))
