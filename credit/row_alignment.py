"""Which row of the attention speaks for a token: the one that it is read from, or its own.

A token is drawn from the state at the position before it (the emitting row) and then read at its
own position (its own row). Row metrics such as WAAD and entropy differ between the two; column
metrics such as FAI belong to the token's own position in either case.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

__all__ = ["RowAlignment", "emitting_row", "own_row"]

RowAlignment = Callable[[Tensor], Tensor]
"""Picks one value per response token from a row metric, whose column 0 is before the response."""


def own_row(rows: Float[Tensor, "batch row"]) -> Float[Tensor, "batch response"]:
    """Return the value of each token's own row, the state after it was written.

    Example:
        >>> import torch
        >>> own_row(torch.tensor([[9.0, 3.0, 1.0]])).tolist()  # 9 belongs to the last prompt token
        [[3.0, 1.0]]
    """
    return rows[:, 1:]


def emitting_row(rows: Float[Tensor, "batch row"]) -> Float[Tensor, "batch response"]:
    """Return the value of the row that each token was drawn from, one position earlier.

    Example:
        >>> import torch
        >>> emitting_row(torch.tensor([[9.0, 3.0, 1.0]])).tolist()
        [[9.0, 3.0]]
    """
    return rows[:, :-1]
