"""Neighborhoods by hand and by loops; the attention over them; NATTEN where it is installed."""

import math
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck

from attnscope.attention import IndexedAttention, OperatorError
from attnscope.models.neighborhood import NeighborhoodAttention
from attnscope.models.neighborhood_fused import FusedNeighborhood
from attnscope.models.neighborhood_index import Neighborhood, NeighborhoodAxis
from attnscope.models.neighborhood_softmax import neighborhood_pattern
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract

BY_HAND = {
    (6, 3): "xxx... xxx... .xxx.. ..xxx. ...xxx ...xxx",
    (6, 4): "xxxx.. xxxx.. xxxx.. .xxxx. ..xxxx ..xxxx",
    (8, 4, 2): "xxxx.... xxxx.... .xxxx... .xxxx... ...xxxx. ...xxxx. ....xxxx ....xxxx",
    (8, 4, 4): " ".join(["xxxx...."] * 4 + ["....xxxx"] * 4),
    (7, 3, 1, 2): "x.x.x.. .x.x.x. x.x.x.. .x.x.x. ..x.x.x .x.x.x. ..x.x.x",
    (5, 3, 2): "xxx.. xxx.. ..xxx ..xxx ..xxx",
    (6, 3, 1, 1, True): "x..... xx.... xxx... .xxx.. ..xxx. ...xxx",
    (8, 4, 2, 1, True): ("x....... xx...... xxx..... xxxx.... ..xxx... ..xxxx.. ....xxx. ....xxxx"),
}


