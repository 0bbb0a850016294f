"""Fast sampling from the policy: its own weights, a cache of keys and values, many rows at once.

The library's own `generate` spends most of its time outside of arithmetic at this size. A test
holds these logits to the library's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from benchmarks.credit.task import EOS, LONGEST, PAD

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = ["Decoder", "decoder_of", "respond"]

_KEPT = 0.8
"""Finished rows are dropped once fewer than this share of the rows goes on."""


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One layer's weights, those that are applied together joined."""

    norms: tuple[Tensor, Tensor]
    projections: Tensor
    output: Tensor
    gates: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Decoder:
    """The policy's weights as a function of one token per row."""

    layers: tuple[_Layer, ...]
    embedding: Tensor
    norm: Tensor
    cosine: Tensor
    sine: Tensor
    heads: int
    key_heads: int
    epsilon: float

    def cache(self, rows: int, columns: int) -> Tensor:
        """Return room for keys and values: layer, key or value, row, key head, column, width."""
        width = self.cosine.shape[-1]
        return torch.empty(len(self.layers), 2, rows, self.key_heads, columns, width)

    def logits(
        self, ids: Int[Tensor, " row"], column: int, cache: Tensor
    ) -> Float[Tensor, "row token"]:
        """Return what follows the tokens at a column, and put their keys and values there."""
        hidden = self.embedding[ids]
        for layer, stored in zip(self.layers, cache, strict=True):
            hidden = hidden + self._attend(layer, hidden, column, stored)
            inner = rms_norm(hidden, hidden.shape[-1:], layer.norms[1], self.epsilon)
            gate, up = (inner @ layer.gates).chunk(2, -1)
            hidden = hidden + (silu(gate) * up) @ layer.down
        return rms_norm(hidden, hidden.shape[-1:], self.norm, self.epsilon) @ self.embedding.T

    def _attend(self, layer: _Layer, hidden: Tensor, column: int, stored: Tensor) -> Tensor:
        rows, width = len(hidden), self.cosine.shape[-1]
        inner = rms_norm(hidden, hidden.shape[-1:], layer.norms[0], self.epsilon)
        joined = (inner @ layer.projections).view(rows, -1, width)
        turned = joined[:, : self.heads + self.key_heads]
        left, right = turned.chunk(2, -1)
        half = torch.cat([-right, left], -1)
        turned = turned * self.cosine[column] + half * self.sine[column]
        stored[0, :, :, column] = turned[:, self.heads :]
        stored[1, :, :, column] = joined[:, self.heads + self.key_heads :]
        seen = stored[..., : column + 1, :]
        query = turned[:, : self.heads].view(rows, self.key_heads, -1, width)
        scores = query @ seen[0].transpose(-1, -2)  # the heads of a group share their keys
        pattern = (scores * width**-0.5).softmax(-1)
        return (pattern @ seen[1]).reshape(rows, -1) @ layer.output


@torch.no_grad()
def decoder_of(policy: "LlamaForCausalLM") -> Decoder:
    """Return the decoder of a policy's weights as they are now."""
    config, model = policy.config, policy.model
    blocks: Any = model.layers
    places = torch.arange(config.max_position_embeddings)[None]
    cosine, sine = model.rotary_emb(model.embed_tokens.weight, places)
    layers = tuple(
        _Layer(
            norms=(one.input_layernorm.weight, one.post_attention_layernorm.weight),
            projections=torch.cat(
                [getattr(one.self_attn, f"{name}_proj").weight for name in "qkv"]
            ).T.contiguous(),
            output=one.self_attn.o_proj.weight.T.contiguous(),
            gates=torch.cat([one.mlp.gate_proj.weight, one.mlp.up_proj.weight]).T.contiguous(),
            down=one.mlp.down_proj.weight.T.contiguous(),
        )
        for one in blocks
    )
    return Decoder(
        layers=layers,
        embedding=model.embed_tokens.weight,
        norm=model.norm.weight,
        cosine=cosine[0],
        sine=sine[0],
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads or config.num_attention_heads,
        epsilon=config.rms_norm_eps,
    )


@torch.no_grad()
def respond(
    policy: "LlamaForCausalLM",
    prompts: Int[Tensor, "row prompt"],
    draws: Float[Tensor, "row {LONGEST}"],
) -> Int[Tensor, "row {LONGEST}"]:
    """Return one response to each prompt, at temperature 1, filled up with `<pad>`.

    Args:
        policy: The model.
        prompts: Prompts of one length.
        draws: Numbers from 0 to 1. A token is the one at which the cumulative distribution passes
            its number, so that two policies that hardly differ give nearly the same responses.
    """
    decoder = decoder_of(policy)
    cache = decoder.cache(len(prompts), prompts.shape[1] + LONGEST)
    responses = torch.full((len(prompts), LONGEST), PAD)
    going = torch.arange(len(prompts))
    over = torch.zeros_like(going, dtype=torch.bool)
    for column in range(prompts.shape[1] - 1):
        decoder.logits(prompts[:, column], column, cache)
    ids = prompts[:, -1]
    for step in range(LONGEST):
        logits = decoder.logits(ids, prompts.shape[1] - 1 + step, cache)
        ids = _drawn(logits, draws[going, step]).masked_fill(over, PAD)
        responses[going, step] = ids
        over = over | (ids == EOS)
        if over.float().mean() > 1 - _KEPT:
            more = ~over
            going, ids, over, cache = going[more], ids[more], over[more], cache[:, :, more]
        if not len(going):
            break
    return responses


def _drawn(logits: Float[Tensor, "row token"], draws: Float[Tensor, " row"]) -> Int[Tensor, " row"]:
    """Return the tokens at which the cumulative distributions pass the draws; never `<pad>`."""
    logits[:, PAD] = -torch.inf
    cumulative = logits.double().softmax(-1).cumsum(-1)
    places = torch.searchsorted(cumulative, draws.double()[:, None]).squeeze(-1)
    return places.clamp(max=EOS)  # rounding may leave the last sum a little below 1
