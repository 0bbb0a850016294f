"""Rewards per token."""

import torch

from attnscope.credit import implicit_rewards, redistributed_shares, returns_to_go


def test_shares_sum_to_one_and_leave_the_rest_at_the_last_token():
    received = torch.tensor([[1.0, 3.0, 9.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    mask = torch.tensor([[True, True, False], [True, True, True], [False] * 3])
    shares = redistributed_shares(received, mask, share=0.8)
    torch.testing.assert_close(
        shares, torch.tensor([[0.2, 0.8, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    )


def test_the_return_at_the_first_token_is_the_whole_score():
    received, mask = torch.rand(3, 6), torch.ones(3, 6, dtype=torch.bool)
    torch.testing.assert_close(
        returns_to_go(redistributed_shares(received, mask))[:, 0], torch.ones(3)
    )


def test_implicit_rewards_are_clipped_and_stay_inside_the_mask():
    rewards = implicit_rewards(
        torch.tensor([[0.0, -9.0, 0.0]]),
        torch.tensor([[-9.0, 0.0, -9.0]]),
        torch.tensor([[True, True, False]]),
        scale=2.0,
        bound=0.5,
    )
    assert rewards.tolist() == [[1.0, -1.0, 0.0]]
