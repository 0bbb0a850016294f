"""The control that amplifies a kind of token."""

import torch

from attnscope.credit import Readings, TokenClass


def test_tokens_of_the_class_are_amplified_inside_the_mask():
    readings = Readings(
        mask=torch.tensor([[True, True, True, False]]), ids=torch.tensor([[4, 7, 9, 4]])
    )
    credit = TokenClass(tokens=frozenset({4, 9})).assign(readings)
    assert credit.weights.tolist() == [[1.5, 1.0, 1.5, 0.0]]
    assert credit.classes["class"].tolist() == [[True, False, True, False]]
