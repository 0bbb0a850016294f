"""Multi-head self-attention against loops and against torch's own module."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope.models.self_attention import SelfAttention
from tests.models.capturing import assert_capture_keeps_the_contract


def attention_by_loops(module: SelfAttention, tokens: Tensor) -> Tensor:
    """Return the output for one sequence, head by head and query by query."""
    width = tokens.shape[-1] // module.heads
    query, key, value = module.project(tokens).chunk(3, dim=-1)
    rows = []
    for place in range(len(tokens)):
        parts = []
        for start in range(0, tokens.shape[-1], width):
            part = slice(start, start + width)
            scores = key[:, part] @ query[place, part] / width**0.5
            parts.append(scores.softmax(0) @ value[:, part])
        rows.append(torch.cat(parts))
    return module.output(torch.stack(rows))


def test_it_is_softmax_attention_head_by_head() -> None:
    torch.manual_seed(0)
    module, tokens = SelfAttention(6, 2).double(), torch.randn(2, 8, 6, dtype=torch.float64)
    expected = torch.stack([attention_by_loops(module, item) for item in tokens])
    torch.testing.assert_close(module(tokens, (2, 4)), expected)


def test_it_is_the_module_of_torch_with_the_same_weights() -> None:
    torch.manual_seed(0)
    ours, features = SelfAttention(8, 2), torch.randn(2, 5, 8)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    weights = {
        "in_proj_weight": ours.project.weight,
        "in_proj_bias": ours.project.bias,
        "out_proj.weight": ours.output.weight,
        "out_proj.bias": ours.output.bias,
    }
    theirs.load_state_dict(weights)
    torch.testing.assert_close(ours(features), theirs(features, features, features)[0])


def test_gradients_are_those_of_finite_differences() -> None:
    module = SelfAttention(4, 2).double()
    features = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (features,))


def test_a_capture_keeps_the_contract(tmp_path: Path) -> None:
    trace = assert_capture_keeps_the_contract(
        SelfAttention(8, 2), {"features": torch.randn(1, 6, 8)}, tmp_path
    )
    assert trace.attention[0].shape == (2, 6, 6)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 8 is not a multiple of 3 heads"):
        SelfAttention(8, 3)
