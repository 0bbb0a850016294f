"""Column sums and row entropies from one pass, in tiles small enough to cross."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from attnscope.attention import SoftmaxAttention
from tests.attention.oracle import Case
from tests.attention.strategies import cases, normal

SETTINGS = settings(max_examples=40, deadline=None, report_multiple_bugs=False)


@pytest.fixture(autouse=True, scope="module")
def small_tiles() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnscope.attention.marginals._TILE_ENTRIES", 1)  # 16 rows, the least
        patch.setattr("attnscope.attention.marginals._TILE_KEYS", 7)
        yield


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


@SETTINGS
@given(cases(plain=True, longest=40))
def test_columns_and_entropies_are_those_of_the_map(case: Case) -> None:
    pattern, operator = case.pattern(), case.operator()
    close(operator.column_mass(), pattern.sum(-2))  # and the normalizer is known from here on
    if operator.stochastic:
        entropy = -torch.special.xlogy(pattern, pattern).sum(-1)
        close(operator.entropy(), entropy.masked_fill(pattern.sum(-1) == 0, torch.nan))


def test_large_scores_do_not_overflow() -> None:
    query, key = (normal(seed, 2, 30, 8).float() * 40 for seed in (0, 1))
    operator = SoftmaxAttention(query, key, 1.0)
    pattern = SoftmaxAttention(query.double(), key.double(), 1.0).dense()
    close(operator.column_mass(), pattern.sum(-2), 1e-3)
    assert bool(operator.entropy().isfinite().all())


def test_both_come_from_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnscope.attention import softmax

    passes = []
    known = softmax.marginals
    monkeypatch.setattr(softmax, "marginals", lambda *given: passes.append(1) or known(*given))
    operator = SoftmaxAttention(normal(0, 2, 30, 8), normal(1, 2, 30, 8))
    for reading in (operator.column_mass, operator.entropy, operator.column_mass):
        reading()
    assert len(passes) == 1


def test_gradients_still_reach_the_factors() -> None:
    query, key = (normal(seed, 2, 30, 8).requires_grad_() for seed in (0, 1))
    operator = SoftmaxAttention(query, key)
    with torch.no_grad():
        operator.column_mass()  # remembered, and of no use where gradients must flow
    (operator.column_mass().square().sum() + operator.entropy().sum()).backward()
    for factor in (query, key):
        assert factor.grad is not None
        assert bool((factor.grad != 0).any())
