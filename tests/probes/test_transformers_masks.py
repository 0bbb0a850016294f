"""Masks that transformers composes are read back as rules, and checked."""

import pytest
import torch
from transformers import masking_utils as library

from attnscope.probes import CaptureError
from attnscope.probes.adapters import transformers_masks
from attnscope.probes.adapters.transformers_masks import lazy_mask, mask_inside

BLOCKS = torch.tensor([[-1, 0, 0, 0, -1, 1, 1, -1, -1, -1]])
PACKED = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2, 2, 2]])
POSITIONS = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]])
CAUSAL = library.causal_mask_function
COMPOSED = {
    "causal": CAUSAL,
    "bidirectional": library.bidirectional_mask_function,
    "window": library.sliding_window_causal_mask_function(3),
    "both sides": library.sliding_window_bidirectional_mask_function(2),
    "chunks": library.chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.long)),
    "image blocks": library.or_masks(CAUSAL, library.blockwise_overlay(BLOCKS)),
    "packed": library.packed_sequence_compatibility_function(CAUSAL, POSITIONS, PACKED),
    "packed window": library.packed_sequence_compatibility_function(
        library.sliding_window_causal_mask_function(2), POSITIONS, PACKED
    ),
}


@pytest.mark.parametrize("name", COMPOSED)
@pytest.mark.parametrize("padded", [False, True])
def test_rules_equal_the_library_s_own_mask(name, padded):
    padding = torch.ones(1, 10, dtype=torch.bool)
    padding[0, :2] = not padded
    arguments = {
        "batch_size": 1,
        "q_length": 10,
        "kv_length": 10,
        "mask_function": COMPOSED[name],
        "attention_mask": padding,
    }
    expected = library.sdpa_mask(**arguments, allow_is_causal_skip=False)
    placeholder = lazy_mask(**arguments)
    mask = mask_inside(placeholder, 10)
    positions = torch.arange(10)
    assert torch.equal(mask.tile(positions, positions).expand(1, 10, 10), expected[:, 0])
    assert mask.allowed is None  # rules, not an array
    assert placeholder.shape == (1, 1, 10, 10)
    assert placeholder.untyped_storage().nbytes() == 4


def test_rules_hold_for_queries_after_a_cache():
    arguments = {
        "batch_size": 1,
        "q_length": 3,
        "kv_length": 9,
        "q_offset": 6,
        "mask_function": COMPOSED["window"],
    }
    expected = library.sdpa_mask(**arguments, allow_is_causal_skip=False)
    mask = mask_inside(lazy_mask(**arguments), 9)
    assert torch.equal(mask.tile(torch.arange(3), torch.arange(9)), expected[0, 0])


def test_an_unknown_rule_is_taken_entry_by_entry_while_it_is_small(monkeypatch):
    def every_third(batch, head, query, key):
        return (query - key) % 3 == 0

    mask = mask_inside(lazy_mask(1, 6, 6, mask_function=every_third), 6)
    assert mask.allowed[0].tolist() == [True, False, False, True, False, False]
    monkeypatch.setattr(transformers_masks, "TILE_LIMIT", 30)
    with pytest.raises(CaptureError, match="none of the known rules"):
        lazy_mask(1, 6, 6, mask_function=every_third)


def test_a_rule_that_lies_about_itself_is_noticed():
    def sliding_window_overlay():
        sliding_window = 2

        def inner_mask(batch, head, query, key):
            return key > query - sliding_window - 1  # one more than the name says

        return inner_mask

    function = library.and_masks(sliding_window_overlay(), CAUSAL)
    function.__closure__[0].cell_contents[
        0
    ].__qualname__ = "sliding_window_overlay.<locals>.inner_mask"
    mask = mask_inside(lazy_mask(1, 8, 8, mask_function=function), 8)
    assert mask.allowed is not None
    assert mask.allowed[5].tolist() == [False, False, False, True, True, True, False, False]


def test_a_model_that_computes_with_its_mask_is_refused():
    placeholder = lazy_mask(1, 4, 4, mask_function=CAUSAL)
    with pytest.raises(CaptureError, match="computes with its attention mask"):
        mask_inside(placeholder + 1, 4)
