"""Advantages at the branches of a group, against a walk through every prefix."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope.credit import CreditError, prefix_value_advantages
from tests.credit.batches import SETTINGS


def slowly(ids, lengths, rewards, group):
    result = []
    for i, row in enumerate(ids):
        start = i // group * group
        members = [(rewards[j], ids[j][: lengths[j]]) for j in range(start, start + group)]
        mean = sum(reward for reward, _ in members) / group
        spread = sum((reward - mean) ** 2 for reward, _ in members)
        scale = (spread / (group - 1)) ** 0.5 + 1e-4
        values = [value(members, row[:t]) for t in range(lengths[i] + 1)]
        advantages = [
            (rewards[i] - mean + after - before) / scale for before, after in pairwise(values)
        ]
        result.append(advantages + [0.0] * (len(row) - lengths[i]))
    return result


def value(members, prefix):
    sharing = [reward for reward, tokens in members if tokens[: len(prefix)] == prefix]
    return sum(sharing) / len(sharing)


@SETTINGS
@given(st.integers(0, 300))
def test_branches_are_found_as_by_walking(seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 2, (6, 5), generator=generator)
    lengths = torch.randint(0, 6, (6,), generator=generator)
    rewards = torch.randint(0, 2, (6,), generator=generator).float()
    mask = torch.arange(5) < lengths[:, None]
    found = prefix_value_advantages(ids, mask, rewards, group=3)
    expected = slowly(ids.tolist(), lengths.tolist(), rewards.tolist(), 3)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_responses_that_part_at_once_get_the_plain_advantage_afterwards():
    ids = torch.tensor([[1, 5, 5], [2, 5, 5]])
    values = prefix_value_advantages(ids, torch.ones(2, 3).bool(), torch.tensor([1.0, 0.0]), 2)
    torch.testing.assert_close(values[:, 0], 2 * values[:, 1])
    torch.testing.assert_close(values[:, 1], values[:, 2])


def test_groups_must_be_whole():
    with pytest.raises(CreditError, match="3 responses are not whole groups of 2"):
        prefix_value_advantages(torch.zeros(3, 2).long(), torch.ones(3, 2).bool(), torch.ones(3), 2)
