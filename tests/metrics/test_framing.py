"""What surrounds the numbers of a reading."""

from dataclasses import replace

import pytest
import torch

from attnscope.attention import DenseAttention
from attnscope.metrics import METRICS, MetricError
from attnscope.metrics.framing import Frame
from tests.metrics.patterns import TOKENS, observation, sequence


def test_options_are_completed_before_anything_is_measured() -> None:
    frame = Frame(METRICS["waad"], {"renormalize": True})
    assert frame.options == {"window": 10}
    assert frame.renormalize
    with pytest.raises(MetricError, match="waad has no option far"):
        Frame(METRICS["waad"], {"far": 3})


def test_rows_are_rescaled_on_entering() -> None:
    half = observation(0, 0.5 * DenseAttention(observation(0).attention.dense()))
    entered = Frame(METRICS["entropy"], {"renormalize": True}).enter(half)
    torch.testing.assert_close(
        entered.attention.row_mass(), torch.ones(4, TOKENS, dtype=torch.float64)
    )


def test_axes_without_names_of_their_length_go_by_number() -> None:
    frame = Frame(METRICS["waad"], {})
    frame.count(frame.enter(observation(3)))
    whole = frame.read(torch.zeros(1, 4, TOKENS))
    assert whole.coordinates == {"layer": (3,), "head": (0, 1, 2, 3), "query": sequence().tokens}
    assert frame.read(torch.zeros(1, 2, 9)).coordinates == {"layer": (3,), "head": (0, 1)}


def test_a_refused_layer_is_not_counted() -> None:
    frame = Frame(METRICS["largest_activation"], {})
    with pytest.raises(MetricError, match="needs the hidden states, which were not captured"):
        frame.enter(observation(0, hidden=None))
    with pytest.raises(MetricError, match="largest_activation was given no layer"):
        frame.require_layers()
    frame.count(frame.enter(observation(0)))
    frame.require_layers()


def test_gradients_are_off_while_measuring() -> None:
    frame = Frame(replace(METRICS["waad"], name="mine"), {})
    with frame.naming(observation(0)):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
