"""A tiny policy, and responses that it did not write."""

import pytest
import torch

from attnscope.credit import completion_batch


def tiny_policy(**changes):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    settings = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "eos_token_id": 5,
        "attn_implementation": "sdpa",
    }
    return Qwen2ForCausalLM(Qwen2Config(**(settings | changes))).eval()


@pytest.fixture
def policy():
    return tiny_policy()


@pytest.fixture
def completions():
    """Four left-padded prompts with right-padded completions, the last one empty."""
    generator = torch.Generator().manual_seed(1)
    prompt, response = torch.arange(5), torch.arange(24)
    prompt_mask = prompt >= torch.tensor([[0], [2], [4], [1]])
    completion_mask = response < torch.tensor([[24], [17], [13], [0]])
    return completion_batch(
        torch.randint(6, 40, (4, 5), generator=generator) * prompt_mask,
        prompt_mask.long(),
        torch.randint(6, 40, (4, 24), generator=generator) * completion_mask,
        completion_mask.long(),
    )
