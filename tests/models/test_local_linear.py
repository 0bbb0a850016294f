"""Local Linear Attention against the regression that it is, and against the paper's formula."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import attnscope.models.local_linear
from attnscope.attention import SoftmaxAttention
from attnscope.models.local_linear import (
    LocalLinearAttention,
    Ridge,
    local_linear_operator,
    plain_ridge,
    scaled_ridge,
)
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract


def flat() -> SoftmaxAttention:
    """Return one query at 0 that weighs the keys 1 and 2 alike."""
    query, key = torch.zeros(1, 1, 1).double(), torch.tensor([[[1.0], [2.0]]]).double()
    return SoftmaxAttention(query, key, causal=False)


@pytest.mark.parametrize(
    ("ridge", "weights", "output"),
    [
        (scaled_ridge(0.0), (2.0, -1.0), 0.0),
        (scaled_ridge(1.0), (0.8, 0.2), 2.4),
        (plain_ridge(1.0), (1.0, 0.0), 2.0),
        (scaled_ridge(1e9), (0.5, 0.5), 3.0),
    ],
)
def test_weights_worked_by_hand(ridge: Ridge, weights: tuple[float, ...], output: float) -> None:
    """Values 2 and 4 lie on a line through the origin, which softmax would not see: 3."""
    attention = local_linear_operator(flat(), ridge)
    assert attention.dense().flatten().tolist() == pytest.approx(weights, abs=1e-8)
    values = torch.tensor([[[2.0], [4.0]]]).double()
    assert attention.apply(values).item() == pytest.approx(output, abs=1e-8)


def slow(
    query: Tensor, key: Tensor, value: Tensor, strength: float, *, scaled: bool, causal: bool
) -> Tensor:
    """Solve each query's regression for intercept and slope by its normal equations."""
    output = []
    for i in range(len(query)):
        stop = i + 1 if causal else len(key)
        weights = (key[:stop] @ query[i] * query.shape[1] ** -0.5).exp()
        design = torch.cat([torch.ones(stop, 1).double(), key[:stop] - query[i]], dim=1)
        ridge = strength * torch.eye(design.shape[1]).double() * (weights.sum() if scaled else 1)
        ridge[0, 0] = 0.0  # the intercept is free
        normal_matrix = design.T @ (weights[:, None] * design) + ridge
        solution = torch.linalg.solve(normal_matrix, design.T @ (weights[:, None] * value[:stop]))
        output.append(solution[0])
    return torch.stack(output)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0.01, 1.0, 10.0]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 12),
)
def test_the_output_is_the_intercept_of_a_weighted_regression(
    seed: int, strength: float, scaled: bool, causal: bool, length: int
) -> None:
    query, key, value = (normal(seed + n, 2, length, 3) for n in range(3))
    ridge = scaled_ridge(strength) if scaled else plain_ridge(strength)
    attention = local_linear_operator(SoftmaxAttention(query, key, causal=causal), ridge)
    expected = [
        slow(*factors, strength, scaled=scaled, causal=causal)
        for factors in zip(query, key, value, strict=True)
    ]
    torch.testing.assert_close(attention.apply(value), torch.stack(expected))
    torch.testing.assert_close(attention.row_mass(), torch.ones(2, length).double())
    assert (attention.signed, attention.stochastic, attention.causal) == (True, False, causal)


