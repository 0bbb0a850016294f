"""Distances on a grid of patches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.metrics import (
    MetricError,
    nonlocality,
    patch_distance,
    patch_window_mass,
    relative_nonlocality,
)
from tests.metrics.patterns import NAN, close, lists, normal, pattern, sheet

UNIFORM = DenseAttention(torch.full((1, 4, 4), 0.25))


def slow_patches(maps: Tensor, grid: tuple[int, int], patches: list[int]) -> list[list[list]]:
    """Return, by head and patch, the weight and the distance of every patch."""
    place = {p: divmod(i, grid[1]) for i, p in enumerate(patches)}
    return [
        [[(head[p][q], math.dist(place[p], place[q])) for q in patches] for p in patches]
        for head in lists(maps)
    ]


def test_the_case_worked_by_hand() -> None:
    close(patch_distance(UNIFORM, (2, 2)), [0.853553])
    close(patch_distance(UNIFORM, (2, 2), patch_size=16.0), [13.65685])
    close(patch_distance(DenseAttention(torch.eye(4)[None]), (2, 2)), [0.0])
    close(patch_window_mass(UNIFORM, (2, 2), radius=0.0), [[0.25] * 4])


@pytest.mark.parametrize(
    ("side", "distance"),
    [(2, 0.853553), (3, 1.453311), (7, 3.609465), (14, 7.280764), (16, 8.326075)],
)
def test_uniform_attention_has_the_nonlocality_of_its_grid(side: int, distance: float) -> None:
    flat = SoftmaxAttention(torch.zeros(1, side**2, 1), torch.zeros(1, side**2, 1), causal=False)
    close(nonlocality(flat, (side, side)), distance)
    close(relative_nonlocality(flat, (side, side)), [1.0])


def test_relative_nonlocality_leaves_out_what_is_spent_on_the_class_token() -> None:
    maps = torch.full((2, 5, 5), 0.1)
    maps[:, :, 0] = 0.6
    maps[1, 1:, 1:] = 0.4 * torch.eye(4)
    A = DenseAttention(maps)
    close(relative_nonlocality(A, (2, 2), [1, 2, 3, 4]), [1.0, 0.0])
    close(relative_nonlocality(A.select_heads([0]), (1, 1), [2]), [NAN])


@pytest.mark.parametrize("grid", [(2, 3), (3, 2), (1, 6)])
def test_agrees_with_a_loop_over_lists_without_class_and_register_tokens(
    grid: tuple[int, int],
) -> None:
    maps = pattern(0, 3, 9, 9, causal=False)
    patches = [1, 2, 3, 5, 6, 7]  # class token at 0, registers at 4 and 8
    A = DenseAttention(maps)
    slow = slow_patches(maps, grid, patches)
    distance = [sum(w * d for row in head for w, d in row) / 6 for head in slow]
    close(patch_distance(A, grid, patches, patch_size=4.0), [4 * d for d in distance])
    close(nonlocality(A, grid, patches), sum(distance) / 3)
    every = [math.dist(divmod(p, grid[1]), divmod(q, grid[1])) for p in range(6) for q in range(6)]
    shares = [sum(sum(w * d for w, d in row) / sum(w for w, _ in row) for row in h) for h in slow]
    close(relative_nonlocality(A, grid, patches), [s / 6 / (sum(every) / 36) for s in shares])
    mass = [[sum(w for w, d in row if d <= 1.5) for row in head] for head in slow]
    close(patch_window_mass(A, grid, patches, radius=1.5), mass)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_distance_stays_below_the_diagonal(rows: int, columns: int, seed: int) -> None:
    A = DenseAttention(pattern(seed, 2, 1, rows * columns, rows * columns, causal=False))
    distance = patch_distance(A, (rows, columns))
    assert distance.shape == (2, 1)
    assert bool(((distance >= 0) & (distance <= math.dist((1, 1), (rows, columns)))).all())


def test_many_patches_are_taken_tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    A = SoftmaxAttention(normal(0, 2, 36, 4), normal(1, 2, 36, 4), causal=False)
    whole = patch_distance(A, (6, 6))
    monkeypatch.setattr("attnscope.metrics.patch_locality._TILE", 1)
    close(patch_distance(A, (6, 6)), whole)
    close(patch_distance(DenseAttention(A.dense()), (6, 6)), whole)


def test_patches_that_see_nothing_are_left_out() -> None:
    maps = UNIFORM.pattern.clone()
    maps[:, 3] = 0
    close(patch_window_mass(DenseAttention(maps), (2, 2)), [[0.75, 0.75, 0.75, NAN]])
    close(patch_distance(DenseAttention(maps), (2, 2)), [0.853553])


def test_refuses_what_it_is_not_defined_for() -> None:
    with pytest.raises(MetricError, match=r"4 patches do not fill a grid of 1 x 3; name the pos"):
        patch_distance(UNIFORM, (1, 3))
    with pytest.raises(MetricError, match="nowhere negative"):
        patch_distance(DenseAttention(-sheet().pattern), (2, 2))
