"""Which rows count, what they sum to, and their mean."""

import pytest
import torch

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.metrics import MetricError
from attnscope.metrics.rows import chosen_rows, distances, mean_rows, precise, row_shares
from tests.metrics.patterns import NAN, close, normal, sheet

HALF_EMPTY = DenseAttention(torch.tensor([[[0.0, 0.0], [0.25, 0.75]]]))


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        (None, [True, True, True, True]),
        ([2, 0], [True, False, True, False]),
        ([-1], [False, False, False, True]),
        (slice(1, 3), [False, True, True, False]),
        (torch.tensor([1]), [False, True, False, False]),
        (torch.tensor([True, False, False, True]), [True, False, False, True]),
        ([], [False, False, False, False]),
        (range(2), [True, True, False, False]),
    ],
)
def test_rows_are_chosen_by_any_index(queries: object, expected: list[bool]) -> None:
    assert chosen_rows(sheet(), queries).tolist() == [expected]  # pyright: ignore[reportArgumentType]


def test_items_of_a_batch_may_choose_their_own_rows() -> None:
    batch = DenseAttention(sheet().pattern.expand(2, 1, 4, 4))
    own = torch.tensor([[[True, False, False, True]], [[False, True, False, False]]])
    assert torch.equal(chosen_rows(batch, own), own)


def test_rows_that_see_nothing_are_never_chosen() -> None:
    assert chosen_rows(HALF_EMPTY, [0, 1]).tolist() == [[False, True]]


@pytest.mark.parametrize("queries", [[4], [-5], torch.tensor([True] * 5)])
def test_rows_outside_are_refused(queries: object) -> None:
    with pytest.raises(MetricError, match=r"reach outside .* its rows go from 0 to 3"):
        chosen_rows(sheet(), queries)  # pyright: ignore[reportArgumentType]


def test_the_mean_of_no_rows_is_undefined() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, NAN]])
    rows = torch.tensor([[True, True], [True, False]])
    close(mean_rows(values, rows), [2.0, 5.0])
    close(mean_rows(values, torch.zeros(1, 2, dtype=torch.bool)), [NAN, NAN])


def test_shares_are_one_or_what_a_sink_leaves_and_undefined_for_empty_rows() -> None:
    close(row_shares(sheet(), "m"), [[1.0, 1.0, 1.0, 1.0]])
    close(row_shares(HALF_EMPTY, "m"), [[NAN, 1.0]])
    A = SoftmaxAttention(normal(0, 2, 5, 4), normal(1, 2, 5, 4), sinks=normal(2, 2))
    close(row_shares(A, "m"), A.dense().sum(-1))


def test_distances_count_backwards_from_the_query() -> None:
    A = DenseAttention(sheet().pattern[:, 2:])
    assert distances(A, slice(0, 2), 2).tolist() == [[2, 1, 0, -1], [3, 2, 1, 0]]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_readings_have_single_precision_at_least(given: torch.dtype, kept: torch.dtype) -> None:
    assert precise(torch.zeros(1, dtype=given)).dtype == kept
