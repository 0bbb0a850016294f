"""`ActivationEdit`: set entries of the hidden state, as one does to massive activations."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.places import Layers
from attnscope.interventions.seams import Seams
from attnscope.interventions.standing import Standing

__all__ = ["ActivationEdit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationEdit:
    """Sets some dimensions of the residual stream that enters some layers.

    Massive activations set to 0 break a model, set to their mean over inputs they do not: they are
    constants in disguise.

    Attributes:
        dimensions: Which dimensions; Llama-2-7B's massive ones are 2533 and 1415.
        values: What they are set to, one for each or one for all: 0, or a mean (at position 0 of
            Llama-2-7B 767.6 and -458.55).
        positions: At which tokens: a segment, or positions counted from a row's own first token.
        layers: Which layers' input; None for all.

    Reference: Sun et al. 2024, arXiv:2402.17762, section 3; numbers from its published code.
    """

    dimensions: Sequence[int]
    values: float | Sequence[float] = 0.0
    positions: str | Sequence[int] = (0,)
    layers: Layers = None

    def enter(self, seams: Seams) -> None:
        """Edit what enters the layers named."""
        if isinstance(self.values, Sequence) and len(self.values) != len(self.dimensions):
            raise InterventionError(
                f"{len(self.values)} values for {len(self.dimensions)} dimensions; give one for "
                "each, or one for all"
            )
        seams.hidden(self._change, self.layers)

    def _change(self, state: Tensor, layer: int, standing: Standing) -> Tensor:
        width = state.shape[-1]
        wrong = [place for place in self.dimensions if not -width <= place < width]
        if wrong:
            raise InterventionError(
                f"no dimension {', '.join(map(str, wrong))} in a hidden state of width {width}"
            )
        what = self.positions if isinstance(self.positions, str) else tuple(self.positions)
        here = standing.queries_in(what)
        if not standing.known(("edits", what), lambda: bool(here.any())):
            return state
        changed, chosen = state.clone(), list(self.dimensions)
        values = torch.as_tensor(self.values, dtype=state.dtype, device=state.device)
        changed[..., chosen] = torch.where(here[..., None], values, state[..., chosen])
        return changed
