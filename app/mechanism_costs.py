"""`measured_costs`: how the time of a mechanism grows with its tokens, on this machine."""

import time
from collections.abc import Sequence

import torch

from attnscope.app.mechanism_gallery import Mechanism, drawn

__all__ = ["SIDES", "measured_costs"]

SIDES = (8, 16, 24, 32, 48)
"""Sides of the grids that are timed: 64 to 2,304 tokens."""

_TRIES = 3


def measured_costs(mechanism: Mechanism, sides: Sequence[int] = SIDES) -> list[tuple[int, float]]:
    """Return tokens and milliseconds of a forward pass for each grid, the best of three tries."""
    return [(side * side, 1000 * _seconds(mechanism, side)) for side in sides]


@torch.no_grad()
def _seconds(mechanism: Mechanism, side: int) -> float:
    module, features = drawn(mechanism, side)
    module(features)  # what is built at the first call is not the mechanism's cost
    tries = []
    for _ in range(_TRIES):
        begin = time.perf_counter()
        module(features)
        tries.append(time.perf_counter() - begin)
    return min(tries)
