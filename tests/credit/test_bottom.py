"""The bottom share."""

import torch

from attnscope.credit import bottom_share


def test_ties_go_to_the_earlier_token_and_nan_to_none():
    scores = torch.tensor([1.0, torch.nan, 0.0, 0.0, 0.0])
    assert bottom_share(scores, 0.4).tolist() == [False, False, True, True, False]
    assert bottom_share(scores, 0.5, total=2).tolist() == [False, False, True, False, False]