def test_it_is_the_papers_formula() -> None:
    """Moments of `z = k - q`, the denominator with its delta, rows short of 1 by as much."""
    query, key = normal(0, 1, 6, 2), normal(1, 1, 6, 2)
    weights = (query @ key.mT * 2**-0.5).tril().exp().tril()[0]
    z = key - query.transpose(0, 1)  # query, key, dim
    omega, mu = weights.sum(-1), (weights.unsqueeze(-1) * z).sum(1)
    sigma = torch.einsum("ij,ija,ijb->iab", weights, z, z)
    sigma = sigma + 0.1 * omega[:, None, None] * torch.eye(2).double()
    rho = torch.linalg.solve(sigma, mu)
    denominator = omega - (mu * rho).sum(-1) + 0.05 * omega
    pattern = weights * (1 - torch.einsum("ija,ia->ij", z, rho)) / denominator[:, None]
    softmax = SoftmaxAttention(query, key)
    attention = local_linear_operator(softmax, scaled_ridge(0.1), delta=0.05)
    torch.testing.assert_close(attention.dense()[0], pattern)
    assert ((attention.row_mass() > 0.0) & (attention.row_mass() < 1.0)).all()


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0])
def test_affine_values_are_continued_exactly(scale: float) -> None:
    """Whatever the kernel: values 3 k - 1 give 3 q - 1, here 1.1 at q = 0.7."""
    key = normal(0, 1, 9, 1)
    query = torch.tensor([[[0.7], [-5.0]]]).double()
    softmax = SoftmaxAttention(query, key, scale, causal=False)
    output = local_linear_operator(softmax, scaled_ridge(0.0)).apply(3 * key - 1)
    assert output.flatten().tolist() == pytest.approx([1.1, -16.0])


def test_a_strong_ridge_leaves_softmax() -> None:
    softmax = SoftmaxAttention(normal(0, 2, 8, 3), normal(1, 2, 8, 3))
    attention = local_linear_operator(softmax, scaled_ridge(1e12))
    torch.testing.assert_close(attention.dense(), softmax.dense())


def test_a_flat_kernel_is_ridge_regression_with_an_intercept() -> None:
    query, key, value = normal(0, 1, 4, 2), normal(1, 1, 7, 2), normal(2, 1, 7, 3)
    softmax = SoftmaxAttention(query, key, 0.0, causal=False)
    mean, target = key[0].mean(0), value[0].mean(0)
    gram = (key[0] - mean).T @ (key[0] - mean) / 7 + 0.5 * torch.eye(2).double()
    slope = torch.linalg.solve(gram, (key[0] - mean).T @ (value[0] - target) / 7)
    expected = target + (query[0] - mean) @ slope
    actual = local_linear_operator(softmax, scaled_ridge(0.5)).apply(value)[0]
    torch.testing.assert_close(actual, expected)


def test_the_first_token_reads_itself() -> None:
    softmax = SoftmaxAttention(normal(0, 1, 5, 3), normal(1, 1, 5, 3))
    attention = local_linear_operator(softmax, scaled_ridge(0.01))
    torch.testing.assert_close(attention.rows([0])[0, 0], torch.eye(5).double()[0])


def test_without_a_ridge_a_token_needs_more_keys_than_dimensions() -> None:
    softmax = SoftmaxAttention(normal(0, 1, 5, 3), normal(1, 1, 5, 3))
    with pytest.raises(RuntimeError, match="singular"):
        local_linear_operator(softmax, scaled_ridge(0.0))
    with pytest.raises(ValueError, match=r"ridge strength is -1\.0"):
        plain_ridge(-1.0)


@pytest.mark.parametrize("block", [1, 2**22])
def test_gradients_pass_through_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attnscope.models.local_linear, "_BLOCK_ELEMENTS", block)
    torch.manual_seed(0)
    module = LocalLinearAttention(4, 2, scaled_ridge(0.5)).double()
    assert torch.autograd.gradcheck(module, normal(0, 1, 3, 4).requires_grad_())


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    softmax = SoftmaxAttention(normal(0, 2, 2, 9, 3), normal(1, 2, 2, 12, 3))  # three keys ahead
    whole = local_linear_operator(softmax, scaled_ridge(0.1)).dense()
    monkeypatch.setattr(attnscope.models.local_linear, "_BLOCK_ELEMENTS", 1)
    torch.testing.assert_close(local_linear_operator(softmax, scaled_ridge(0.1)).dense(), whole)


class TwoLayers(nn.Module):
    """The network of the paper's in-context regression: attention alone, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(LocalLinearAttention(8, 2) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        for block in self.blocks:
            features = features + block(features)
        return features


def test_a_model_trains_in_single_precision() -> None:
    torch.manual_seed(0)
    model = TwoLayers()
    model(normal(0, 2, 12, 8, dtype=torch.float32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    features = normal(0, 1, 12, 8, dtype=torch.float32)
    trace = assert_capture_keeps_the_contract(TwoLayers(), {"features": features}, tmp_path)
    assert trace.stacks == ("blocks.mixing",)
