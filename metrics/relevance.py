"""`chefer_relevance`: how much each token raises a target, through all layers of attention."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from attnscope.attention import (
    AttentionOperator,
    HadamardAttention,
    NormalizedRelevance,
    OperatorError,
    PositiveAttention,
    RelevanceOperator,
    RolloutOperator,
    SumAttention,
)
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import precise

__all__ = ["chefer_relevance", "cross_relevance", "gradient_rollout", "positive_gradient"]


def positive_gradient(
    attention: AttentionOperator,
    value: Float[Tensor, "*batch kv_head key dim"],
    gradient: Float[Tensor, "*batch head query dim"],
) -> PositiveAttention:
    """Return `(A_tj dL/dA_tj)^+` of each head as an operator, with `dL/dA_tj = dL/dz_t . v_j`.

    0 where a key is not read or does not raise L; without an upper bound. Factors are kept, never
    a map; the clamp comes before any mean over heads.

    Args:
        attention: The map A.
        value: What it reads; a group of heads may share one.
        gradient: dL/dz, z being the heads' outputs before W_O, as a capture with `gradient=` keeps.

    Raises:
        MetricError: Values or gradient do not fit the attention.

    Reference: Chefer et al. 2021 (ICCV), arXiv:2103.15679, the mean over heads in its first rule.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.5, 0.5], [0.2, 0.8]]]))
        >>> gradient = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
        >>> positive_gradient(A, torch.eye(2)[None], gradient).dense().tolist()
        [[[0.5, 0.0], [0.0, 0.0]]]
    """
    heads, shared = attention.heads, value.shape[-3]
    if not shared or heads % shared:
        raise MetricError(f"{shared} heads of values do not fit the heads of {attention!r}")
    right = precise(value).repeat_interleave(heads // shared, dim=-3)
    try:
        return PositiveAttention(HadamardAttention(attention, precise(gradient), right))
    except OperatorError as error:
        raise MetricError(
            f"values and gradient do not fit the attention that they are of: {error}"
        ) from error


def chefer_relevance(
    influences: Sequence[AttentionOperator], query: int = -1
) -> Float[Tensor, "*batch key"]:
    """Return the relevance of each token of a sequence to one of its tokens.

    ``R <- R + Abar_l R`` from ``R = I`` over the layers, with ``Abar_l`` the mean over heads of
    ``(A_l dL/dA_l)^+``; the row of the query is returned. 0 for a token that no path of positive
    influence joins to the query, which itself begins with 1; without an upper bound.

    The one row is carried from the last layer to the first: L thin products, no matrix.

    Args:
        influences: `positive_gradient` of the layers, in the order in which the model runs them.
            The gradient is of the target's logit.
        query: The token asked about, at which the target is read: by default the last. In a
            classifier with a class token it is 0.

    Raises:
        MetricError: There are no layers, or one is not of one sequence, or signed.

    Reference: Chefer et al. 2021 (ICCV), arXiv:2103.15679, rule of self-attention.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> layer = DenseAttention(torch.tensor([[[0.5, 0.0], [0.0, 0.0]]]))
        >>> chefer_relevance([layer, layer], query=0).tolist()
        [2.25, 0.0]
    """
    _require_layers("chefer_relevance", influences)
    return precise(RelevanceOperator(influences).rows([query]))[..., 0, 0, :]


def gradient_rollout(
    influences: Sequence[AttentionOperator], query: int = -1
) -> Float[Tensor, "*batch key"]:
    """Return the attention rollout of one token over positive gradients instead of attention.

    ``R = B_L ... B_1`` with ``B_l = Abar_l + I``, rows rescaled to 1. 0 for a token that does not
    reach the query; the shares sum to 1.

    With `R_A`, the relevance of layer-wise propagation, in place of A it is the method of Chefer
    et al. 2021 (CVPR), arXiv:2012.09838, as its public code runs it. That code rescales rows as
    here; whether the paper's product does was not to be verified, and `R_A` is not computed here:
    it can be given, as any other influences.

    Args:
        influences: `positive_gradient` of the layers, in the order in which the model runs them.
        query: The token asked about; by default the last.

    Raises:
        MetricError: There are no layers, or one is not of one sequence, or signed.

    Reference: Abnar and Zuidema 2020, arXiv:2005.00928, over the influences of Chefer et al. 2021;
        the combination is our reading.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> layer = DenseAttention(torch.tensor([[[0.5, 0.0], [1.0, 0.0]]]))
        >>> gradient_rollout([layer, layer]).tolist()
        [0.75, 0.25]
    """
    _require_layers("gradient_rollout", influences)
    return precise(RolloutOperator(influences).rows([query]))[..., 0, 0, :]


def cross_relevance(
    decoder: Sequence[AttentionOperator],
    cross: Sequence[tuple[int, AttentionOperator]],
    encoder: Sequence[AttentionOperator] = (),
) -> AttentionOperator:
    """Return the relevance of an encoder's tokens to a decoder's, as an operator.

    A cross-attention adds ``Rdd_n^T Cbar Ree_n`` to the relevance of the encoder's tokens, where
    `Rdd` and `Ree` are the decoder's and the encoder's own relevance at that point, `n` their
    normalization (`D (R - I) + I`), and `Cbar` the mean over heads of ``(A dL/dA)^+``. Each later
    self-attention of the decoder adds ``Sbar`` times what there is. Ask `rows([t])` for one token:
    a number of thin products that grows with the square of the layers, and no matrix.

    Args:
        decoder: `positive_gradient` of the decoder's self-attention, layer by layer.
        cross: How many of these ran before each cross-attention, and its `positive_gradient`.
        encoder: `positive_gradient` of the encoder's self-attention; without any, each of its
            tokens stands for itself.

    Raises:
        MetricError: There is no cross-attention, or one that says that more layers ran before it
            than there are, or a layer is signed.

    Reference: Chefer et al. 2021 (ICCV), arXiv:2103.15679, rules of encoder-decoder attention.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> own = DenseAttention(torch.tensor([[[0.0, 0.0], [0.5, 0.0]]]))
        >>> read = DenseAttention(torch.tensor([[[0.2, 0.0, 0.0], [0.0, 0.4, 0.0]]]), offset=None)
        >>> relevance = cross_relevance([own], [(1, read)])
        >>> [[round(float(x), 4) for x in row] for row in relevance.dense()[0]]
        [[0.2, 0.4, 0.0], [0.0, 0.4, 0.0]]
    """
    if not cross:
        raise MetricError("cross_relevance needs the cross-attention of a decoder; there is none")
    _require_influences("cross_relevance", [*decoder, *encoder, *(layer for _, layer in cross)])
    beyond = [reached for reached, _ in cross if not 0 <= reached <= len(decoder)]
    if beyond:
        raise MetricError(
            f"a cross-attention says that {beyond[0]} layers of the decoder ran before it; "
            f"there are {len(decoder)}"
        )
    read = [NormalizedRelevance(RelevanceOperator(encoder))] if encoder else []
    terms = []
    for reached, layer in cross:
        later = [RelevanceOperator(decoder[reached:])] if decoder[reached:] else []
        own = [NormalizedRelevance(RelevanceOperator(decoder[:reached])).T] if reached else []
        terms.append(_product([*later, *own, layer.mean_heads(), *read]))
    return SumAttention(terms)


def _product(factors: Sequence[AttentionOperator]) -> AttentionOperator:
    product = factors[-1]
    for factor in reversed(factors[:-1]):
        product = factor @ product
    return product


def _require_layers(metric: str, influences: Sequence[AttentionOperator]) -> None:
    if not influences:
        raise MetricError(f"{metric} needs the layers of a model; none is given")
    for layer, operator in enumerate(influences):
        if operator.queries != operator.keys or operator.shape[-1] != influences[0].shape[-1]:
            raise MetricError(
                f"{metric} needs layers from one sequence to itself; layer {layer} is "
                f"{operator!r}, the first {influences[0]!r}"
            )
    _require_influences(metric, influences)


def _require_influences(metric: str, influences: Sequence[AttentionOperator]) -> None:
    for operator in influences:
        if operator.signed:
            raise MetricError(
                f"{metric} needs influences that are nowhere negative; {operator!r} is signed "
                "(take its positive_gradient, or PositiveAttention)"
            )
