"""Thresholds of coupled credit."""

import torch

from attnscope.credit import FixedThreshold, nearest_change, response_median


def test_the_median_is_of_defined_values_and_the_lower_of_two():
    values = torch.tensor([[4.0, 1.0, torch.nan, 2.0, 3.0], [torch.nan] * 5])
    assert response_median(values)[0].tolist() == [2.0]
    assert response_median(values)[1].isnan().all()
    assert response_median(torch.zeros(2, 0)).shape == (2, 1)


def test_a_fixed_threshold_is_the_same_for_all():
    assert FixedThreshold(1.5)(torch.zeros(2, 3)).tolist() == [[1.5], [1.5]]


def test_the_nearest_change_skips_what_is_undefined():
    before = torch.tensor([[[torch.nan, 1.0, 2.0]]])
    assert nearest_change(before, torch.tensor([[0.5]])).tolist() == [[1]]
