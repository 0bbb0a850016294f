"""The whole of token credit in one call."""

import torch

from attnscope.credit import REV, Coupled, calibrate, padded_batch, token_advantages
from tests.credit.conftest import tiny_policy

RULE = Coupled(preset=REV.changed(near=2, far=7))


def test_advantages_of_tokens_are_multiples_of_the_response_s(policy, completions):
    advantage = torch.tensor([1.0, -2.0, 0.5, 3.0])
    shaped = token_advantages(policy, completions, advantage, RULE)
    factors = (shaped / advantage[:, None])[completions.layout.mask]
    assert {round(float(factor), 6) for factor in factors} <= {1.0, 1.25, 1.5, 1.75}
    assert bool((shaped[~completions.layout.mask] == 0).all())
    assert not shaped.requires_grad


def test_named_heads_and_small_passes_change_nothing(policy, completions):
    advantage = torch.ones(4)
    ranked = token_advantages(policy, completions, advantage, RULE)
    named = token_advantages(
        policy,
        completions,
        advantage,
        RULE,
        calibration=calibrate(policy, completions, RULE.preset),
        micro_batch=1,
    )
    torch.testing.assert_close(named, ranked)


def test_whole_rows_give_what_prompts_and_completions_give(policy, completions):
    advantage = torch.tensor([1.0, -2.0, 0.5, 3.0])
    attended = completions.layout.attended(0, 4)
    response = attended & (torch.arange(29) >= 5)
    rows = padded_batch(completions.ids, attended, response)
    placed = rows.layout.to_tokens(token_advantages(policy, rows, advantage, RULE))
    expected = token_advantages(policy, completions, advantage, RULE)
    torch.testing.assert_close(placed[:, 5:], expected)


def test_a_policy_on_which_nothing_was_read_before_is_as_good(completions):
    advantage = torch.ones(4)
    first, other = (token_advantages(tiny_policy(), completions, advantage, RULE) for _ in range(2))
    assert torch.equal(first, other)
