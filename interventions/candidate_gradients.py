"""`CandidateGradients`: the saliency of the row that predicts a token, for one candidate a time.

A map's row P reaches the loss of the next token through position P's own residual stream alone:
its output at P, then P's keys and values in later layers. So one step of one token on the cache,
with gradients from the first target layer on, has the whole gradient `dL/dA[P, j] = dL/dz_P . v_j`
in it; the cache is a constant. Layers below the first target layer keep no graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.interventions.errors import InterventionError
from attnscope.interventions.places import Place
from attnscope.interventions.standing import Standing
from attnscope.metrics import NormScope, layer_saliency
from attnscope.probes.attention_call import AttentionCall

__all__ = ["CandidateGradients", "Keys"]

Keys = Callable[[Standing], Bool[Tensor, "row key"]]
"""Takes where a call's rows stand, and says which keys count as earlier outputs."""


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    """A target layer in the step that just ran."""

    attention: AttentionOperator
    value: Tensor
    output: Tensor
    keys: Tensor


class CandidateGradients:
    """Hears the target layers of a step, and scores candidates for the token that it predicts.

    Args:
        keys: Which keys count as earlier outputs.
        norm: What a layer's head sum is divided by.
    """

    def __init__(self, keys: Keys, norm: NormScope) -> None:
        self._keys, self._norm = keys, norm
        self._open = False
        self._heard: list[_Heard] = []

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Hear the forward pass that is made while the context is open, gradients included."""
        if torch.is_inference_mode_enabled():
            raise InterventionError(
                "saliency needs gradients, which torch.inference_mode() rules out; leave it"
            )
        self._heard, self._open = [], True
        try:
            with torch.no_grad():  # until the first target layer, which turns gradients on
                yield
        finally:
            self._open = False

    def hear(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        """Take note of a target layer, and let its output be a point to differentiate at."""
        if not self._open:
            return call
        if self._norm == "matrix" and call.attention.queries < call.attention.keys:
            raise InterventionError(
                "the norm of a whole map needs the gradient of all its rows, which a step on the "
                "cache does not have; generate with use_cache=False, or take norm='row'"
            )
        torch.set_grad_enabled(True)
        output = call.output
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        # a cache may have room for keys that do not exist yet
        said = standing.key_positions() <= standing.positions()[:, -1:]
        keys = self._keys(standing) & said
        self._heard.append(_Heard(call.attention, call.value.detach(), output, keys))
        return replace(call, output=output)

    def scores(
        self, logits: Float[Tensor, "row vocabulary"], candidates: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        """Return the score of one candidate for each row, in one backward pass.

        `S(c) = mean over target layers and earlier outputs of sum_h |A dL/dA|`, normalised, with
        `L = -log p(c)` and the row of the query that predicts c. NaN without an earlier output, and
        where the step was not heard.

        Args:
            logits: The step's own, with their graph.
            candidates: One token for each row; rows do not touch each other.
        """
        if not self._heard:  # the prompt's own step: nothing was said that it could neglect
            return torch.full((len(candidates),), torch.nan, device=logits.device)
        with torch.enable_grad():
            loss = torch.nn.functional.cross_entropy(logits, candidates, reduction="sum")
        outputs = [heard.output for heard in self._heard]
        gradients = torch.autograd.grad(loss, outputs, retain_graph=True)
        layers = [
            self._layer(heard, gradient)
            for heard, gradient in zip(self._heard, gradients, strict=True)
        ]
        return torch.stack(layers).mean(0)

    def release(self, cache: Any) -> None:
        """Let go of the step's graph, which the cache would carry into the next one."""
        self._heard = []
        for layer in getattr(cache, "layers", ()):
            for name, held in list(vars(layer).items()):
                if isinstance(held, Tensor) and held.requires_grad:
                    setattr(layer, name, held.detach())

    @torch.no_grad()
    def _layer(self, heard: _Heard, gradient: Tensor) -> Tensor:
        last = heard.attention.queries - 1
        row = layer_saliency(heard.attention, heard.value, gradient, [last], self._norm)[:, 0]
        counted = heard.keys.to(row)
        return (row * counted).sum(-1) / counted.sum(-1)
