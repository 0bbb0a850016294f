"""`HeadScaling` and `HeadAblation`: multiply what chosen heads give, or take it away."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.places import Place
from attnscope.interventions.seams import Seams
from attnscope.interventions.standing import Standing
from attnscope.probes.attention_call import AttentionCall

__all__ = ["HeadAblation", "HeadScaling", "head_numbers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadScaling:
    """Multiplies the outputs z of some heads, before W_O, at every query.

    Attributes:
        heads: Which heads, negative ones from the end; None for all.
        factor: 1 leaves the model as it is, 0 takes the heads away.
        layers: Which layers; None for all.
        stack: Of which stack; by default of those that mix what the model speaks.
    """

    heads: Sequence[int] | None = None
    factor: float
    layers: Sequence[int] | None = None
    stack: str | None = None

    def enter(self, seams: Seams) -> None:
        """Scale the heads of the layers named."""
        if self.factor != 1:
            seams.attention(self._change, self.layers, self.stack)

    def _change(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        factors = standing.known(
            ("scaling", id(self), call.output.shape[1]), lambda: self._factors(call, place)
        )
        return replace(call, output=call.output * factors)

    def _factors(self, call: AttentionCall, place: Place) -> Float[Tensor, "head 1 1"]:
        factors = torch.ones(call.output.shape[1], 1, 1).to(call.output)
        factors[head_numbers(self.heads, call, place)] = self.factor
        return factors


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadAblation:
    """Replaces the outputs z of some heads, before W_O, at every query: by 0, or by a mean.

    Attributes:
        heads: Which heads, negative ones from the end; None for all.
        mean: What stands in for each of these heads, by layer: `(head, dim)`, as the mean of
            `values` that a trace's operators read of, over many inputs; None for 0.
        layers: Which layers; None for all, or for all that `mean` has.
        stack: Of which stack; by default of those that mix what the model speaks.
    """

    heads: Sequence[int] | None = None
    mean: dict[int, Float[Tensor, "head dim"]] | None = None
    layers: Sequence[int] | None = None
    stack: str | None = None

    def enter(self, seams: Seams) -> None:
        """Replace the heads of the layers named."""
        layers = list(self.mean) if self.layers is None and self.mean is not None else self.layers
        numbers = seams.places.resolved(layers, self.stack)
        missing = sorted(numbers - set(self.mean)) if self.mean is not None else []
        if missing:
            raise InterventionError(
                f"no mean for layers {missing}; there are means for {sorted(self.mean or ())}"
            )
        seams.attention(self._change, layers, self.stack)

    def _change(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        chosen, output = head_numbers(self.heads, call, place), call.output.clone()
        if self.mean is None:
            output[:, chosen] = 0
            return replace(call, output=output)
        mean = self.mean[place.layer].to(output)
        expected = (len(chosen), output.shape[-1])
        if mean.shape != expected:
            raise InterventionError(
                f"the mean of layer {place.layer} has shape {tuple(mean.shape)}; {expected} "
                "(head, dim) is needed"
            )
        output[:, chosen] = mean[:, None]
        return replace(call, output=output)


def head_numbers(heads: Sequence[int] | None, call: AttentionCall, place: Place) -> list[int]:
    """Return head numbers counted from the start.

    Raises:
        InterventionError: A head does not exist.
    """
    count = call.output.shape[1]
    wrong = [head for head in heads or () if not -count <= head < count]
    if wrong:
        raise InterventionError(
            f"no head {', '.join(map(str, wrong))} in layer {place.layer} of {place.stack}; its "
            f"heads are 0 to {count - 1}, or {-count} to -1 from the end"
        )
    return list(range(count)) if heads is None else [head % count for head in heads]
