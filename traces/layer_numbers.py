"""`layer_runs`: numbers of layers as people write them."""

from collections.abc import Iterable

__all__ = ["layer_runs"]


def layer_runs(layers: Iterable[int]) -> str:
    """Return numbers with consecutive ones joined.

    Example:
        >>> layer_runs([7, 0, 1, 2, 3])
        '0-3, 7'
    """
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
