"""Cutting sequences out of their rows, a few at a time."""

import torch

from attnscope.credit import Stretch
from attnscope.credit.aligned_sequences import aligned_chunks

STRETCHES = [
    (0, Stretch(row=2, start=1, stop=4, first=2, end=4)),
    (1, Stretch(row=3, start=0, stop=2, first=0, end=1)),
    (4, Stretch(row=3, start=2, stop=5, first=4, end=5)),
]


def test_sequences_are_set_side_by_side_from_their_first_token():
    (chunk,) = aligned_chunks(STRETCHES, (2, 5, 3), per_chunk=100)
    part = torch.arange(10.0).reshape(2, 1, 5, 1)
    assert chunk.numbers == (0, 1, 4)
    assert chunk.align(part)[:, 0, :, 0].tolist() == [[1, 2, 3], [5, 6, 6], [7, 8, 9]]
    assert chunk.responses[:, 0].int().tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 1]]


def test_row_metrics_begin_one_row_before_the_response():
    (chunk,) = aligned_chunks(STRETCHES, (2, 5, 3), per_chunk=100)
    rows = chunk.by_row(torch.tensor([[1.0, 2, 3], [5, 6, 6], [7, 8, 9]])[:, None])[:, 0]
    nan = torch.nan
    expected = torch.tensor([[1.0, 2, 3, nan], [nan, 5, nan, nan], [8, 9, nan, nan]])
    torch.testing.assert_close(rows, expected, equal_nan=True)


def test_a_chunk_holds_as_many_as_fit_and_one_at_least():
    assert [c.numbers for c in aligned_chunks(STRETCHES, (2, 5, 3), per_chunk=6)] == [(0, 1), (4,)]
    assert [len(c.numbers) for c in aligned_chunks(STRETCHES, (2, 5, 3), per_chunk=1)] == [1, 1, 1]
    assert list(aligned_chunks([], (0, 5, 3), per_chunk=6)) == []
