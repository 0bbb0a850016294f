"""Gradients of every statistic, against finite differences and against eager attention."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import (
    AlibiBias,
    DenseBias,
    Mask,
    RelativeBias,
    SoftmaxAttention,
    key_position,
)
from tests.attention.oracle import Case, band_of, case_pattern, moment
from tests.attention.strategies import cases, normal

KINDS = {
    "causal": {},
    "all to all": {"causal": False},
    "window": {"mask": Mask(after=0, before=2)},
    "unseen rows": {
        "mask": Mask(after=0, key_valid=torch.tensor([False, False, True, True, True]))
    },
    "softcap": {"softcap": 1.5},
    "alibi": {"bias": AlibiBias(torch.tensor([0.5, 0.1], dtype=torch.float64))},
    "sinks": {"sinks": torch.tensor([0.3, -1.0], dtype=torch.float64)},
}

Statistic = Callable[[SoftmaxAttention, Tensor], Tensor]

STATISTICS: dict[str, Statistic] = {
    "apply": lambda attention, value: attention.apply(value),
    "apply_transpose": lambda attention, value: attention.apply_transpose(value),
    "band": lambda attention, value: attention.band(3),
    "column_mass": lambda attention, value: attention.column_mass(),
    "key_moment": lambda attention, value: attention.key_moment(key_position),
    "log_normalizer": lambda attention, value: attention.log_normalizer().nan_to_num(neginf=0.0),
    "output and normalizer": lambda attention, value: torch.cat(
        [attention.attend(value), attention.log_normalizer().unsqueeze(-1).nan_to_num(neginf=0.0)],
        dim=-1,
    ),
    "power_sum": lambda attention, value: attention.power_sum(2.0),
    "row_mass": lambda attention, value: attention.row_mass(),
    "tile": lambda attention, value: attention.tile([3, 1], [0, 1]),
}


def factors(kv_heads: int = 1, length: int = 5, dim: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries of two heads, keys and values, all to be differentiated."""
    heads = (2, kv_heads, 2)
    made = [normal(seed, 1, count, length, dim) for seed, count in enumerate(heads)]
    return made[0].requires_grad_(), made[1].requires_grad_(), made[2].requires_grad_()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_have_the_gradients_of_finite_differences(name: str, kind: str) -> None:
    def function(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return STATISTICS[name](SoftmaxAttention(query, key, **KINDS[kind]), value)

    assert torch.autograd.gradcheck(function, factors(), fast_mode=True)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("sinks", "unseen rows")])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_entropy_has_the_gradient_of_finite_differences(kind: str, kv_heads: int) -> None:
    def function(query: Tensor, key: Tensor) -> Tensor:
        return SoftmaxAttention(query, key, **KINDS[kind]).entropy()

    assert torch.autograd.gradcheck(function, factors(kv_heads)[:2], fast_mode=False)


def eager_statistics(case: Case, value: Tensor, offset: int | None) -> dict[str, Tensor]:
    pattern, normalizer = case_pattern(case)
    seen = pattern.sum(-1) > 0
    logs = torch.where(pattern > 0, pattern, 1.0).log()
    found = {
        "apply": pattern @ value,
        "column_mass": pattern.sum(-2),
        "entropy": torch.where(seen, -(pattern * logs).sum(-1), 0.0),
        "key_moment": moment(pattern, torch.arange(case.sizes[1])),
        "log_normalizer": torch.where(normalizer.isneginf(), 0.0, normalizer),
        "power_sum": pattern.square().sum(-1),
    }
    return found if offset is None else found | {"band": band_of(pattern, 4, offset)}


def fused_statistics(attention: SoftmaxAttention, value: Tensor) -> dict[str, Tensor]:
    normalizer, entropy = attention.log_normalizer(), attention.normalized().entropy()
    found = {
        "apply": attention.apply(value),
        "column_mass": attention.column_mass(),
        "entropy": torch.where(entropy.isnan(), 0.0, entropy),
        "key_moment": attention.key_moment(key_position),
        "log_normalizer": torch.where(normalizer.isneginf(), 0.0, normalizer),
        "power_sum": attention.power_sum(2.0),
    }
    return found if attention.offset is None else found | {"band": attention.band(4)}


@settings(max_examples=60, deadline=None, report_multiple_bugs=False)
@given(cases(longest=9, sinks=False), st.integers(0, 2**31))
def test_all_statistics_together_have_the_gradients_of_eager_attention(
    case: Case, seed: int
) -> None:
    for factor in (case.query, case.key):
        factor.requires_grad_()
    value = normal(seed, *case.batch, case.heads, case.sizes[1], 2).requires_grad_()
    attention = case.operator()
    eager, fused = (
        eager_statistics(case, value, attention.offset),
        fused_statistics(attention, value),
    )
    weights = {name: normal(seed + 1, *part.shape) for name, part in eager.items()}
    leaves = (case.query, case.key, value)
    expected, actual = (
        torch.autograd.grad(
            torch.stack([(weights[name] * part).sum() for name, part in parts.items()]).sum(),
            leaves,
            materialize_grads=True,  # where no query sees a key, no value is read
        )
        for parts in (eager, fused)
    )
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["dense", "relative", "alibi"])
def test_a_learned_bias_has_the_gradient_of_eager_attention(kind: str) -> None:
    query, key, value = (normal(seed, 2, 6, 3) for seed in range(3))
    learned = normal(
        4, 2, *{"dense": (6, 6), "relative": (11,), "alibi": ()}[kind]
    ).requires_grad_()
    make = {
        "dense": DenseBias,
        "relative": lambda table: RelativeBias(table, 5),
        "alibi": AlibiBias,
    }[kind]
    distance = torch.arange(6)[None, :] - torch.arange(6)[:, None]
    added = {"dense": lambda: learned, "relative": lambda: learned[:, 5 + distance]}.get(
        kind, lambda: learned[:, None, None] * distance
    )()
    visible = torch.ones(6, 6, dtype=torch.bool).tril()
    scores = torch.where(visible, query @ key.mT * 3**-0.5 + added, -torch.inf)
    attention = SoftmaxAttention(query, key, bias=make(learned))
    for name, eager, ours in [
        ("apply", scores.softmax(-1) @ value, attention.apply(value)),
        ("log_normalizer", scores.logsumexp(-1), attention.log_normalizer()),
        ("dense", scores.softmax(-1), attention.dense()),
        ("power_sum", scores.softmax(-1).square().sum(-1), attention.power_sum(2.0)),
    ]:
        weights = normal(5, *eager.shape)
        expected, actual = (
            torch.autograd.grad((weights * part).sum(), learned, retain_graph=True)[0]
            for part in (eager, ours)
        )
        torch.testing.assert_close(actual, expected, msg=lambda text, name=name: f"{name}: {text}")


def test_numbers_computed_without_a_graph_are_not_taken_for_numbers_with_one() -> None:
    query, key, value = factors()
    attention = SoftmaxAttention(query, key)
    with torch.no_grad():
        attention.attend(value, riders=[key_position])
        attention.band(2)
        assert not attention.log_normalizer().requires_grad
    for result in (
        attention.log_normalizer(),
        attention.key_moment(key_position),
        attention.band(2),
    ):
        assert result.requires_grad


def test_numbers_with_a_graph_serve_where_none_is_wanted() -> None:
    query, key, value = factors()
    attention = SoftmaxAttention(query, key)
    attention.attend(value, riders=[key_position])
    with torch.no_grad():
        torch.testing.assert_close(attention.row_mass(), torch.ones(1, 2, 5, dtype=torch.float64))
