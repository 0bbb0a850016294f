"""A tiny policy and responses that it did not write, the same in every environment."""

import torch


def policy():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=5,
        attn_implementation="sdpa",
    )
    return Qwen2ForCausalLM(config).eval()


def sequences():
    """Return prompts, responses and their masks; a tool wrote a piece of the second response."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for prompt, response in ((5, 24), (3, 17), (1, 13), (4, 9)):
        ids = torch.randint(6, 40, (prompt + response,), generator=generator)
        mask = torch.ones(response, dtype=torch.int64)
        if response == 17:
            mask[6:9] = 0
        found.append((ids[:prompt], ids[prompt:], mask))
    return found
