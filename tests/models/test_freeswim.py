"""FreeSwim: its window by the published rule, its passes on a tiny Wan by masks and loops."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.functional import scaled_dot_product_attention

from attnscope.models.freeswim import (
    SwimCrossAttention,
    SwimPass,
    SwimSelfAttention,
    inward_window,
    rotated,
    swim_scale,
)
from attnscope.models.freeswim_path import freeswim
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract

GRID, HALF = (2, 5, 4), (1, 1)
SCALE = swim_scale(12)


def published_rule(length: int, half: int, query: int) -> list[int]:
    low = query - half - max(half + query - length + 1, 0)
    high = query + half + max(half - query, 0)
    return [key for key in range(length) if low <= key <= high]


@pytest.mark.parametrize("length", range(3, 14))
def test_the_inward_window_is_a_neighborhood(length: int) -> None:
    for half in range(6):
        seen = inward_window((1, length, 1), (half, 0)).keys().tolist()
        assert seen == [published_rule(length, half, query) for query in range(length)]


def test_a_patch_sees_all_frames_and_its_window_of_each() -> None:
    keys = inward_window((3, 5, 4), (1, 2)).keys()
    for query, (_, row, column) in enumerate(product(range(3), range(5), range(4))):
        frames = product(range(3), published_rule(5, 1, row), published_rule(4, 2, column))
        assert keys[query].tolist() == [frame * 20 + y * 4 + x for frame, y, x in frames]


def test_the_scale_of_the_published_model() -> None:
    assert round(swim_scale(128), 6) == 0.092461
    assert swim_scale(16, None) == 0.25
    with pytest.raises(ValueError, match=r"half window \(-1, 2\): rows and columns are not"):
        inward_window((1, 3, 3), (-1, 2))


@pytest.fixture
def transformer() -> Any:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    torch.manual_seed(0)
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=8,
        ffn_dim=16,
        num_layers=2,
        rope_max_seq_len=16,
    ).eval()


def inputs(seed: int = 0) -> dict[str, Tensor]:
    return {
        "hidden_states": normal(seed, 1, 4, 2, 10, 8).float(),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": normal(seed + 1, 1, 3, 8).float(),
    }


def run(transformer: Any, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return transformer(**given, return_dict=False)[0]


def slow_processor(role: str) -> Callable[..., Tensor]:
    """Return a processor of two branches by a dense mask: the first item sees its window only."""
    places = list(product(*map(range, GRID)))
    mask = torch.tensor(
        [
            [
                there[1] in published_rule(GRID[1], HALF[0], here[1])
                and there[2] in published_rule(GRID[2], HALF[1], here[2])
                for there in places
            ]
            for here in places
        ]
    )

    def process(
        attention: Any, hidden: Tensor, text: Tensor | None = None, _: None = None, turn: Any = None
    ) -> Tensor:
        other = hidden if text is None else text
        query, key = (
            attention.norm_q(attention.to_q(hidden)),
            attention.norm_k(attention.to_k(other)),
        )
        query, key, value = (
            part.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for part in (query, key, attention.to_v(other))
        )
        if role == "self":
            query, key = (rotated(part, *turn) for part in (query, key))
            masks = torch.stack([mask, torch.ones_like(mask)])[:, None]
            read = scaled_dot_product_attention(query, key, value, masks, scale=SCALE)
        else:
            read = scaled_dot_product_attention(query[[1, 1]], key, value)
        return attention.to_out[0](read.transpose(1, 2).flatten(-2))

    return process


@contextmanager
def listening(transformer: Any) -> Iterator[list[tuple[str, torch.Size]]]:
    """Write down which mixings run, and the shapes of their operators."""
    heard: list[tuple[str, torch.Size]] = []
    for name, module in transformer.named_modules():
        if name.endswith("mixing"):
            module.register_forward_pre_hook(
                lambda _, given, name=name: heard.append((name.split(".")[-1], given[0].shape))
            )
    yield heard


def test_both_branches_are_those_of_dense_masks(transformer: Any) -> None:
    given = inputs()
    with freeswim(transformer, HALF):
        output = run(transformer, given)
    for block in transformer.blocks:
        block.attn1.set_processor(slow_processor("self"))
        block.attn2.set_processor(slow_processor("cross"))
    doubled = {name: torch.cat([tensor, tensor]) for name, tensor in given.items()}
    torch.testing.assert_close(output, run(transformer, doubled)[:1])


def test_windows_as_large_as_the_video_change_nothing(transformer: Any) -> None:
    before = run(transformer, inputs())
    with freeswim(transformer, (9, 9), trained_patches=None):
        torch.testing.assert_close(run(transformer, inputs()), before)
    with freeswim(transformer, (9, 9)):  # the scale does
        assert not torch.allclose(run(transformer, inputs()), before, atol=1e-4)


def test_rotation_is_that_of_diffusers(transformer: Any) -> None:
    turn = transformer.rope(torch.zeros(1, 4, 2, 10, 8))
    factor = normal(0, 1, 2, 40, 12).float()
    cosine, sine = (part[0, :, 0] for part in turn)
    for pair, patch in product(range(6), (0, 7, 39)):
        angle = torch.complex(cosine[patch, 2 * pair], sine[patch, 2 * pair])
        old = torch.complex(*factor[0, 1, patch, 2 * pair : 2 * pair + 2])
        new = torch.complex(*rotated(factor, *turn)[0, 1, patch, 2 * pair : 2 * pair + 2])
        torch.testing.assert_close(new, old * angle)


def test_every_branch_has_an_operator_of_its_own(transformer: Any) -> None:
    with freeswim(transformer, HALF), listening(transformer) as heard:
        run(transformer, inputs())
    expected = [
        ("window_mixing", (1, 2, 40, 40)),
        ("full_mixing", (1, 2, 40, 40)),
        ("cross_mixing", (1, 2, 40, 3)),
    ]
    assert heard == expected * 2


def test_everything_is_undone_on_every_exit(transformer: Any) -> None:
    before, processors = run(transformer, inputs()), dict(transformer.attn_processors)
    with pytest.raises(RuntimeError, match="halfway"), freeswim(transformer, HALF):
        raise RuntimeError("halfway")
    assert transformer.attn_processors == processors
    assert not transformer._forward_pre_hooks
    assert not transformer._forward_hooks
    assert "cache_context" not in vars(transformer)
    assert torch.equal(run(transformer, inputs()), before)


def test_between_full_steps_the_cross_attention_is_kept(transformer: Any) -> None:
    with freeswim(transformer, HALF, cache_steps=2), listening(transformer) as heard:
        outputs = []
        for step in range(3):
            with transformer.cache_context("cond"):
                outputs.append(run(transformer, inputs()))
            with transformer.cache_context("uncond"):
                outputs.append(run(transformer, inputs(5)))
            assert len(outputs) == 2 * step + 2
    both, window, alone = (
        ["window_mixing", "full_mixing", "cross_mixing"] * 2,
        ["window_mixing"] * 2,
        ["window_mixing", "cross_mixing"] * 2,
    )
    assert [name for name, _ in heard] == both + alone + window + alone + both + alone
    # The same input has the same cross-attention: keeping it changes nothing.
    torch.testing.assert_close(outputs[2], outputs[0])
    torch.testing.assert_close(outputs[4], outputs[0])
    torch.testing.assert_close(outputs[1], outputs[3])


def test_a_kept_cross_attention_is_that_of_the_earlier_input(transformer: Any) -> None:
    with freeswim(transformer, HALF, cache_steps=2):
        run(transformer, inputs())
        other = run(transformer, inputs() | {"encoder_hidden_states": normal(9, 1, 3, 8).float()})
        run(transformer, inputs())
        same = run(transformer, inputs())
    assert torch.equal(other, same)  # the text of a step between is not read


def test_what_was_kept_has_to_fit(transformer: Any) -> None:
    wide = {name: torch.cat([tensor, tensor]) for name, tensor in inputs().items()}
    with freeswim(transformer, HALF, cache_steps=2):
        run(transformer, inputs())
        with pytest.raises(ValueError, match=r"kept \(1, 40, 24\) .* this pass has \(2, 40, 24\)"):
            run(transformer, wide)


def test_a_batch_keeps_its_items_apart(transformer: Any) -> None:
    both = {name: torch.cat([inputs()[name], inputs(7)[name]]) for name in inputs()}
    with freeswim(transformer, HALF):
        output = run(transformer, both)
        torch.testing.assert_close(output[:1], run(transformer, inputs()))
        torch.testing.assert_close(output[1:], run(transformer, inputs(7)))
        as_object = transformer(**inputs()).sample
        torch.testing.assert_close(as_object, output[:1])


def test_requests_that_make_no_sense_are_refused(transformer: Any) -> None:
    with pytest.raises(ValueError, match="cache_steps is 0; it is at least 1"):
        freeswim(transformer, HALF, cache_steps=0).__enter__()
    transformer.blocks[1].attn2.add_k_proj = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="conditioned on images; FreeSwim knows text only"):
        freeswim(transformer, HALF).__enter__()


def test_both_branches_need_both_halves_of_a_batch() -> None:
    own = SwimSelfAttention(SwimPass((1, 0), grid=(1, 4, 1)))
    with pytest.raises(ValueError, match="a batch of 3 does not hold both branches"):
        own(Weights(), torch.zeros(3, 4, 2))


class Swimming(nn.Module):
    """A Wan whose output is a tensor."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor
    ) -> Tensor:
        return self.transformer(hidden_states, timestep, encoder_hidden_states).sample


def test_capture_keeps_the_contract(transformer: Any, tmp_path: Path) -> None:
    with freeswim(transformer, HALF):
        trace = assert_capture_keeps_the_contract(Swimming(transformer), inputs(), tmp_path)
    assert len(trace.observations) == 6
    assert {stack.split(".")[-1] for stack in trace.stacks} == {
        "window_mixing",
        "full_mixing",
        "cross_mixing",
    }


class Weights(nn.Module):
    """What a diffusers attention holds."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 1
        self.to_q, self.to_k, self.to_v = (nn.Linear(2, 2) for _ in range(3))
        self.norm_q = self.norm_k = nn.Identity()
        self.to_out = nn.ModuleList([nn.Linear(2, 2)])


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    weights = Weights().double()
    swim_pass = SwimPass((1, 0), grid=(1, 4, 1))
    own, cross = SwimSelfAttention(swim_pass), SwimCrossAttention(swim_pass)

    def attend(hidden: Tensor, text: Tensor) -> Tensor:
        return cross(weights, own(weights, hidden), text)

    given = normal(0, 2, 4, 2).requires_grad_(), normal(1, 2, 3, 2).requires_grad_()
    assert gradcheck(attend, given)
