"""Head detectors against planted heads and against loops over lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.metrics import (
    MetricError,
    detector_score,
    duplicate_token_mass,
    induction_mass,
    pattern_share_score,
    previous_token_mass,
)
from tests.metrics.patterns import NAN, close, lists, normal, pattern, random_operator, sheet


def targets(ids: list[int], kind: str) -> list[list[int]]:
    """Return the keys that a perfect head of a kind would read, by position."""
    if kind == "previous":
        return [[t - 1] if t else [] for t in range(len(ids))]
    step = 1 if kind == "induction" else 0
    return [
        [s + step for s in range(t) if ids[s] == ids[t] and s + step <= t] for t in range(len(ids))
    ]


def detect(attention: DenseAttention, ids: list[int], kind: str) -> torch.Tensor:
    if kind == "previous":
        return previous_token_mass(attention)
    return (induction_mass if kind == "induction" else duplicate_token_mass)(attention, ids)


@pytest.mark.parametrize("kind", ["previous", "duplicate", "induction"])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(-2, 2), min_size=1, max_size=9), st.booleans(), st.integers(1, 9))
def test_agrees_with_a_loop_over_lists(
    kind: str, ids: list[int], causal: bool, queries: int
) -> None:
    keys = len(ids)
    queries = min(queries, keys)
    A = random_operator(0, 2, queries, keys, causal=causal)
    found = targets(ids, kind)[keys - queries :]
    slow = [
        [sum(row[s] for s in found[t]) if found[t] else NAN for t, row in enumerate(head)]
        for head in lists(A.pattern)
    ]
    close(detect(A, ids, kind), slow)


@pytest.mark.parametrize("kind", ["previous", "duplicate", "induction"])
def test_a_planted_head_scores_one_and_a_uniform_head_little(kind: str) -> None:
    ids = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist() * 2
    planted = torch.eye(40)
    for t, keys in enumerate(targets(ids, kind)):
        if keys:
            planted[t] = 0
            planted[t, keys] = 1 / len(keys)
    uniform = torch.ones(40, 40).tril() / torch.arange(1, 41)[:, None]
    A = DenseAttention(torch.stack([planted, uniform]))
    mass = detect(A, ids, kind)
    score = detector_score(A, mass)
    close(score[:1], [1.0])
    assert float(score[1]) < 0.12
    wanted = 39 if kind == "previous" else 20
    close(pattern_share_score(A, mass)[:1], [wanted / 40])


def test_the_share_score_is_the_matched_part_of_all_attention() -> None:
    ids = [3, 1, 3, 1, 1]
    maps = pattern(0, 2, 5, 5)
    A = DenseAttention(maps)
    for kind in ("previous", "duplicate", "induction"):
        hit = torch.zeros(5, 5)
        for t, keys in enumerate(targets(ids, kind)):
            hit[t, keys] = 1
        close(pattern_share_score(A, detect(A, ids, kind)), (maps * hit).sum((-1, -2)) / 5)


def test_the_score_takes_the_queries_asked_for() -> None:
    close(detector_score(sheet(), previous_token_mass(sheet()), [0, 1, 3]), [(0.5 + 0.3) / 2])
    close(detector_score(sheet(), previous_token_mass(sheet()), [0]), [NAN])


def test_the_fused_operator_agrees_with_its_map() -> None:
    A = SoftmaxAttention(normal(3, 4, 60, 8), normal(4, 2, 60, 8))
    ids = [(i * i) % 13 for i in range(60)]
    dense = DenseAttention(A.dense())
    for kind in ("previous", "duplicate", "induction"):
        close(detect(A, ids, kind), detect(dense, ids, kind), 1e-9)  # pyright: ignore[reportArgumentType]


def test_refuses_what_it_is_not_defined_for() -> None:
    with pytest.raises(MetricError, match=r"induction has 3 token ids for the 4 keys of"):
        induction_mass(sheet(), [1, 2, 3])
    with pytest.raises(MetricError, match=r"duplicate_token needs every query to stand at a key"):
        duplicate_token_mass(DenseAttention(sheet().pattern, offset=2), [1, 2, 3, 4])
    with pytest.raises(MetricError, match="previous_token needs queries and keys that are"):
        previous_token_mass(DenseAttention(sheet().pattern, offset=None))
