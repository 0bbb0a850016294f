"""Weights, applied and counted."""

import math

import pytest
import torch

from attnscope.credit import Credit, CreditError

MASK = torch.tensor([[True, True, False], [False, False, False]])
CREDIT = Credit(
    weights=torch.tensor([[1.5, 1.0, 0.0], [0.0, 0.0, 0.0]]),
    mask=MASK,
    classes={"anchor": torch.tensor([[True, False, False]] * 2), "other": torch.zeros_like(MASK)},
)


def test_advantages_of_responses_and_of_tokens_are_taken():
    expected = [[3.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    assert CREDIT.apply(torch.tensor([2.0, 7.0])).tolist() == expected
    assert CREDIT.apply(torch.tensor([[2.0, 2.0, 9.0], [7.0, 7.0, 7.0]])).tolist() == expected
    assert CREDIT.apply(torch.tensor([2.0, 7.0], dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_an_unknown_advantage_does_not_leak_into_the_padding():
    assert CREDIT.apply(torch.tensor([torch.nan, 1.0])).isnan().tolist() == MASK.tolist()


def test_advantages_of_other_responses_are_refused():
    with pytest.raises(CreditError, match=r"shape \(3,\), the weights \(2, 3\)"):
        CREDIT.apply(torch.zeros(3))


def test_statistics_count_what_was_selected():
    found = CREDIT.statistics()
    assert found["weight"] == 1.25
    assert found["selected"] == found["share/anchor"] == 0.5
    assert found["weight/anchor"] == 1.5
    assert found["share/other"] == 0.0
    assert math.isnan(found["weight/other"])


def test_totals_of_shards_add_up():
    totals = [
        Credit(weights=CREDIT.weights[i : i + 1], mask=MASK[i : i + 1]).totals()["weight"]
        for i in range(2)
    ]
    assert [sum(part) for part in zip(*totals, strict=True)] == list(CREDIT.totals()["weight"])
