"""Readings of several stacks of one model on one axis of layers, as hybrid models need them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.functional import pad

from attnscope.metrics.errors import MetricError
from attnscope.metrics.reading import Reading

__all__ = ["across_stacks"]


def across_stacks(readings: Sequence[Reading]) -> Reading:
    """Return the readings of one metric on several stacks as one, layers in their true order.

    A hybrid model has layers of softmax and layers that scan, each kind a stack of its own with
    its own number of heads. Where a layer has fewer heads than another there is NaN.

    Raises:
        MetricError: The readings are of several metrics, differ along another axis than layers and
            heads, or have a layer in common.

    Example:
        >>> import torch
        >>> softmax = Reading(name="m", values=torch.tensor([[1.0]]), axes=("layer", "head"),
        ...                   coordinates={"layer": (1,)}, stack="self_attn")
        >>> scan = Reading(name="m", values=torch.tensor([[2.0, 3.0]]), axes=("layer", "head"),
        ...                coordinates={"layer": (0,)}, stack="mamba")
        >>> both = across_stacks([softmax, scan])
        >>> both.coordinates["layer"], both.values.tolist()
        ((0, 1), [[2.0, 3.0], [1.0, nan]])
    """
    _check(readings)
    first = readings[0]
    layers = [layer for reading in readings for layer in reading.coordinates["layer"]]
    order = sorted(range(len(layers)), key=lambda place: layers[place])
    values = [
        reading.values.to(torch.promote_types(first.values.dtype, torch.float32))
        for reading in readings
    ]
    coordinates = {**first.coordinates, "layer": tuple(layers[place] for place in order)}
    if "head" in first.axes:
        axis = first.axes.index("head")
        most = max(tensor.shape[axis] for tensor in values)
        below = (0, 0) * (values[0].ndim - 1 - axis)
        values = [
            pad(tensor, (*below, 0, most - tensor.shape[axis]), value=torch.nan)
            for tensor in values
        ]
        coordinates["head"] = tuple(range(most))
    return replace(
        first,
        values=torch.cat(values)[order],
        coordinates=coordinates,
        stack=" + ".join(reading.stack for reading in readings),
    )


def _check(readings: Sequence[Reading]) -> None:
    if not readings:
        raise MetricError("give at least one reading")
    kinds = {(reading.name, reading.axes) for reading in readings}
    if len(kinds) > 1 or readings[0].axes[:1] != ("layer",):
        raise MetricError(f"readings of one metric by layer make one reading; got {sorted(kinds)}")
    lengths = {
        tuple(
            size
            for axis, size in zip(reading.axes[1:], reading.values.shape[1:], strict=True)
            if axis != "head"
        )
        for reading in readings
    }
    whole = all(not reading.positions and "layer" in reading.coordinates for reading in readings)
    if len(lengths) > 1 or not whole:
        raise MetricError(
            f"{readings[0].name} was measured on axes of lengths {sorted(lengths)}, or in part; "
            "whole readings over the same tokens make one reading"
        )
    counts = Counter(layer for reading in readings for layer in reading.coordinates["layer"])
    common = sorted(layer for layer, count in counts.items() if count > 1)
    if common:
        raise MetricError(
            f"layers {common} stand in several of {[reading.stack for reading in readings]}: "
            "where two kinds run side by side, look at one stack at a time"
        )
