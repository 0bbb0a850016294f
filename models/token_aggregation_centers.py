"""Token centers: where they start, and a step of spherical k-means.

Reference: Liu et al. 2025, arXiv:2503.06896; the details are those of the released code.
"""

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["chunk_means", "moved_centers"]


def chunk_means(
    tokens: Float[Tensor, "batch token channel"], count: int
) -> Float[Tensor, "{count} channel"]:
    """Return the means of raster chunks over the whole batch, the first centers there are.

    The tokens are filled up to a multiple of `count` by their mirror image, and by one whole chunk
    more where they are a multiple already, as released.

    Raises:
        ValueError: There are fewer tokens than centers.

    Example:
        >>> chunk_means(torch.arange(4.0).reshape(1, 4, 1), 2).flatten().tolist()  # 0 1 2, 3 3 2
        [1.0, 2.6666667461395264]
    """
    length = tokens.shape[1]
    if length < count:
        raise ValueError(f"{count} centers cannot start from {length} tokens; it takes as many")
    mirrored = tokens[:, length - (count - length % count) :].flip(1)
    return reduce(
        torch.cat([tokens, mirrored], dim=1),
        "batch (center token) channel -> center channel",
        "mean",
        center=count,
    )


def moved_centers(
    tokens: Float[Tensor, "batch token channel"], centers: Float[Tensor, "center channel"]
) -> Float[Tensor, "center channel"]:
    """Return centers after one step of spherical k-means: the direction of their tokens' sum.

    A center without tokens stays where it is.

    Args:
        tokens: Unit vectors.
        centers: Unit vectors.

    Example:
        >>> tokens = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
        >>> moved_centers(tokens, torch.tensor([[1.0, 0.0], [0.0, -1.0]])).tolist()
        [[0.8944271802902222, 0.4472135901451111], [0.0, -1.0]]
    """
    members = rearrange(tokens @ centers.mT, "batch token center -> (batch token) center").argmax(
        -1
    )
    flat = rearrange(tokens, "batch token channel -> (batch token) channel")
    totals = torch.zeros_like(centers).index_add(0, members, flat)
    empty = members.bincount(minlength=len(centers)) == 0
    return torch.where(empty.unsqueeze(-1), centers, normalize(totals, dim=-1))
