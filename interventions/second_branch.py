"""`SecondBranch`: a model on another prompt, following the tokens that a first run chooses."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnscope.interventions.errors import InterventionError

__all__ = ["SecondBranch"]


class SecondBranch:
    """Next-token logits of a prompt of its own, continued by what another run generates.

    It keeps its own cache of keys and values: each new token costs one step of one token. The rows
    may be permuted between calls, as beams are, and repeated, as beams and several answers to a
    prompt are; a call on the first run's prompt begins anew.

    Args:
        model: A decoder of transformers.
        prompt: What the first run was given, padded on the left where it is a batch.
        inputs: What this branch is given: as many rows, of any length.

    Raises:
        InterventionError: The model has no `generate`, or reads with an encoder, or the rows do not
            fit each other.
    """

    def __init__(
        self, model: nn.Module, prompt: Int[Tensor, "row token"], inputs: Mapping[str, Tensor]
    ) -> None:
        _check(model, prompt, inputs)
        self._model: Any = model
        self._prompt = prompt
        self._inputs = dict(inputs)
        self._seen: Tensor | None = None
        self._state: dict[str, Any] = {}

    @torch.no_grad()
    def logits(self, ids: Int[Tensor, "row token"]) -> Float[Tensor, "row vocabulary"]:
        """Return the logits of the token after `ids`, the first run's prompt and its answer.

        Raises:
            InterventionError: The rows do not continue those of the call before by one token.
        """
        ids = ids.to(self._prompt.device)
        if ids.shape[1] == self._prompt.shape[1]:
            logits = self._begin(ids)
        else:
            self._follow(ids)
            logits = self._step(ids, next_sequence_length=1)
        self._seen = ids
        return logits

    def _begin(self, ids: Tensor) -> Tensor:
        """Read this branch's prompt, once for all rows that share it."""
        count = len(self._prompt)
        copies = len(ids) // count
        if len(ids) % count or not torch.equal(ids, self._prompt.repeat_interleave(copies, 0)):
            raise InterventionError(
                f"generate() was called on another prompt ({tuple(ids.shape)}) than the second "
                f"branch was made for ({tuple(self._prompt.shape)})"
            )
        given = self._inputs["input_ids"]
        self._state = {name: item for name, item in self._inputs.items() if name != "input_ids"}
        self._state |= {"use_cache": True, "logits_to_keep": 1}
        self._state["position_ids"] = self._model._prepare_position_ids_for_generation(
            given, self._state
        )
        logits = self._step(given, is_first_iteration=True)
        if copies > 1:
            self._repeat(copies)
        return logits.repeat_interleave(copies, 0)

    def _step(self, ids: Tensor, **options: Any) -> Tensor:
        prepared = self._model.prepare_inputs_for_generation(ids, **options, **self._state)
        output = self._model(**prepared, return_dict=True)
        self._state = self._model._update_model_kwargs_for_generation(output, self._state)
        return output.logits[:, -1].float()

    def _repeat(self, copies: int) -> None:
        count = len(self._prompt)
        self._state["past_key_values"].batch_repeat_interleave(copies)
        for name in ("attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids"):
            held = self._state.get(name)
            if held is not None and held.shape[-2] == count:
                self._state[name] = held.repeat_interleave(copies, -2)

    def _follow(self, ids: Tensor) -> None:
        """Put the cache in the order of these rows, which is that of the beams."""
        before, prefix = self._seen, ids[:, :-1]
        if before is None or before.shape != prefix.shape:
            raise InterventionError(
                f"the second branch was called on {tuple(ids.shape)} tokens after "
                f"{None if before is None else tuple(before.shape)}; it follows decoding that adds "
                "one token a step, which assisted decoding and a prompt's own cache do not"
            )
        if torch.equal(before, prefix):
            return
        item = torch.arange(len(ids), device=ids.device) * len(self._prompt) // len(ids)
        same = (before[None] == prefix[:, None]).all(-1) & (item[None] == item[:, None])
        if not bool(same.any(-1).all()):
            raise InterventionError(
                "the second branch was called on rows that continue none of those before"
            )
        self._state["past_key_values"].reorder_cache(same.int().argmax(-1))


def _check(model: Any, prompt: Tensor, inputs: Mapping[str, Tensor]) -> None:
    kind = type(model).__name__
    if not hasattr(model, "prepare_inputs_for_generation"):
        raise InterventionError(f"{kind} does not generate by transformers' generate()")
    if getattr(model.config, "is_encoder_decoder", False):
        raise InterventionError(
            f"{kind} reads with an encoder; a second branch follows decoders only"
        )
    if "input_ids" not in inputs or len(inputs["input_ids"]) != len(prompt):
        given = tuple(inputs["input_ids"].shape) if "input_ids" in inputs else sorted(inputs)
        raise InterventionError(
            f"the second branch needs input_ids of {len(prompt)} rows, one for each prompt; "
            f"got {given}"
        )
    unknown = set(inputs) - set(inspect.signature(model.forward).parameters)
    if unknown:
        raise InterventionError(f"{kind} takes no {sorted(unknown)}")
