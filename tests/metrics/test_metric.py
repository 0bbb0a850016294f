"""What a catalog entry knows of itself."""

import pytest
import torch

from attnscope.attention import DenseAttention, OuterAttention, SoftmaxAttention
from attnscope.metrics import Metric, MetricError, Streamed
from attnscope.metrics.metric import NEEDS
from attnscope.traces import TokenSequence
from tests.metrics.patterns import TOKENS, normal, observation, random_operator

BLANK = Metric(
    name="blank",
    title="Blank",
    axes=("layer",),
    paper="",
    measure=lambda observation, window: torch.zeros(()),
    options={"window": 3},
    bounds=(0.0, "window"),
)


def with_needs(*needs: str) -> Metric:
    return Metric(name="blank", title="", axes=(), paper="", measure=torch.zeros, needs=needs)


def bare(**changes: object) -> object:
    tokens = TokenSequence(name="text", tokens=("x",) * TOKENS)
    attention = OuterAttention(normal(0, 2, TOKENS, 3), normal(1, 2, TOKENS, 3), offset=None)
    facts = {"attention": attention, "queries": tokens, "keys": tokens}
    nothing = {"hidden": None, "value": None, "gradient": None}
    return observation(0, **(facts | nothing | changes))  # pyright: ignore[reportArgumentType]


def test_a_full_observation_lacks_only_what_was_not_captured() -> None:
    assert with_needs(*NEEDS).missing(observation(0, value=None, gradient=None)) == (
        "value",
        "gradient",
    )


def test_a_bare_observation_lacks_everything() -> None:
    assert with_needs(*NEEDS).missing(bare()) == tuple(NEEDS)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("need", NEEDS)
def test_what_is_missing_is_said(need: str) -> None:
    with pytest.raises(MetricError, match=r"blank at layers\.0\.attn needs .* There is Outer"):
        with_needs(need).require(  # pyright: ignore[reportArgumentType]
            bare()  # pyright: ignore[reportArgumentType]
        )


def test_learned_sinks_leave_shares_but_no_distribution() -> None:
    A = SoftmaxAttention(normal(0, 2, TOKENS, 3), normal(1, 2, TOKENS, 3), sinks=normal(2, 2))
    assert with_needs("shares", "distribution").missing(observation(0, A)) == ("distribution",)


def test_options_are_completed_and_unknown_ones_refused() -> None:
    assert BLANK.complete({}) == {"window": 3}
    assert BLANK.complete({"window": 5}) == {"window": 5}
    with pytest.raises(MetricError, match=r"blank has no option widow; it has \['window'\]"):
        BLANK.complete({"widow": 5})


def test_a_bound_may_be_an_option() -> None:
    assert BLANK.limits({"window": 5}) == (0.0, 5.0)
    assert BLANK.limits({"window": None}) == (0.0, None)


def test_a_streamed_measurement_joins_its_layers() -> None:
    streamed = Streamed(
        part=lambda o, power: {"mass": o.attention.row_mass() ** power},
        whole=lambda parts, power: parts["mass"].sum((0, 1)),
    )
    layers = [observation(i, DenseAttention(random_operator(i, 2, 5, 5).pattern)) for i in range(3)]
    torch.testing.assert_close(streamed(layers, power=2), torch.full((5,), 6.0).double())
    over = Metric(name="m", title="", axes=(), paper="", measure=streamed, over="trace")
    assert over.streams
    assert BLANK.streams
    held = Metric(name="m", title="", axes=(), paper="", measure=torch.zeros, over="trace")
    assert not held.streams
