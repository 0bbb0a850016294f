"""Row alignment, on a map made by hand."""

import torch

from attnscope.attention import DenseAttention
from attnscope.credit import emitting_row, own_row
from attnscope.metrics import waad

MAP = [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.2, 0.3, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4]]


def test_a_token_speaks_by_its_own_row_or_by_the_row_before():
    rows = waad(DenseAttention(torch.tensor([MAP])), window=2)[0, 1:]  # the response: tokens 2, 3
    torch.testing.assert_close(own_row(rows[None]), torch.tensor([[0.7, 0.9]]))
    torch.testing.assert_close(emitting_row(rows[None]), torch.tensor([[0.5, 0.7]]))
