"""Indices, and blocks that hold a bounded number of entries."""

import pytest
import torch

from attnscope.attention import OperatorError
from attnscope.attention.tile import alike, block_length, indices, skew


def test_indices_count_from_either_end() -> None:
    assert indices(2, 5, "key").tolist() == [2]
    assert indices([-1, 0, 0], 5, "key").tolist() == [4, 0, 0]
    assert indices(slice(1, None, 2), 5, "key").tolist() == [1, 3]
    assert indices(slice(-2, 99), 5, "key").tolist() == [3, 4]
    assert indices([], 5, "key").tolist() == []
    assert indices(torch.tensor([[1], [2]]), 5, "key").tolist() == [1, 2]


def test_truth_values_choose_where_they_are_true() -> None:
    assert indices(torch.tensor([True, False, True]), 3, "key").tolist() == [0, 2]
    with pytest.raises(OperatorError, match="true or false for each of 3"):
        indices(torch.tensor([True, False]), 3, "key")


def test_positions_are_whole_numbers() -> None:
    with pytest.raises(OperatorError, match=r"float32; give whole positions"):
        indices(torch.tensor([1.0]), 3, "key")


def test_blocks_hold_a_bounded_number_of_entries() -> None:
    assert block_length((2, 4, 10_000, 10_000)) * 2 * 4 * 10_000 <= 2**22
    assert block_length((64, 64, 10**6, 10**6)) == 16
    assert block_length((1, 1, 3, 0)) >= 3


def test_skewing_reads_diagonals_backwards() -> None:
    tile = torch.tensor([[1, 2, 3, 0], [0, 4, 5, 6]])  # rows end at columns 2 and 3
    assert skew(tile.float(), shift=0, width=3).tolist() == [[3, 2, 1], [6, 5, 4]]
    assert skew(tile.float()[:, 1:], shift=-1, width=3).tolist() == [[3, 2, 0], [6, 5, 4]]
    assert skew(tile.float()[:, :0], shift=-9, width=2).tolist() == [[0, 0], [0, 0]]


def test_two_types_become_the_wider_one() -> None:
    left, right = alike(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.float64))
    assert left.dtype == right.dtype == torch.float64
