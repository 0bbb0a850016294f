"""`PositionalGate`: how much gated heads read by content and how much by place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.places import Layers
from attnscope.interventions.seams import Seams

__all__ = ["PositionalGate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionalGate:
    """Sets the gate ``sigmoid(lambda)`` of heads with gated positional self-attention (ConViT).

    Such a head reads ``normalize[(1 - g) content + g position]``. Masking position (0) or content
    (1) in the first 3, 5 or 10 layers is the paper's table 6.

    Attributes:
        gate: What the gate is set to, from 0 (content alone) to 1 (position alone).
        heads: Which heads, negative ones from the end; None for all.
        layers: Which of the gated layers, negative ones from the end; None for all.

    Reference: d'Ascoli et al. 2021, arXiv:2103.10697, equation 7 and table 6.
    """

    gate: float
    heads: Sequence[int] | None = None
    layers: Layers = None

    def enter(self, seams: Seams) -> None:
        """Set the gates, and put them back when the intervention ends."""
        if not 0 <= self.gate <= 1:
            raise InterventionError(f"gate is {self.gate}; it lies between 0 and 1")
        gated = _gated(seams)
        if not gated:
            raise InterventionError(
                f"{type(seams.subject.model).__name__} has no gated positional attention; "
                "ConViT of timm has"
            )
        asked = self.layers(len(gated)) if callable(self.layers) else self.layers
        for layer in range(len(gated)) if asked is None else asked:
            if not -len(gated) <= layer < len(gated):
                raise InterventionError(
                    f"no gated layer {layer}: there are {len(gated)}, 0 to {len(gated) - 1}"
                )
            self._set(gated[layer], layer, seams)

    def _set(self, module: Any, layer: int, seams: Seams) -> None:
        parameter = module.gating_param
        count = len(parameter)
        wrong = [head for head in self.heads or () if not -count <= head < count]
        if wrong:
            raise InterventionError(
                f"no head {', '.join(map(str, wrong))} in gated layer {layer}; its heads are 0 to "
                f"{count - 1}"
            )
        before = parameter.detach().clone()
        seams.stack.callback(_write, parameter, before)
        after = before.clone()
        chosen = list(range(count)) if self.heads is None else list(self.heads)
        after[chosen] = torch.logit(torch.tensor(self.gate)).to(after)
        _write(parameter, after)


def _gated(seams: Seams) -> list[Any]:
    return [one for one in seams.subject.model.modules() if hasattr(one, "gating_param")]


def _write(parameter: torch.Tensor, values: torch.Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(values)
