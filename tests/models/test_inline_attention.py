"""InLine attention against its formula entry by entry, and against linear attention."""

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnscope.attention import AttentionOperator, KernelAttention, SoftmaxAttention
from attnscope.models.inline_attention import InLineAttention, confusion, inline_operator
from attnscope.models.inline_attention_network import INLINE_DEIT_VARIANTS, InLineDeit, inline_deit
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).reshape(1, -1, 1)


def test_maps_worked_by_hand() -> None:
    """Keys 1 and 0 with products unscaled, and divided by the two keys as published."""
    query, key = column(1, 2, 4), column(1, 0)
    unscaled = inline_operator(query[:, :2], key, scale=1.0)
    assert unscaled.dense().tolist() == [[[1.0, 0.0], [1.5, -0.5]]]
    published = inline_operator(query, key)
    assert published.dense().tolist() == [[[0.75, 0.25], [1.0, 0.0], [1.5, -0.5]]]
    assert published.row_mass().tolist() == [[1.0, 1.0, 1.0]]
    assert (published.signed, published.stochastic) == (True, False)


def test_the_linear_form_is_the_quadratic_one() -> None:
    query, key, value = (normal(seed, 2, 3, 50, 8, dtype=torch.float32) for seed in range(3))
    products = query @ key.mT * 8**-0.5 / 50
    quadratic = (products - products.mean(-1, keepdim=True) + 1 / 50) @ value
    actual = inline_operator(query, key).apply(value)
    torch.testing.assert_close(actual, quadratic, atol=1e-5, rtol=1e-5)


def test_the_module_is_its_formula_entry_by_entry() -> None:
    """One loop over queries and keys, one over patches, channels and neighbors."""
    torch.manual_seed(0)
    module = InLineAttention(8, 2).double()
    features, (rows, columns) = normal(0, 2, 7, 8), (2, 3)
    query, key, value = module.query_key_value(features).chunk(3, dim=-1)
    kernel = module.kernel(features.mean(1).unsqueeze(-1)).reshape(2, 8, 3, 3)
    expected = torch.zeros_like(features)
    for item, channel in product(range(2), range(8)):
        own = slice(channel // 4 * 4, channel // 4 * 4 + 4)  # the channels of its head
        for i, j in product(range(7), range(7)):
            centered = key[item, j, own] - key[item, :, own].mean(0)
            weight = 1 / 7 + (query[item, i, own] @ centered) * 4**-0.5 / 7
            expected[item, i, channel] += weight * value[item, j, channel]
        for i, dy, dx in product(range(rows * columns), (-1, 0, 1), (-1, 0, 1)):
            y, x = i // columns + dy, i % columns + dx
            if 0 <= y < rows and 0 <= x < columns:
                near = kernel[item, channel, dy + 1, dx + 1]
                expected[item, 1 + i, channel] += near * value[item, 1 + y * columns + x, channel]
    torch.testing.assert_close(module(features, (rows, columns)), module.projection(expected))


def test_the_class_token_has_no_neighbors() -> None:
    module = InLineAttention(4, 1).double()
    seen: list[AttentionOperator] = []
    for mixing in (module.global_mixing, module.local_mixing):
        mixing.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    module(normal(0, 2, 1 + 6, 4), (2, 3))
    assert [tuple(operator.shape) for operator in seen] == [(2, 1, 7, 7), (2, 4, 6, 6)]


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    module = InLineAttention(2, 1).double()
    features = normal(0, 1, 5, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x, (2, 2)), features)


def slow_confusion(pattern: Tensor, query: Tensor, threshold: float) -> float:
    """Return the share for one head by loops over pairs."""
    pairs = [(i, j) for i in range(len(query)) for j in range(i)]
    distances = sorted(float((query[i] - query[j]).norm()) for i, j in pairs)
    middle = distances[(len(pairs) - 1) // 2]
    apart = [(i, j) for i, j in pairs if float((query[i] - query[j]).norm()) >= middle]
    alike = [
        (i, j) for i, j in apart if float((pattern[i] - pattern[j]).abs().sum() / 2) < threshold
    ]
    return len(alike) / len(apart)


def test_confusion_is_the_share_of_far_pairs_with_near_maps() -> None:
    query, key = normal(0, 2, 2, 9, 3), normal(1, 2, 2, 9, 3)
    attention = inline_operator(query, key)
    curve = confusion(attention, query, (0.05, 0.2, 9.0))
    pattern = attention.dense()
    for b, h in product(range(2), range(2)):
        expected = [slow_confusion(pattern[b, h], query[b, h], x) for x in (0.05, 0.2, 9.0)]
        assert curve[b, h].tolist() == pytest.approx(expected)


def test_linear_attention_confuses_what_inline_and_softmax_tell_apart() -> None:
    """Queries on one ray: their positive factors cancel in linear attention."""
    query, key = column(1, 2, 3, 4), column(0.5, 1, 2)
    assert confusion(KernelAttention(query, key), query).item() == 1
    assert confusion(inline_operator(query, key), query).item() == 0
    assert confusion(SoftmaxAttention(query, key, causal=False), query).item() == 0
    assert confusion(KernelAttention(query[:, :1], key), query[:, :1]).isnan().all()


@pytest.mark.parametrize(
    ("variant", "count"), [("tiny", 6_477_736), ("small", 16_734_760), ("base", 23_797_096)]
)
def test_published_sizes(variant: str, count: int) -> None:
    with torch.device("meta"):
        network = inline_deit(variant)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert set(INLINE_DEIT_VARIANTS) == {"tiny", "small", "base"}


def tiny() -> InLineDeit:
    torch.manual_seed(0)
    return InLineDeit(image=8, patch=2, channels=8, heads=2, depth=2, classes=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_trains(dtype: torch.dtype) -> None:
    network = tiny().to(dtype)
    logits = network.train()(normal(0, 2, 3, 8, 8, dtype=dtype))
    logits.logsumexp(-1).sum().backward()
    assert logits.shape == (2, 3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    evaluated = network.eval()(normal(0, 2, 3, 8, 8, dtype=dtype))
    torch.testing.assert_close(evaluated, logits)


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    trace = assert_capture_keeps_the_contract(
        tiny(), {"pixel_values": normal(0, 1, 3, 8, 8, dtype=torch.float32)}, tmp_path
    )
    shapes = {o.site.stack.split(".")[-1]: o.attention.shape for o in trace.observations}
    assert shapes == {"global_mixing": (2, 17, 17), "local_mixing": (8, 16, 16)}


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) patches.*positions for \(4, 4\)"):
        tiny()(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="there are tiny, small, base"):
        inline_deit("huge")
