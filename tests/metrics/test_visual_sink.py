"""Visual attention sinks on the cases worked by hand, against loops, and on other operators."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import DenseAttention, KernelAttention, SoftmaxAttention
from attnscope.metrics import (
    MetricError,
    find_sink_dimensions,
    image_attention,
    image_centric_heads,
    sink_dimension_value,
    sink_tokens,
    visual_nonsink_ratio,
)
from tests.metrics.patterns import NAN, close, lists, normal, pattern

ROW = DenseAttention(torch.tensor([[[0.3, 0.2, 0.1, 0.1, 0.3]]]))
SINKS = torch.tensor([True, True, False, False, False])
IMAGE = [1, 2, 3]


def test_the_cases_worked_by_hand() -> None:
    states = torch.tensor([[0.0, 8.0, 0.0, 0.0], [1.0] * 4])
    close(sink_dimension_value(states, [1]), [2.0, 1.0])
    close(image_attention(ROW, IMAGE), [[0.4]])
    close(visual_nonsink_ratio(ROW, IMAGE, SINKS), [[0.5]])
    for rho, chosen in ((0.5, True), (0.51, False)):
        assert image_centric_heads(torch.tensor(0.4), torch.tensor(0.5), rho=rho).item() is chosen


@pytest.mark.parametrize(
    ("rho", "paper", "code"), [(0.3, True, False), (0.5, True, True), (0.7, False, True)]
)
def test_the_published_code_tests_the_complement(rho: float, paper: bool, code: bool) -> None:
    mass, ratio = torch.tensor([0.2]), torch.tensor([0.5])
    assert image_centric_heads(mass, ratio, rho=rho).tolist() == [paper]
    assert image_centric_heads(mass, ratio, rho=rho, by_portion=True).tolist() == [code]
    assert image_centric_heads(mass / 2, ratio, rho=0.5).tolist() == [False]
    assert image_centric_heads(mass, torch.tensor([NAN]), rho=0.0).tolist() == [False]


def test_sinks_reach_tau_in_one_of_the_dimensions() -> None:
    hidden = normal(0, 3, 900)
    hidden[1, 7] = 400.0
    value = sink_dimension_value(hidden, [7, 11])
    slow = [
        max(abs(row[d]) for d in (7, 11)) / (sum(x * x for x in row) / len(row)) ** 0.5
        for row in lists(hidden)
    ]
    close(value, slow)
    assert sink_tokens(value).tolist() == [False, True, False]
    close(sink_dimension_value(hidden), hidden.abs().amax(-1) / hidden.square().mean(-1).sqrt())
    close(sink_dimension_value(torch.zeros(1, 4), [0]), [NAN])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(1, 9), st.floats(0.1, 99.0))
def test_the_value_is_free_of_scale_and_below_the_root_of_the_width(
    seed: int, width: int, scale: float
) -> None:
    hidden = normal(seed, 4, width)
    value = sink_dimension_value(hidden, range(width))
    close(sink_dimension_value(-scale * hidden, range(width)), value)
    assert float(value.max()) <= width**0.5 + 1e-9
    assert float(value.min()) >= 1.0 - 1e-9  # the largest entry is at least the mean square's root


def test_sink_dimensions_are_massive_in_every_prompt() -> None:
    prompts = [normal(seed, 2, 5, 900) for seed in range(3)]
    for prompt in prompts:
        prompt[1, 0, 33], prompt[1, 0, 7] = 600.0, -900.0  # in one of the layers
    prompts[0][0, 0, 500] = 800.0  # in one of the prompts
    prompts[1][0, 3, 400] = 800.0  # at another token
    assert find_sink_dimensions(prompts, tau=10.0) == (7, 33)
    assert find_sink_dimensions(prompts, tau=10.0, token=3) == ()
    with pytest.raises(MetricError, match="at most 30, the square root"):
        find_sink_dimensions(prompts, tau=31.0)
    with pytest.raises(MetricError, match="one width; got"):
        find_sink_dimensions([])


def test_agrees_with_a_loop_over_lists_on_every_operator() -> None:
    fused = SoftmaxAttention(normal(0, 2, 6, 3), normal(1, 1, 6, 3))
    kernel = KernelAttention(normal(2, 2, 6, 3).exp(), normal(3, 2, 6, 3).exp(), causal=True)
    sinks = torch.tensor([True, False, True, False, False, True])
    for attention in (DenseAttention(pattern(0, 2, 6, 6)), fused, kernel.normalized()):
        rows = lists(attention.dense())
        mass = [[sum(row[j] for j in IMAGE) for row in head] for head in rows]
        seen = [[row[1] + row[3] for row in head] for head in rows]
        close(image_attention(attention, IMAGE), mass)
        wanted = torch.tensor(seen) / torch.tensor(mass)
        close(visual_nonsink_ratio(attention, IMAGE, sinks), wanted)


def test_an_image_that_nobody_reads_has_no_ratio() -> None:
    attention = DenseAttention(torch.eye(5)[None])
    close(visual_nonsink_ratio(attention, [3], SINKS), [[NAN, NAN, NAN, 1.0, NAN]])
    close(image_attention(attention, [3]), [[0.0, 0.0, 0.0, 1.0, 0.0]])


def test_refuses_what_is_not_there() -> None:
    with pytest.raises(MetricError, match=r"sink dimensions \[4\] .* from 0 to 3"):
        sink_dimension_value(torch.ones(2, 4), [4])
    with pytest.raises(MetricError, match="name at least one"):
        sink_dimension_value(torch.ones(2, 4), [])
    with pytest.raises(MetricError, match=r"keys \[5\]"):
        image_attention(ROW, [5])
    with pytest.raises(MetricError, match="sinks for the 5 keys"):
        visual_nonsink_ratio(ROW, IMAGE, SINKS[:2])
    with pytest.raises(MetricError, match="signed"):
        image_attention(DenseAttention(torch.tensor([[[1.5, -0.5]]])), [0])
