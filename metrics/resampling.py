"""`confidence_table`, `paired_difference`: how sure a score over images is, by bootstrap."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.metrics.errors import MetricError

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["ImageScores", "confidence_table", "paired_difference"]

Totals = Mapping[str, Tensor]


@runtime_checkable
class ImageScores(Protocol):
    """Counts of each image, and the measures that sums of them give."""

    @property
    def counts(self) -> Mapping[str, Tensor]:
        """Return what was counted in each image, one vector by name."""
        ...

    def measures_of(self, totals: Totals) -> Totals:
        """Return the measures, by name, from sums of the counts."""
        ...


def confidence_table(
    scores: ImageScores, *, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> "DataFrame":
    """Return each measure with its bootstrap interval over images.

    Images are drawn with replacement, as many as there are, and the measure is taken of their
    summed counts; the interval spans the middle `level` of what comes out. Draws in which a
    measure is undefined are left out. One row per measure: `value`, `low`, `high`.

    Args:
        scores: What `chair` or `pope` found.
        level: Share of the draws inside the interval.
        samples: How many draws.
        seed: Seed of the draws.

    Raises:
        MetricError: There is no image, or the level is not between 0 and 1.

    Reference: Efron 1979, percentile intervals.

    Example:
        >>> from attnscope.metrics import pope
        >>> scores = pope(["Yes", "Yes"], [True, True])
        >>> confidence_table(scores).loc["accuracy"].tolist()
        [1.0, 1.0, 1.0]
    """
    counts = _table(scores)
    weights = _draws(len(counts), samples, level, seed)
    return _intervals(scores, lambda w: _measures(scores, w @ counts), weights, level)


def paired_difference(
    one: ImageScores,
    other: ImageScores,
    *,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> "DataFrame":
    """Return the difference `one - other` of each measure, with its interval over images.

    Both are scored on the same images in the same order, and every draw takes the same images
    from both, so that what makes an image hard for both cancels. An interval without 0 says that
    the methods differ. One row per measure: `value`, `low`, `high`.

    Args:
        one: What was found of one method.
        other: What was found of the other on the same images.
        level: Share of the draws inside the interval.
        samples: How many draws.
        seed: Seed of the draws.

    Raises:
        MetricError: They are not of the same measures on equally many images.

    Reference: Efron 1979, the bootstrap, on pairs.

    Example:
        >>> from attnscope.metrics import pope
        >>> truths = [True, True, False, False]
        >>> one, other = pope(["yes", "yes", "no", "no"], truths), pope(["yes"] * 4, truths)
        >>> round(float(paired_difference(one, other).value["accuracy"]), 2)
        0.5
    """
    first, second = _table(one), _table(other)
    if list(one.counts) != list(other.counts) or len(first) != len(second):
        raise MetricError(
            f"a paired difference needs the same counts on the same images; got {list(one.counts)} "
            f"of {len(first)} images and {list(other.counts)} of {len(second)}"
        )
    weights = _draws(len(first), samples, level, seed)

    def difference(weights: Tensor) -> Totals:
        left, right = _measures(one, weights @ first), _measures(other, weights @ second)
        return {name: left[name] - right[name] for name in left}

    return _intervals(one, difference, weights, level)


def _table(scores: ImageScores) -> Float[Tensor, "image count"]:
    return torch.stack([column.double() for column in scores.counts.values()], dim=-1)


def _measures(scores: ImageScores, totals: Float[Tensor, "draw count"]) -> Totals:
    names = list(scores.counts)
    return scores.measures_of(dict(zip(names, totals.unbind(-1), strict=True)))


def _draws(images: int, samples: int, level: float, seed: int) -> Float[Tensor, "draw image"]:
    """Return how often each image is drawn; the first row draws each once."""
    if images < 1 or samples < 1 or not 0 < level < 1:
        raise MetricError(
            f"an interval needs images, samples and a level between 0 and 1; got {images} images, "
            f"{samples} samples and level {level}"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(images, (samples, images), generator=generator)
    ones = torch.ones(drawn.shape, dtype=torch.float64)
    counted = torch.zeros(samples, images, dtype=torch.float64).scatter_add_(1, drawn, ones)
    return torch.cat([torch.ones(1, images, dtype=torch.float64), counted])


def _intervals(
    scores: ImageScores, measure: Callable[[Tensor], Totals], weights: Tensor, level: float
) -> "DataFrame":
    import pandas

    bounds = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    rows = {
        name: [float(values[0]), *values[1:].nanquantile(bounds).tolist()]
        for name, values in measure(weights).items()
    }
    table = pandas.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
    return table.rename_axis("measure")
