"""The plain formula, by hand, and its terms against the operators that it shares no code with."""

import math

import torch

from attnscope.attention import DenseBias, Mask, SoftmaxAttention
from attnscope.probes.slow_softmax import slow_rows


def test_a_sink_takes_its_share_by_hand():
    zeros = torch.zeros(1, 1, 3, 2)
    rows = slow_rows(zeros, zeros, torch.tensor([2]), scale=1.0, sinks=torch.tensor([math.log(2)]))
    assert [round(float(weight), 6) for weight in rows.flatten()] == [0.2, 0.2, 0.2]


def test_all_terms_agree_with_the_operator():
    torch.manual_seed(0)
    query, key = torch.randn(1, 4, 7, 8), torch.randn(1, 2, 7, 8)
    bias, sinks = torch.randn(4, 7, 7), torch.randn(4)
    mask = Mask(after=0, before=2)
    operator = SoftmaxAttention(
        query, key, 0.4, mask=mask, bias=DenseBias(bias[None]), softcap=3.0, sinks=sinks
    )
    rows, keys = torch.tensor([0, 4, 6]), torch.arange(7)
    found = slow_rows(
        query, key, rows, scale=0.4, hidden=~mask.tile(rows, keys)[None, None],
        added=bias[None][:, :, rows], softcap=3.0, sinks=sinks,
    )  # fmt: skip
    torch.testing.assert_close(found.float(), operator.rows(rows), atol=1e-6, rtol=1e-5)


def test_a_row_that_sees_nothing_is_zero():
    ones = torch.ones(1, 1, 2, 2)
    hidden = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    assert not slow_rows(ones, ones, torch.tensor([0]), scale=1.0, hidden=hidden).any()
