"""Saliency on the cases worked by hand, against autograd on dense maps, and where it vanishes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import attnscope.attention.operator as operator_module
from attnscope.attention import DenseAttention, SoftmaxAttention
from attnscope.metrics import (
    MetricError,
    after_image_keys,
    candidate_saliency,
    layer_saliency,
    previous_token_keys,
    response_keys,
    saliency_norm,
    saliency_rows,
    saliency_threshold,
)
from attnscope.traces import Segment, Segments
from tests.metrics.patterns import NAN, close, normal, pattern

ROW = DenseAttention(torch.tensor([[[0.2, 0.3, 0.5]]]))
VALUE, UNIT = torch.tensor([[[1.0], [-2.0], [0.4]]]), torch.ones(1, 1, 1)
SPANS = [("image", 0, 2), ("prompt", 2, 4), ("response", 4, 8)]
SEGMENTS = Segments(tuple(Segment(name=name, start=a, stop=b) for name, a, b in SPANS))


def random_site(seed: int, heads: int = 4, shared: int = 2, tokens: int = 7) -> tuple:
    """Return a map, values shared by groups of heads, and a gradient of the outputs."""
    attention = DenseAttention(pattern(seed, heads, tokens, tokens))
    return attention, normal(seed + 1, shared, tokens, 3), normal(seed + 2, heads, tokens, 3)


def dense_saliency(attention: DenseAttention, value: Tensor, gradient: Tensor) -> Tensor:
    values = value.repeat_interleave(attention.heads // len(value), 0)
    return (attention.dense() * torch.einsum("hqd,hkd->hqk", gradient, values)).abs()


def test_the_case_worked_by_hand() -> None:
    close(saliency_rows(ROW, VALUE, UNIT, [0]), [[[0.2, 0.6, 0.2]]])
    row = layer_saliency(ROW, VALUE, UNIT, [0])
    close(row, [[0.30151, 0.90453, 0.30151]], tolerance=1e-5)
    close(candidate_saliency(row, [1]), 0.90453, tolerance=1e-5)


def test_it_is_the_gradient_by_the_map_and_that_of_a_factor_of_one() -> None:
    maps = pattern(0, 1, 5, 5).requires_grad_()
    adapter = torch.ones_like(maps, requires_grad=True)
    value, output = normal(1, 1, 5, 3), normal(2, 3, 11)
    z = (maps * adapter) @ value
    loss = torch.nn.functional.cross_entropy(z[0] @ output, torch.tensor([3, 1, 4, 1, 5]))
    by_map, by_adapter, by_output = torch.autograd.grad(loss, [maps, adapter, z])
    rows = saliency_rows(DenseAttention(maps.detach()), value, by_output, range(5))
    close(rows, (maps * by_map).detach().abs())
    close(rows, by_adapter.abs())


def two_layers(positions: Tensor) -> tuple[list[DenseAttention], list[Tensor], list[Tensor]]:
    """Return maps, values and output gradients of two causal layers, for losses at positions."""
    state, maps, values, outputs = normal(0, 6, 4), [], [], []
    for layer in range(2):
        query, key, value = (state @ normal(10 * layer + i, 4, 4) for i in range(1, 4))
        hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
        scores = (query @ key.T).masked_fill(hidden, -torch.inf)
        maps.append(DenseAttention(scores.softmax(-1)[None].detach()))
        values.append(value[None].detach())
        outputs.append((scores.softmax(-1) @ value).requires_grad_())
        state = state + outputs[-1]
    logits = state @ normal(30, 4, 9)
    loss = torch.nn.functional.cross_entropy(logits[positions], torch.tensor([3] * len(positions)))
    return maps, values, [g[None] for g in torch.autograd.grad(loss, outputs)]


def test_the_row_is_the_query_that_predicts_and_not_the_token_s_own() -> None:
    # Token 5 is predicted at position 4; the published script reads row 5.
    maps, values, gradients = two_layers(torch.tensor([4]))
    for attention, value, gradient in zip(maps, values, gradients, strict=True):
        assert float(saliency_rows(attention, value, gradient, [5]).abs().max()) == 0.0
        assert float(saliency_rows(attention, value, gradient, [4]).sum()) > 1e-3
        assert bool(layer_saliency(attention, value, gradient, [5]).isnan().all())


def test_one_gradient_of_all_losses_is_another_quantity() -> None:
    alone, together = two_layers(torch.tensor([3])), two_layers(torch.tensor([3, 4]))
    rows = [
        [layer_saliency(a, v, g, [3]) for a, v, g in zip(*case, strict=True)]
        for case in (alone, together)
    ]
    close(rows[0][1], rows[1][1])  # behind the last layer, a row matters to its own token alone
    assert float((rows[0][0] - rows[1][0]).abs().max()) > 1e-3


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_agrees_with_dense_maps_where_heads_share_values(shared: int) -> None:
    attention, value, gradient = random_site(0, shared=shared)
    slow = dense_saliency(attention, value, gradient)
    close(saliency_rows(attention, value, gradient, [1, 6]), slow[:, [1, 6]])
    summed = slow.sum(0)
    close(layer_saliency(attention, value, gradient, [2, 5], None), summed[[2, 5]])
    close(layer_saliency(attention, value, gradient, [2], "row"), summed[[2]] / summed[2].norm())
    close(layer_saliency(attention, value, gradient, [2], "matrix"), summed[[2]] / summed.norm())


def test_fused_operators_and_batches_agree_with_dense_maps() -> None:
    fused = SoftmaxAttention(normal(0, 2, 4, 7, 3), normal(1, 2, 2, 7, 3))
    value, gradient = normal(2, 2, 2, 7, 3), normal(3, 2, 4, 7, 3)
    for norm in ("row", "matrix", None):
        both = layer_saliency(fused, value, gradient, [6, 3], norm)
        for item in range(2):
            dense = DenseAttention(fused.dense()[item])
            close(both[item], layer_saliency(dense, value[item], gradient[item], [6, 3], norm))


def test_the_norm_of_the_map_is_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, value, gradient = random_site(3)
    whole = dense_saliency(attention, value, gradient).sum(0).norm()
    monkeypatch.setattr(operator_module, "block_length", lambda *_: 2)
    assert len(list(attention.blocks())) == 4
    close(saliency_norm(attention, value, gradient), whole)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(0, 6), st.floats(0.1, 9.0))
def test_rows_have_length_one_whatever_the_scale_and_the_order_of_heads(
    seed: int, query: int, scale: float
) -> None:
    attention, value, gradient = random_site(seed, shared=4)
    row = layer_saliency(attention, value, gradient, [query])
    close(row.norm(), 1.0)
    close(layer_saliency(attention, value, -scale * gradient, [query]), row)
    order = [2, 0, 3, 1]
    turned = layer_saliency(attention.select_heads(order), value[order], gradient[order], [query])
    close(turned, row)
    assert float(row[0, query + 1 :].sum()) == 0.0
    mean = candidate_saliency(row, range(query + 1))
    assert 0.0 <= float(mean) <= 1.0


def test_the_score_of_a_candidate_is_the_mean_over_layers_and_earlier_outputs() -> None:
    rows = torch.tensor([[[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]]])
    close(candidate_saliency(rows, [0, 2]), [(0.1 + 0.3 + 0.5 + 0.7) / 4])
    close(candidate_saliency(rows, []), [NAN])


def test_earlier_outputs_are_those_of_the_response_or_all_behind_the_image() -> None:
    assert response_keys(SEGMENTS, 7) == [4, 5, 6]
    assert response_keys(SEGMENTS, 4) == []
    assert after_image_keys(SEGMENTS, 7) == [2, 3, 4, 5, 6]
    assert previous_token_keys(SEGMENTS, 7) == [6]
    assert previous_token_keys(SEGMENTS, 4) == []
    with pytest.raises(MetricError, match=r"no response segment; this sequence has \['image'\]"):
        response_keys(Segments(SEGMENTS.runs[:1]), 3)
    with pytest.raises(MetricError, match="no image stands before token 0"):
        after_image_keys(SEGMENTS, 0)


def test_the_threshold_follows_the_recent_scores() -> None:
    assert saliency_threshold([0.5, 0.4, 0.6], 0.6, 3) == pytest.approx(0.30)
    assert saliency_threshold([9.0, 0.5, 0.4, 0.6], 0.6, 2) == pytest.approx(0.30)  # distances 0-2
    assert saliency_threshold([0.2, 0.8], 0.5, 0) == pytest.approx(0.4)
    assert saliency_threshold([NAN, 0.4]) == pytest.approx(0.24)
    assert saliency_threshold([NAN]) == saliency_threshold([]) == 0.0


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(MetricError, match="no saliency norm 'column'"):
        layer_saliency(ROW, VALUE, UNIT, [0], "column")
    with pytest.raises(MetricError, match="do not fit Dense"):
        saliency_rows(ROW, VALUE[:, :2], UNIT, [0])
    with pytest.raises(MetricError, match=r"no keys \[3\]"):
        candidate_saliency(torch.ones(1, 3), [3])
    with pytest.raises(MetricError, match="window is -1"):
        saliency_threshold([0.1], window=-1)
