"""The two ways of the benchmark of gradients agree, and only one of them holds maps."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gradients import dense_readings, factored_readings
from tests.largest_storage import LargestStorage

TOKENS = 600


@pytest.fixture
def small_blocks() -> Iterator[None]:
    """Blocks as small beside this length as the real ones are beside a long text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnscope.attention.tile._BLOCK_ELEMENTS", 2**16)
        yield


def network(implementation: str) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,  # or the maps would be uniform, and hide what is wrong
    )
    model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    model.set_attn_implementation(implementation)
    return model


def read(way: Callable[[Any, Tensor], Mapping[str, Tensor]], model: Any) -> tuple[Any, int]:
    tokens = torch.randint(0, 50, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    with LargestStorage() as largest:
        readings = way(model, tokens)
    return readings, largest.elements


@pytest.mark.usefixtures("small_blocks")
def test_factors_give_what_maps_give_and_no_map_is_held():
    ours, held = read(factored_readings, network("sdpa"))
    theirs, held_by_maps = read(dense_readings, network("eager"))
    assert held < TOKENS**2 <= held_by_maps
    assert set(ours) == set(theirs) == {"saliency", "columns", "relevance"}
    for name, values in theirs.items():
        scale = float(values.abs().max())
        assert scale > 0
        torch.testing.assert_close(ours[name], values, rtol=1e-3, atol=1e-5 * scale)
