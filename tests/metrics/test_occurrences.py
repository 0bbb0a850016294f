"""Attention to keys of the same label."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.metrics.occurrences import attention_to_matches
from tests.metrics.patterns import close, lists, random_operator


@pytest.mark.parametrize("tile", [1, 40, 2**22])
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_agrees_with_a_loop_over_pairs(tile: int, queries: int, keys: int, seed: int) -> None:
    A = random_operator(seed, 2, 2, queries, keys, causal=False)
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randint(0, 3, (queries,), generator=generator)
    labels = torch.randint(0, 4, (keys,), generator=generator)
    last = torch.randint(-1, keys, (queries,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnscope.metrics.occurrences._TILE", tile)
        mass, matches = attention_to_matches(A, wanted, labels, last)
    pairs = [
        [s for s in range(keys) if labels[s] == wanted[t] and s <= last[t]] for t in range(queries)
    ]
    assert matches.tolist() == [len(found) for found in pairs]
    slow = [
        [[sum(row[s] for s in pairs[t]) for t, row in enumerate(head)] for head in batch]
        for batch in lists(A.pattern)
    ]
    close(mass, slow)


def test_no_query_with_a_match_costs_nothing() -> None:
    A = random_operator(0, 1, 3, 3)
    labels = torch.tensor([1, 2, 3])
    mass, matches = attention_to_matches(A, labels + 5, labels, torch.tensor([2, 2, 2]))
    assert matches.tolist() == [0, 0, 0]
    close(mass, [[0.0, 0.0, 0.0]])
