"""The control with heads grouped at random."""

import torch

from attnscope.credit import Global, ShuffledHeads
from tests.credit.batches import by_hand


def test_groups_keep_their_sizes_and_lose_their_meaning():
    spans = torch.arange(40.0).reshape(4, 10)
    usual = Global().preset.grouping(spans, 0.3)
    preset = ShuffledHeads(rule=Global(), seed=1).preset
    shuffled = preset.grouping(spans, 0.3)
    assert int(shuffled.local_heads.sum()) == int(usual.local_heads.sum()) == 12
    assert not (shuffled.local_heads & shuffled.global_heads).any()
    assert not torch.equal(shuffled.local_heads, usual.local_heads)
    again = ShuffledHeads(rule=Global(), seed=1).preset.grouping(spans, 0.3)
    assert torch.equal(shuffled.local_heads, again.local_heads)


def test_the_rule_itself_is_unchanged():
    rule = ShuffledHeads(rule=Global())
    assert torch.equal(rule.assign(by_hand()).weights, Global().assign(by_hand()).weights)
    assert rule.needs == Global().needs
    assert torch.equal(rule.emphasize(by_hand()).weights, Global().assign(by_hand()).weights)
