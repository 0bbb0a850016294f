"""`across_stacks`: layers of two kinds, each with its own heads, in one reading."""

import pytest
import torch
from torch import Tensor

from attnscope.metrics import MetricError, Reading, across_stacks


def reading(values: Tensor, layers: tuple[int, ...], **changes: object) -> Reading:
    facts = {"name": "m", "axes": ("layer", "head", "query"), "stack": f"stack of {layers}"}
    return Reading(values=values, coordinates={"layer": layers}, **(facts | changes))


def test_layers_come_in_their_order_and_missing_heads_are_undefined() -> None:
    few = reading(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), (1, 3))
    many = reading(torch.tensor([[[5.0, 6.0], [7.0, 8.0]]], dtype=torch.float64), (2,))
    both = across_stacks([few, many])
    assert both.coordinates == {"layer": (1, 2, 3), "head": (0, 1)}
    assert both.values[:, 0].tolist() == [[1, 2], [5, 6], [3, 4]]
    assert both.values[1, 1].tolist() == [7, 8]
    assert both.values[[0, 2], 1].isnan().all()
    assert both.stack == "stack of (1, 3) + stack of (2,)"


def test_one_reading_stays_as_it_is_but_for_the_order() -> None:
    alone = across_stacks([reading(torch.arange(4.0).reshape(2, 2, 1), (7, 4))])
    assert alone.coordinates["layer"] == (4, 7)
    assert alone.values.flatten().tolist() == [2, 3, 0, 1]


def test_readings_without_heads_are_joined_too() -> None:
    first = reading(torch.tensor([1.0]), (1,), axes=("layer",))
    second = reading(torch.tensor([2.0]), (0,), axes=("layer",))
    assert across_stacks([first, second]).values.tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (reading(torch.ones(1, 1, 2), (1,)), r"layers \[1\] stand in several"),
        (reading(torch.ones(1, 1, 2), (0,), name="n"), "one metric"),
        (reading(torch.ones(1, 1, 3), (0,)), "lengths"),
        (reading(torch.ones(1, 1, 2), (0,), positions={"query": (3, 4)}), "in part"),
    ],
)
def test_readings_that_do_not_belong_together_are_refused(other: Reading, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        across_stacks([reading(torch.ones(1, 1, 2), (1,)), other])


def test_nothing_makes_no_reading() -> None:
    with pytest.raises(MetricError, match="at least one"):
        across_stacks([])
