"""Gated Associative Memory: its arithmetic by hand, how far it sees, and its sizes."""

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnscope.models.gated_associative_memory import (
    GAM_VARIANTS,
    GatedAssociativeMemory,
    GatedAssociativeMemoryModel,
    GatedAssociativeMemoryVariant,
)
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract

SMALL = GatedAssociativeMemoryVariant(
    channels=8, slots=5, depth=6, tokens=20, vocabulary=11, window=3
)


def by_hand(kernel: tuple[float, ...]) -> GatedAssociativeMemory:
    """Return two channels, two slots that are the unit vectors, gates of one half, one kernel."""
    variant = replace(SMALL, channels=2, slots=2, window=len(kernel))
    module = GatedAssociativeMemory(variant).double()
    with torch.no_grad():
        module.memory.copy_(torch.eye(2))
        module.convolution.weight.copy_(torch.tensor(kernel).expand(2, 1, -1))
        for parameter in (module.convolution.bias, *module.gates.parameters()):
            assert parameter is not None
            parameter.zero_()
    return module


def test_a_token_looked_up_by_hand() -> None:
    """The token (ln 3, 0) finds three quarters of the first slot; the kernel keeps its place."""
    module = by_hand((0, 0, 1))
    token = torch.tensor([[[log(3), 0.0]]], dtype=torch.float64)
    seen: list[Tensor] = []
    module.memory_mixing.register_forward_hook(lambda _, args, __: seen.append(args[0].dense()))
    output = module(token)
    torch.testing.assert_close(seen[0], torch.tensor([[[[0.75, 0.25]]]]).double())
    expected = torch.tensor([[[0.5 * log(3) + 0.375, 0.125]]], dtype=torch.float64)
    torch.testing.assert_close(output, expected)


def test_a_kernel_that_delays() -> None:
    module = by_hand((1, 0, 0))
    tokens = normal(0, 1, 6, 2)
    output: list[Tensor] = []
    module.local_mixing.register_forward_hook(lambda *call: output.append(call[2]))
    module(tokens)
    read = output[0].squeeze(-1).mT
    torch.testing.assert_close(read[:, 2:], tokens[:, :-2])
    assert not read[:, :2].any()


def slow(module: GatedAssociativeMemory, tokens: Tensor) -> Tensor:
    """Return the module's output by a loop over tokens, from the convolution of torch."""
    window = module.variant.window
    padded = torch.nn.functional.pad(tokens.mT, (window - 1, 0))
    local = module.convolution(padded).mT
    rows = []
    for item in range(len(tokens)):
        for token, near in zip(tokens[item], local[item], strict=True):
            found = (module.memory @ token).softmax(0) @ module.memory
            gates = torch.sigmoid(module.gates(token))
            rows.append(gates[: len(token)] * near + gates[len(token) :] * found)
    return torch.stack(rows).reshape(tokens.shape)


def test_the_module_is_its_formula() -> None:
    torch.manual_seed(0)
    module = GatedAssociativeMemory(SMALL).double()
    tokens = normal(0, 2, 7, 8)
    torch.testing.assert_close(module(tokens), slow(module, tokens))


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    module = GatedAssociativeMemory(replace(SMALL, channels=2, slots=2)).double()
    assert torch.autograd.gradcheck(module, normal(0, 1, 3, 2).requires_grad_())


@pytest.mark.parametrize(
    ("variant", "count"),
    [("full", 22_599_680), ("memory", 19_435_520), ("sum", 19_447_808), ("local", 17_874_944)],
)
def test_published_sizes(variant: str, count: int) -> None:
    with torch.device("meta"):
        model = GatedAssociativeMemoryModel(GAM_VARIANTS[variant])
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def changed_by(model: GatedAssociativeMemoryModel, ids: Tensor, position: int) -> list[int]:
    """Return the tokens whose logits are not bit for bit the same when another one changes."""
    other = ids.clone()
    other[0, position] = (ids[0, position] + 1) % SMALL.vocabulary
    with torch.no_grad():
        moved = (model(ids) != model(other)).any(-1)[0]
    return moved.nonzero().flatten().tolist()


@pytest.mark.parametrize("variant", ["full", "sum", "local"])
def test_six_blocks_see_thirteen_tokens(variant: str) -> None:
    torch.manual_seed(0)
    ablation = GAM_VARIANTS[variant]
    sizes = replace(SMALL, gated=ablation.gated, slots=SMALL.slots if ablation.slots else 0)
    model = GatedAssociativeMemoryModel(sizes).double().eval()
    ids = torch.arange(20).remainder(SMALL.vocabulary)[None]
    assert changed_by(model, ids, 3) == list(range(3, 3 + 13))


def test_the_memory_passes_nothing_from_token_to_token() -> None:
    torch.manual_seed(0)
    model = GatedAssociativeMemoryModel(replace(SMALL, window=0, gated=False)).double().eval()
    assert changed_by(model, torch.zeros(1, 20, dtype=torch.long), 3) == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_trains(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = GatedAssociativeMemoryModel(SMALL).to(dtype).train()
    logits = model(torch.arange(20).remainder(11).reshape(2, 10))
    logits.logsumexp(-1).sum().backward()
    assert logits.shape == (2, 10, 11)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_sequence_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="21 tokens; this model has 20 positions"):
        GatedAssociativeMemoryModel(SMALL)(torch.zeros(1, 21, dtype=torch.long))


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GatedAssociativeMemoryModel(replace(SMALL, depth=2))
    ids = torch.arange(12).remainder(11)[None]
    trace = assert_capture_keeps_the_contract(model, {"input_ids": ids}, tmp_path)
    kinds = {site.stack.split(".")[-1] for site in trace.sites}
    assert kinds == {"local_mixing", "local_gate_mixing", "memory_mixing", "memory_gate_mixing"}
    memory = next(o for o in trace.observations if o.site.stack.endswith("memory_mixing"))
    assert (memory.attention.key_axis, tuple(memory.attention.shape)) == ("memory", (1, 12, 5))
