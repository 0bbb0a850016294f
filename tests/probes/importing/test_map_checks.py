"""What is checked of maps from elsewhere."""

import pytest
import torch

from attnscope.probes import CaptureError
from attnscope.probes.importing.map_checks import checked_map


def test_a_map_loses_its_batch_of_one_and_its_graph():
    pattern = torch.eye(3, requires_grad=True).expand(1, 2, 3, 3)
    assert checked_map(pattern, "it").shape == (2, 3, 3)
    assert not checked_map(pattern, "it").requires_grad


def test_queries_that_see_nothing_are_no_error():
    pattern = torch.eye(3)[None].clone()
    pattern[0, 0] = 0
    assert torch.equal(checked_map(pattern, "it"), pattern)


def test_a_causal_map_reads_no_later_position():
    checked_map(torch.eye(3)[None], "it", causal=True)
    with pytest.raises(CaptureError, match="it reads later positions"):
        checked_map(torch.full((1, 3, 3), 1 / 3), "it", causal=True)
    checked_map(torch.full((1, 1, 3), 1 / 3), "it", causal=True)  # the last query at the last key


def test_bfloat16_rows_sum_as_exactly_as_they_can():
    pattern = torch.randn(2, 40, 40).softmax(-1).bfloat16()
    assert checked_map(pattern, "it").dtype == torch.bfloat16
