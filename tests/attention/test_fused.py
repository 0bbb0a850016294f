"""The fused kernels and the paths that stand in for them elsewhere, against eager attention."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.attention import fused
from attnscope.attention.fused import fused_attention
from tests.attention.strategies import normal

LONG = 150  # more than one block of rows of the paths without a kernel

SETTINGS = {
    "all to all": {},
    "causal": {"causal": True},
    "additive": {"additive": "bias"},
    "hidden": {"additive": "hidden"},
    "both": {"additive": "bias", "causal": True},
    "wide": {"rows": 40},
    "tall": {"columns": 40},
    "wide causal": {"rows": 40, "causal": True},
    "tall causal": {"columns": 40, "causal": True},
}


def make(
    rows: int = LONG,
    columns: int = LONG,
    causal: bool = False,
    additive: str = "",
    kv_heads: int = 4,
):
    """Return query, key, value, additive and causal; the hidden rows of `hidden` are 3 and 140."""
    query = normal(0, 2, 4, rows, 5)
    key, value = (normal(seed, 2, kv_heads, columns, 5) for seed in (1, 2))
    added = None
    if additive:
        added = normal(3, 1, 4, rows, columns)
    if additive == "hidden":
        added = added.masked_fill(normal(4, rows, columns) < -1, -torch.inf)
        added[..., [3, 140], :] = -torch.inf
    return query, key, value, added, causal


def eager(
    query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Return output and log normalizer of plain attention, scale 0.7; empty rows 0 and -inf."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.mT * 0.7
    if added is not None:
        scores = scores + added
    if causal:
        scores = torch.where(
            torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), scores, -torch.inf
        )
    empty = scores.isneginf().all(-1, keepdim=True)
    finite = torch.where(empty, 0.0, scores)
    output = torch.where(empty, 0.0, finite.softmax(-1) @ value)
    return output, torch.where(empty.squeeze(-1), -torch.inf, finite.logsumexp(-1))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("name", SETTINGS)
def test_fused_attention_is_eager_attention(name: str, kv_heads: int) -> None:
    query, key, value, added, causal = make(kv_heads=kv_heads, **SETTINGS[name])
    output, normalizer = fused_attention(
        query, key, value, scale=0.7, causal=causal, additive=added
    )
    expected, expected_normalizer = eager(query, key, value, added, causal)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(normalizer, expected_normalizer)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_path_without_a_kernel_is_eager_attention(name: str) -> None:
    query, key, value, added, causal = make(**SETTINGS[name])
    output, normalizer = fused._math(query, key, value, added, 0.7, causal)
    expected, expected_normalizer = eager(query, key, value, added, causal)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(normalizer, expected_normalizer)


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("name", SETTINGS)
def test_both_backward_passes_agree(name: str, kv_heads: int) -> None:
    query, key, value, added, causal = make(kv_heads=kv_heads, **SETTINGS[name])
    results = fused._kernel(query, key, value, added, 0.7, causal)
    gradient = normal(7, *results[0].shape)
    arguments = gradient, (query, key, value, added), results, 0.7, causal
    for ours, kernels in zip(
        fused._math_backward(*arguments), fused._kernel_backward(*arguments), strict=True
    ):
        torch.testing.assert_close(ours, kernels)


def test_the_backward_pass_without_a_kernel_is_precise_in_sixteen_bits() -> None:
    query, key, value, _, _ = make()
    query = query * 4  # scores of some 20, which bfloat16 knows to 1/8
    exact = [part.bfloat16().double().requires_grad_() for part in (query, key, value)]
    eager(*exact, None, True)[0].sum().backward()
    rounded = [part.bfloat16() for part in (query, key, value)]
    results = fused._kernel(*rounded, None, 0.7, True)
    grads = fused._math_backward(torch.ones_like(results[0]), (*rounded, None), results, 0.7, True)
    for ours, leaf in zip(grads, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), leaf.grad, rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize("width", [2, 5, 9])
@pytest.mark.parametrize("kind", ["all to all", "causal", "bias", "hidden"])
def test_both_results_have_gradients(kind: str, width: int) -> None:
    query, key, value = normal(0, 1, 2, 4, 3), normal(1, 1, 1, 5, 3), normal(2, 1, 1, 5, width)
    added = normal(3, 1, 2, 4, 5) if kind in ("bias", "hidden") else None
    if kind == "hidden":
        added[..., 1, :] = -torch.inf

    def function(*parts: Tensor) -> tuple[Tensor, Tensor]:
        output, normalizer = fused_attention(
            *parts, scale=0.7, causal=kind == "causal", additive=added
        )
        return output, normalizer.masked_fill(normalizer == -torch.inf, 0.0)

    leaves = [part.requires_grad_() for part in (query, key, value)]
    assert torch.autograd.gradcheck(function, leaves)


def test_the_normalizer_alone_has_a_gradient() -> None:
    query, key = normal(0, 1, 1, 4, 3).requires_grad_(), normal(1, 1, 1, 4, 3)
    _, normalizer = fused_attention(query, key, key, scale=1.0)
    (gradient,) = torch.autograd.grad(normalizer.sum(), query)
    torch.testing.assert_close(gradient, (query @ key.mT).softmax(-1) @ key)  # the mean key


def test_rows_without_keys_read_nothing_and_pass_no_gradient_on() -> None:
    query, key, value, added, _ = make(additive="hidden")
    query.requires_grad_()
    output, normalizer = fused_attention(query, key, value, scale=0.7, additive=added)
    assert (output[:, :, [3, 140]] == 0).all()
    assert normalizer[:, :, [3, 140]].isneginf().all()
    assert normalizer[:, :, [2, 4]].isfinite().all()
    seen = normalizer.masked_fill(normalizer.isneginf(), 0.0)
    (gradient,) = torch.autograd.grad(output.sum() + seen.sum(), query)
    assert (gradient[:, :, [3, 140]] == 0).all()
    assert gradient.isfinite().all()


def test_a_shared_additive_part_serves_every_head() -> None:
    query, key, value, added, _ = make(additive="bias")
    shared = added[:, :1]
    output, normalizer = fused_attention(query, key, value, scale=0.7, additive=shared)
    expected, expected_normalizer = eager(query, key, value, shared, False)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(normalizer, expected_normalizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_additive_part_keeps_its_digits(dtype: torch.dtype) -> None:
    query, key, value = (part.to(dtype) for part in make()[:3])
    distance = torch.arange(LONG)[None, :] - torch.arange(LONG)[:, None]
    added = (-3.3 * distance.abs()).float().expand(1, 1, -1, -1)
    _, normalizer = fused_attention(query, key, value, scale=0.7, additive=added)
    expected = eager(query.double(), key.double(), value.double(), added.double(), False)[1]
    torch.testing.assert_close(normalizer.double(), expected, rtol=2e-4, atol=2e-4)


def test_large_scores_do_not_overflow() -> None:
    query, key, value, _, _ = make()
    query, key, value = query.float() * 30, key.float() * 30, value.float()
    output, normalizer = fused_attention(query, key, value, scale=1.0, causal=True)
    expected, expected_normalizer = eager(
        query.double() / 0.7, key.double(), value.double(), None, True
    )
    torch.testing.assert_close(output.double(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(normalizer.double(), expected_normalizer, rtol=1e-6, atol=1e-3)


class _Names(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.called.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dtype", "settings", "kernel"),
    [
        (torch.bfloat16, {"causal": True}, "flash"),
        (torch.bfloat16, {"rows": 40}, "flash"),
        (torch.bfloat16, {"rows": 40, "causal": True}, "efficient"),  # flash aligns bottom-right
        (torch.bfloat16, {"additive": "bias"}, "efficient"),
        (torch.float32, {"causal": True}, "efficient"),
        (torch.float64, {"causal": True}, "exp"),
    ],
)
def test_a_gpu_takes_the_kernel_that_can(dtype: torch.dtype, settings: dict, kernel: str) -> None:
    with FakeTensorMode(), _Names() as names:
        query, key, value, added, causal = make(kv_heads=2, **settings)
        parts = [
            None if part is None else part.to("cuda", dtype) for part in (query, key, value, added)
        ]
        output, normalizer = fused_attention(
            *parts[:3], scale=0.7, causal=causal, additive=parts[3]
        )
    assert output.shape == (*query.shape[:3], 5)
    assert normalizer.shape == query.shape[:3]
    assert any(kernel in name for name in names.called)
    assert not any("flash" in name for name in names.called) or kernel == "flash"


LAYOUTS = {
    "columns": lambda part: part.mT.contiguous().mT,
    "strided": lambda part: part.repeat_interleave(2, dim=-1)[..., ::2],
    "one number": lambda part: part[..., :1].expand_as(part),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", ["query", "key", "value", "additive"])
def test_numbers_of_a_row_need_not_lie_side_by_side(layout: str, place: str) -> None:
    parts = dict(
        zip(("query", "key", "value"), (normal(i, 1, 2, 24, 8) for i in range(3)), strict=True)
    )
    parts["additive"] = normal(3, 1, 2, 24, 24)
    parts[place] = LAYOUTS[layout](parts[place]).requires_grad_()
    query, key, value, added = parts.values()
    actual = fused_attention(query, key, value, scale=0.7, additive=added.detach())
    expected = eager(query, key, value, added.detach(), False)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)
    if place != "additive":
        gradients = [
            torch.autograd.grad(output.sum() + normalizer.sum(), parts[place])[0]
            for output, normalizer in (actual, expected)
        ]
        torch.testing.assert_close(*gradients)
