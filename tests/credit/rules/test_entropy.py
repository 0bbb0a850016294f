"""Credit by entropy: amplified tokens of a response, kept tokens of a batch."""

import torch

from attnscope.credit import Entropy, EntropyMask, Readings, own_row


def readings() -> Readings:
    nan = torch.nan
    return Readings(
        mask=torch.tensor([[True] * 5, [True] * 2 + [False] * 3]),
        entropy=torch.tensor([[2.0, 0.1, 0.2, 1.0, 0.3, nan], [5.0, 4.0, nan, nan, nan, nan]]),
    )


def test_the_tokens_drawn_from_the_highest_entropies_are_amplified():
    assert Entropy().assign(readings()).weights.tolist() == [
        [1.5, 1.0, 1.0, 1.5, 1.0],
        [1.5, 1.0, 0.0, 0.0, 0.0],
    ]


def test_a_token_may_be_judged_by_its_own_row():
    assert Entropy(rows=own_row).assign(readings()).weights.tolist() == [
        [1.0, 1.0, 1.5, 1.5, 1.0],
        [1.5, 1.0, 0.0, 0.0, 0.0],
    ]


def test_the_mask_keeps_a_share_of_the_whole_batch():
    kept = EntropyMask(share=0.3).assign(readings())  # 2.1 of 7 tokens
    assert kept.weights.tolist() == [[0.0] * 5, [1.0, 1.0, 0.0, 0.0, 0.0]]
    assert kept.statistics()["weight"] == 2 / 7
