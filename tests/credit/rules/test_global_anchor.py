"""Global-anchor and receiver credit."""

import torch

from attnscope.credit import REV, Global, Receiver, bottom_share
from tests.credit.batches import by_hand


def test_the_case_worked_by_hand():
    assert Global().assign(by_hand()).weights.tolist() == [[1.0, 1.5, 1.0, 1.5, 1.0]]


def test_a_share_of_one_takes_every_token_that_has_a_future():
    fai = torch.tensor([[0.1, 0.6, 0.2, torch.nan, torch.nan]])
    credit = Global(preset=REV.changed(share=1.0)).assign(by_hand(global_fai=fai))
    assert credit.weights.tolist() == [[1.5, 1.5, 1.5, 1.0, 1.0]]


def test_a_response_shorter_than_the_horizon_is_left_alone():
    credit = Global().assign(by_hand(global_fai=torch.full((1, 5), torch.nan)))
    assert credit.weights.tolist() == [[1.0] * 5]


def test_ties_go_to_the_earlier_token_and_never_change_the_share():
    credit = Global().assign(by_hand(global_fai=torch.zeros(1, 5)))
    assert credit.weights.tolist() == [[1.5, 1.5, 1.0, 1.0, 1.0]]


def test_the_bottom_is_the_other_end():
    credit = Global(preset=REV.changed(select=bottom_share)).assign(by_hand())
    assert credit.weights.tolist() == [[1.5, 1.0, 1.5, 1.0, 1.0]]


def test_receiver_credit_reads_the_receiver_heads():
    readings = by_hand(receiver_fai=torch.tensor([[0.9, 0.0, 0.8, 0.0, 0.0]]))
    credit = Receiver().assign(readings)
    assert credit.weights.tolist() == [[1.5, 1.0, 1.5, 1.0, 1.0]]
    assert list(credit.classes) == ["anchor"]