@st.composite
def axes(draw: Any, longest: int = 14) -> NeighborhoodAxis:
    length = draw(st.integers(1, longest))
    dilation = draw(st.integers(1, length))
    window = draw(st.integers(1, length // dilation))
    return NeighborhoodAxis(
        length, window, draw(st.integers(1, window)), dilation, draw(st.booleans())
    )


def slow_keys(axis: NeighborhoodAxis, query: int) -> list[int]:
    """Return the keys of one query, by the rule, one step after the other."""
    group, i = query % axis.dilation, query // axis.dilation
    n = math.ceil((axis.length - group) / axis.dilation)
    left = axis.window // 2
    right = axis.window - 1 - left
    if axis.causal:
        leader = min(i // axis.stride * axis.stride + axis.stride - 1, n - 1)
        low, high = max(leader - axis.window + 1, 0), i
    else:
        leader = min(i // axis.stride * axis.stride + axis.stride // 2, n - 1)
        center = min(max(leader, left), n - 1 - right)
        low, high = center - left, center + right
    return [group + j * axis.dilation for j in range(low, high + 1)]


def support(neighborhood: Neighborhood) -> Tensor:
    """Return which query sees which key."""
    keys = neighborhood.keys()
    seen = torch.zeros(neighborhood.positions, neighborhood.positions + 1, dtype=torch.bool)
    return seen.scatter_(1, keys % (neighborhood.positions + 1), True)[:, :-1]


@pytest.mark.parametrize("numbers", BY_HAND)
def test_neighborhoods_drawn_by_hand(numbers: tuple[Any, ...]) -> None:
    seen = support(Neighborhood((NeighborhoodAxis(*numbers),)))
    drawn = ["".join("x" if entry else "." for entry in row) for row in seen.tolist()]
    assert " ".join(drawn) == BY_HAND[numbers]


@settings(max_examples=150, deadline=None)
@given(axes())
def test_keys_follow_the_rule_step_by_step(axis: NeighborhoodAxis) -> None:
    for query, row in enumerate(axis.keys().tolist()):
        assert [key for key in row if key >= 0] == slow_keys(axis, query)


@settings(max_examples=40, deadline=None)
@given(st.lists(axes(longest=6), min_size=2, max_size=3))
def test_axes_multiply(several: list[NeighborhoodAxis]) -> None:
    neighborhood = Neighborhood(tuple(several))
    seen = support(neighborhood).reshape(*neighborhood.grid, *neighborhood.grid)
    for query in product(*map(range, neighborhood.grid)):
        rows = [slow_keys(axis, place) for axis, place in zip(several, query, strict=True)]
        expected = set(product(*rows))
        assert {tuple(key) for key in seen[query].nonzero().tolist()} == expected


@settings(max_examples=60, deadline=None)
@given(axes())
def test_every_query_sees_itself_and_a_whole_window(axis: NeighborhoodAxis) -> None:
    keys, places = axis.keys(), torch.arange(axis.length)[:, None]
    assert (keys == places).any(-1).all()
    if axis.causal:
        assert bool((keys <= places).all())
    else:
        assert bool((keys >= 0).all())
        assert bool((keys.diff(dim=-1) == axis.dilation).all())
    assert bool((axis.distances() < 2 * axis.window - 1).all())


def test_known_patterns_are_special_cases() -> None:
    full = Neighborhood.of((4, 3), (4, 3))
    assert support(full).all()
    blocked = support(Neighborhood.of((8,), 4, 4))
    assert blocked.equal(torch.block_diag(*[torch.ones(4, 4)] * 2).bool())
    sliding = support(Neighborhood.of((9,), 3, causal=True))
    assert sliding.equal(torch.ones(9, 9).tril().triu(-2).bool())


@pytest.mark.parametrize("block", [2, 3])
def test_strided_windows_are_halo_attention_inside_the_image(block: int) -> None:
    halo, length = 1, 4 * block
    seen = support(Neighborhood.of((length,), block + 2 * halo, block))
    for query in range(block, length - block):
        first = query // block * block
        inside = range(first - halo, first + block + halo)
        assert seen[query].nonzero().flatten().tolist() == list(inside)


def slow_attention(module: NeighborhoodAttention, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map and the module's output, query by query."""
    grid, heads = features.shape[1:-1], module.heads
    window, stride, dilation, causal = module.rules
    axis = Neighborhood.of(grid, window, stride, dilation, causal).axes
    query, key, value = (
        module.query_key_value(features.flatten(1, -2)).unflatten(-1, (3, heads, -1)).unbind(2)
    )
    places = list(product(*map(range, grid)))
    pattern = features.new_zeros(len(features), heads, len(places), len(places))
    for b, h, (t, place) in product(range(len(features)), range(heads), enumerate(places)):
        rows = [slow_keys(one, at) for one, at in zip(axis, place, strict=True)]
        seen, scores = [places.index(near) for near in product(*rows)], []
        for j in seen:
            score = query[b, t, h] @ key[b, j, h] / math.sqrt(query.shape[-1])
            if module.relative_position is not None:
                steps = tuple(
                    (k - q) // one.dilation + one.window - 1
                    for k, q, one in zip(places[j], place, axis, strict=True)
                )
                score = score + module.relative_position[(h, *steps)]
            scores.append(score)
        pattern[b, h, t, seen] = torch.stack(scores).softmax(0)
    output = torch.einsum("bhts,bshd->bthd", pattern, value).flatten(-2)
    return pattern, module.projection(output).reshape(features.shape)


MODULES = {
    "1-d": ((7,), {"window": 3}),
    "causal": ((7,), {"window": 4, "stride": 2, "causal": True}),
    "dilated": ((6, 7), {"window": 3, "dilation": 2, "relative_axes": 2}),
    "strided": ((5, 4), {"window": (3, 2), "stride": (2, 1), "relative_axes": 2}),
    "video": (
        (3, 4, 3),
        {"window": (2, 3, 3), "causal": (True, False, False), "relative_axes": 3},
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_the_module_is_the_loop(name: str) -> None:
    torch.manual_seed(0)
    grid, rules = MODULES[name]
    module = NeighborhoodAttention(6, 2, **rules).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    features = normal(1, 2, *grid, 6)
    pattern, output = slow_attention(module, features)
    torch.testing.assert_close(module.attend(features).dense(), pattern)
    torch.testing.assert_close(module(features), output)
    attention = module.attend(features)
    values = normal(2, 2, 2, attention.keys, 3)
    torch.testing.assert_close(attention.apply(values), pattern @ values)
    assert attention.stochastic
    assert attention.causal == (name == "causal")


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    module = NeighborhoodAttention(2, 1, 2, relative_axes=2).double()
    names, values = zip(*module.named_parameters(), strict=True)

    def run(features: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(
            module, dict(zip(names, parameters, strict=True)), (features,)
        )

    leaves = [value.detach().requires_grad_() for value in values]
    assert gradcheck(run, (normal(0, 1, 3, 2, 2).requires_grad_(), *leaves))


def test_long_rows_never_meet_a_square_map() -> None:
    module = NeighborhoodAttention(2, 1, 3)
    attention = module.attend(torch.randn(1, 200, 200, 2))
    with pytest.raises(OperatorError, match="over the limit"):
        attention.dense()
    assert module(torch.randn(1, 200, 200, 2)).shape == (1, 200, 200, 2)


class Stack(nn.Module):
    """Layers of one kind, as a model of its own."""

    def __init__(self, *rules: dict[str, Any]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(NeighborhoodAttention(4, 2, 3, **own) for own in rules)

    def forward(self, features: Tensor) -> Tensor:
        for block in self.blocks:
            features = features + block(features)
        return features


def test_capture_of_an_image_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Stack({"relative_axes": 2}, {"relative_axes": 2, "dilation": 2})
    trace = assert_capture_keeps_the_contract(
        model, {"features": torch.randn(1, 6, 7, 4)}, tmp_path
    )
    assert all(isinstance(seen.attention, IndexedAttention) for seen in trace.observations)
    assert {seen.attention.key_axis for seen in trace.observations} == {"patch"}


def test_capture_of_a_sequence_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Stack({"causal": True}, {"causal": True, "stride": 2})
    trace = assert_capture_keeps_the_contract(model, {"features": torch.randn(1, 12, 4)}, tmp_path)
    assert all(seen.attention.causal for seen in trace.observations)
    assert {seen.attention.key_axis for seen in trace.observations} == {"token"}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((6, 3, 4), "stride 4 does not fit a window of 3"),
        ((6, 3, 0), "at least 1 and at most the window"),
        ((6, 4, 1, 2), "spans 8 positions; the axis has 6"),
        ((2, 3), "a window of 3 with dilation 1 spans 3 positions; the axis has 2"),
    ],
)
def test_windows_that_do_not_fit_are_refused(numbers: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeighborhoodAxis(*numbers)


def test_rules_need_a_number_for_every_axis() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\) has 2 numbers; the grid has 3 axes"):
        Neighborhood.of((4, 4, 4), (3, 3))


NATTEN_CASES = [
    Neighborhood.of((9,), 3, 2),
    Neighborhood.of((9,), 4, 2, 2),
    Neighborhood.of((8,), 4, 2, causal=True),
    Neighborhood.of((6, 7), (3, 4), (2, 1), (2, 1), (False, True)),
    Neighborhood.of((3, 4, 5), (3, 2, 3), (1, 2, 3)),
]


@pytest.mark.parametrize("neighborhood", NATTEN_CASES, ids=lambda case: f"{case.grid}")
def test_the_fused_kernel_reads_the_same_neighborhoods(neighborhood: Neighborhood) -> None:
    pytest.importorskip("natten", reason="the NATTEN package is not installed")
    query, key, value = (normal(seed, 2, 2, neighborhood.positions, 8).float() for seed in range(3))
    fused = FusedNeighborhood(query, key, neighborhood)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on a CPU it runs an unfused backend and says so
        output = fused.apply(value)
    torch.testing.assert_close(output, fused.indexed.apply(value), atol=1e-5, rtol=1e-5)


def test_the_fused_operator_is_captured_by_its_weights() -> None:
    neighborhood = Neighborhood.of((4, 3), (3, 2))
    query, key = normal(0, 2, 2, 12, 4), normal(1, 2, 2, 12, 4)
    fused = FusedNeighborhood(query, key, neighborhood)
    pattern = neighborhood_pattern(query, key, neighborhood).dense()
    weights = normal(2, 2, 2, 12, 3)
    torch.testing.assert_close(fused.dense(), pattern)
    torch.testing.assert_close(fused.apply_transpose(weights), pattern.mT @ weights)
    torch.testing.assert_close(fused.item(1).dense(), pattern[1])
    torch.testing.assert_close(fused.select_heads([1]).dense(), pattern[:, [1]])
    assert isinstance(fused.item(0), IndexedAttention)
    assert fused.stochastic
    assert not fused.causal
    with pytest.raises(OperatorError, match=r"store its item\(0\), an IndexedAttention"):
        fused.parts()
    with pytest.raises(OperatorError, match="its items are, as IndexedAttention"):
        FusedNeighborhood.from_parts({}, {})
