"""The policy: a Llama of transformers with six small layers, so that there is a middle third."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.credit.task import BOS, EOS, LONGEST, PAD, PROMPT, TOKENS

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["CHECKPOINTS", "build_policy", "load_policy", "policy_config", "save_policy"]

CHECKPOINTS = Path(__file__).with_name("checkpoints")
"""The supervised policies, by seed: `supervised-0.safetensors` and so on."""


def policy_config() -> "LlamaConfig":
    """Return the shape: six layers of width 64, four heads, two key-value heads."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=PROMPT + LONGEST,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )


def build_policy(seed: int) -> "LlamaForCausalLM":
    """Return an untrained policy, the same for the same seed."""
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(policy_config())


def save_policy(policy: "LlamaForCausalLM", path: Path) -> None:
    """Write the weights in half precision, whole or not at all."""
    from safetensors.torch import save_file

    weights = {
        name: weight.detach().half().contiguous() for name, weight in policy.named_parameters()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file(weights, temporary)
    temporary.replace(path)


def load_policy(path: Path) -> "LlamaForCausalLM":
    """Return the policy of a file, in single precision, in evaluation mode.

    It has no dropout, so that it trains in that mode as well.
    """
    from safetensors.torch import load_file

    policy = build_policy(0)
    missing = policy.load_state_dict(
        {name: weight.float() for name, weight in load_file(path).items()}, strict=False
    )
    if missing.unexpected_keys or set(missing.missing_keys) - {"lm_head.weight"}:
        raise ValueError(f"{path} holds other weights than the policy's: {missing}")
    return policy.eval()
