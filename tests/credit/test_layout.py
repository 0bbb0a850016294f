"""Where sequences and responses lie."""

import pytest
import torch

from attnscope.credit import CreditError, Stretch
from attnscope.credit.layout import completion_layout, packed_layout, padded_layout


def test_padding_is_cut_away_on_both_sides():
    layout = completion_layout(
        torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0]]),
        torch.tensor([[1, 1], [1, 0], [0, 0], [0, 0]]),
    )
    assert layout.stretches == (
        Stretch(row=0, start=1, stop=5, first=3, end=5),
        Stretch(row=1, start=0, stop=4, first=3, end=4),
        Stretch(row=2, start=2, stop=3, first=3, end=3),
        Stretch(row=3, start=3, stop=3, first=3, end=3),
    )
    assert layout.mask.tolist() == [[True, True], [True, False], [False] * 2, [False] * 2]
    assert layout.in_rows(0, 3) == [0, 1]
    assert layout.attended(0, 2).int().tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


def test_a_tool_s_words_are_read_and_given_no_credit():
    layout = completion_layout(
        torch.tensor([[1]]), torch.tensor([[1, 1, 1]]), torch.tensor([[1, 0, 1]])
    )
    assert layout.stretches[0].end == 4
    assert layout.mask.tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("prompt", "completion"), [([[1, 0, 1]], [[1]]), ([[1, 1, 0]], [[1]]), ([[1, 1, 1]], [[0, 1]])]
)
def test_padding_between_tokens_is_refused(prompt, completion):
    with pytest.raises(CreditError, match="row 0 has padding between its tokens"):
        completion_layout(torch.tensor(prompt), torch.tensor(completion))


def test_packed_sequences_begin_where_positions_do_not_go_on():
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 0]])
    own = torch.tensor([[0, 1, 0, 1, 0, 0, 1, 0, 0]])
    layout = packed_layout(positions, own)
    assert layout.stretches == (
        Stretch(row=0, start=0, stop=4, first=1, end=4),
        Stretch(row=0, start=4, stop=7, first=6, end=7),
    )
    assert layout.mask.tolist() == [[True, False, True], [True, False, False]]
    placed = layout.to_tokens(torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]]))
    assert placed.tolist() == [[0, 1, 0, 2, 0, 0, 3, 0, 0]]


def test_whole_rows_may_be_padded_on_both_sides():
    layout = padded_layout(
        torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]),
        torch.tensor([[0, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]),
    )
    assert layout.stretches == (
        Stretch(row=0, start=1, stop=5, first=2, end=5),
        Stretch(row=1, start=0, stop=3, first=3, end=3),
        Stretch(row=2, start=0, stop=0, first=0, end=0),
    )
    assert layout.mask.tolist() == [[True, False, True], [False] * 3, [False] * 3]
    placed = layout.to_tokens(torch.tensor([[1.0, 0.0, 2.0], [0.0] * 3, [0.0] * 3]))
    assert placed.tolist() == [[0, 0, 1, 0, 2, 0], [0.0] * 6, [0.0] * 6]


def test_weights_of_completions_go_back_to_their_columns():
    layout = completion_layout(torch.tensor([[1, 1], [0, 1]]), torch.tensor([[1, 1], [1, 0]]))
    placed = layout.to_tokens(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    assert placed.tolist() == [[0, 0, 1, 2], [0, 0, 3, 0]]


def test_no_packed_response_is_no_response():
    layout = packed_layout(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
    assert layout.stretches == ()
    assert layout.mask.shape == (0, 0)
