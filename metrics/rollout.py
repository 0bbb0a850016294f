"""`attention_rollout`: how much of each token reaches another by attention, through all layers."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator, RolloutOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.rows import precise, row_shares

__all__ = ["attention_rollout"]


def attention_rollout(
    operators: Sequence[AttentionOperator], query: int = -1
) -> Float[Tensor, "*batch key"]:
    """Return the attention rollout of one token: the share of each input token in it.

    ``R = B_L ... B_1`` with ``B_l = (mean over heads of A_l + I) / 2``, rows rescaled to 1; the row
    of the query is returned. Half of each layer is the residual stream, by assumption. 0 for a
    token that cannot reach the query; the shares sum to 1, so a token with 1 is all there is.

    Layers are applied to the one row from the last to the first: L thin products, no matrix.

    Args:
        operators: The layers in the order in which the model runs them.
        query: The token asked about; by default the last.

    Raises:
        MetricError: There are no layers, one is not square, or one is not a distribution.

    Reference: Abnar and Zuidema 2020, arXiv:2005.00928, attention rollout.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> layer = DenseAttention(torch.tensor([[[0.5, 0.5], [0.2, 0.8]]]))
        >>> [round(float(x), 4) for x in attention_rollout([layer, layer])]
        [0.165, 0.835]
    """
    if not operators:
        raise MetricError("attention_rollout needs the layers of a model; none is given")
    for layer, operator in enumerate(operators):
        if operator.queries != operator.keys or operator.shape[-1] != operators[0].shape[-1]:
            raise MetricError(
                f"attention_rollout needs layers from one sequence to itself; layer {layer} is "
                f"{operator!r}, the first {operators[0]!r}"
            )
        row_shares(operator, "attention_rollout")
    return precise(RolloutOperator(operators).rows([query]))[..., 0, 0, :]
