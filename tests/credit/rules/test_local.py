"""Local-chunk credit."""

import pytest
import torch

from attnscope.credit import REV, CreditError, Local, Readings, emitting_row
from tests.credit.batches import by_hand


def test_the_case_worked_by_hand():
    assert Local().assign(by_hand()).weights.tolist() == [[1.5, 1.0, 1.0, 1.5, 1.0]]


def test_the_last_token_has_no_change_of_its_own():
    everything = Local(preset=REV.changed(share=1.0)).assign(by_hand())
    assert everything.weights.tolist() == [[1.5, 1.5, 1.5, 1.5, 1.0]]


def test_with_the_emitting_row_every_token_has_a_change():
    readings = by_hand(local_waad=torch.tensor([[0.0, 3.0, 1.0, 1.0, 2.0, 0.5]]))
    rule = Local(preset=REV.changed(rows=emitting_row))  # changes 3, 2, 0, 1, 1.5
    assert rule.assign(readings).weights.tolist() == [[1.5, 1.5, 1.0, 1.0, 1.0]]


def test_missing_readings_are_named():
    with pytest.raises(CreditError, match=r"Local needs local_waad; these .* \['mask'\]"):
        Local().assign(Readings(mask=torch.ones(1, 3, dtype=torch.bool)))
