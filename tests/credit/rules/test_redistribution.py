"""Credit by a reward model's attention."""

import torch

from attnscope.credit import Readings, Redistributed


def test_weights_are_what_is_still_to_be_earned():
    readings = Readings(
        mask=torch.tensor([[True, True, True, False]]),
        received=torch.tensor([[1.0, 1.0, 2.0, 9.0]]),
    )
    assert Redistributed(share=1.0).assign(readings).weights.tolist() == [[1.0, 0.75, 0.5, 0.0]]
    assert Redistributed(share=0.0).assign(readings).weights.tolist() == [[1.0, 1.0, 1.0, 0.0]]
