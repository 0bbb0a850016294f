"""Vision-aware head divergence: by how much a head's output changes without the image."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import precise
from attnscope.metrics.selection import top_count

__all__ = [
    "head_activation",
    "token_vhd",
    "vision_aware_heads",
    "vision_head_divergence",
    "zero_outliers",
]


def vision_head_divergence(
    with_image: Float[Tensor, "*axes dim"], without_image: Float[Tensor, "*other_axes other_dim"]
) -> Float[Tensor, "*axes"]:
    """Return VHD, ``|| z(with image) - z(without image) ||_2``, of each head's output z before W_O.

    0 for a head that does not mind the image; without an upper bound. Both outputs belong to the
    position that predicts one and the same token after one and the same text. With grouped keys
    there is still one output per query head.

    Args:
        with_image: Outputs of the heads, `(..., head, dim)` at one position or
            `(layer, head, query, dim)` at several.
        without_image: The same of the run without the image.

    Raises:
        MetricError: The two do not have one shape.

    Reference: He et al. 2024, arXiv:2412.13949, equation 4.

    Example:
        >>> seen = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
        >>> unseen = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> vision_head_divergence(seen, unseen).tolist()
        [5.0, 1.0]
    """
    if with_image.shape != without_image.shape:
        raise MetricError(
            f"VHD compares outputs of one shape; with the image they are "
            f"{tuple(with_image.shape)}, without it {tuple(without_image.shape)}"
        )
    return torch.linalg.vector_norm(precise(with_image) - precise(without_image), dim=-1)


def head_activation(
    without_image: Float[Tensor, "*axes dim"], *, squared: bool = True
) -> Float[Tensor, "*axes"]:
    """Return TA, how strong each head's output is without the image: ``|| z(without image) ||^2``.

    Args:
        without_image: Outputs of the heads, before W_O.
        squared: The square, as the paper's equation 6 reads in the copy at hand; a subscript 2,
            that is the plain norm, may have been meant (our switch).

    Reference: He et al. 2024, arXiv:2412.13949, equation 6.

    Example:
        >>> head_activation(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
        [25.0, 1.0]
        >>> head_activation(torch.tensor([[3.0, 4.0]]), squared=False).tolist()
        [5.0]
    """
    norm = torch.linalg.vector_norm(precise(without_image), dim=-1)
    return norm.square() if squared else norm


def zero_outliers(
    divergence: Float[Tensor, "*batch head"],
    activation: Float[Tensor, "*batch head"],
    *,
    sample_std: bool = False,
) -> Float[Tensor, "*batch head"]:
    """Return VHD with 0 for heads that surge when the image is taken away.

    A head is an outlier if both its VHD and its activation without the image lie above mean + std
    over the heads of its layer, strictly.

    Args:
        divergence: VHD, heads along the last axis.
        activation: `head_activation` of the same heads.
        sample_std: Divide by n - 1 and not by n; the paper does not say which (our switch). With
            one head it is undefined, and nothing is an outlier.

    Reference: He et al. 2024, arXiv:2412.13949, equation 6.

    Example:
        >>> divergence = torch.tensor([10.0, 1.0, 2.0, 3.0])  # mean + std is 7.5355
        >>> zero_outliers(divergence, torch.tensor([9.0, 1.0, 1.0, 1.0])).tolist()  # 6.4641
        [0.0, 1.0, 2.0, 3.0]
    """
    surges = _above_most(divergence, sample_std) & _above_most(activation, sample_std)
    return divergence.masked_fill(surges, 0.0)


def vision_aware_heads(divergence: Float[Tensor, "*batch head"]) -> Bool[Tensor, "*batch head"]:
    """Return which heads mind the image most: VHD above the median of their layer, strictly.

    The median of an even number of heads is the mean of the middle two. Ties at the median select
    fewer than half of the heads, equal values none; a head whose VHD is NaN is never selected.

    Reference: He et al. 2024, arXiv:2412.13949, equation 7.

    Example:
        >>> vision_aware_heads(torch.tensor([0.0, 1.0, 2.0, 3.0])).tolist()  # the median is 1.5
        [False, False, True, True]
        >>> vision_aware_heads(torch.tensor([0.0, 1.0, 1.0, 1.0])).tolist()
        [False, False, False, False]
    """
    # torch.median takes the lower of the middle two.
    return divergence > divergence.nanquantile(0.5, dim=-1, keepdim=True)


def token_vhd(divergence: Float[Tensor, "*batch layer head"], *, k: int) -> Float[Tensor, "*batch"]:
    """Return T-VHD, how much a token relies on the image: the sum over layers of the k largest VHD.

    0 for a token that comes out as if there were no image; without an upper bound. It grows with
    `k`, which the paper does not print: compare like with like.

    Args:
        divergence: VHD at the position that predicts the token, layers and heads last.
        k: Heads of each layer that count.

    Raises:
        MetricError: `k` is not from 1 to the number of heads.

    Reference: He et al. 2024, arXiv:2412.13949, equation 5.

    Example:
        >>> token_vhd(torch.tensor([[5.0, 1.0]]), k=1), token_vhd(torch.tensor([[5.0, 1.0]]), k=2)
        (tensor(5.), tensor(6.))
    """
    if not 1 <= k <= divergence.shape[-1]:
        raise MetricError(f"T-VHD of the {k} largest of {divergence.shape[-1]} heads")
    chosen = top_count(divergence, k)
    total = torch.where(chosen, divergence, 0).sum((-2, -1))
    # A layer with fewer than k heads that are known has no sum of k.
    return torch.where((chosen.sum(-1) == k).all(-1), total, torch.nan)


def _above_most(values: Tensor, sample_std: bool) -> Tensor:
    if sample_std and values.shape[-1] < 2:
        return torch.zeros_like(values, dtype=torch.bool)
    spread = values.std(-1, correction=1 if sample_std else 0, keepdim=True)
    return values > values.mean(-1, keepdim=True) + spread
