"""The exact value of a state: whether the target can still be reached from it."""

from functools import cache

from benchmarks.credit.task import State, steps_from

__all__ = ["reachable", "solvable"]


@cache
def reachable(state: State) -> frozenset[int]:
    """Return every value that some order of operations makes of all numbers of a state.

    Example:
        >>> sorted(reachable((2, 3)))
        [1, 5, 6]
    """
    if len(state) == 1:
        return frozenset(state)
    return frozenset().union(*(reachable(after) for _, after in steps_from(state)))


def solvable(state: State, target: int) -> bool:
    """Return whether the target can be reached from a state.

    Example:
        >>> solvable((3, 7, 8), 29), solvable((10, 8), 29)  # 3 * 7 + 8; not after 3 + 7
        (True, False)
    """
    return target in reachable(state)
