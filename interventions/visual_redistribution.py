"""`VAR`: visual attention redistribution, from sink tokens to the rest of the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.places import Layers, Place
from attnscope.interventions.row_change import chosen_queries, pattern_rows, with_rows
from attnscope.interventions.seams import Seams
from attnscope.interventions.standing import Standing
from attnscope.metrics import (
    image_centric_heads,
    require_reachable,
    sink_dimension_value,
    sink_tokens,
)
from attnscope.probes.attention_call import AttentionCall

__all__ = ["SINK_DIMENSIONS", "VAR", "all_but_last", "redistributed"]

_ROOM = 64
"""Tokens to come for which the kinds of keys are laid out in advance."""

SINK_DIMENSIONS: dict[str, tuple[int, ...]] = {
    "llava-1.5-7b": (1415, 2533),
    "llama-2-13b": (2100, 4743),
    "qwen2-vl-7b": (458, 2570),
    "internvl2-8b": (3584,),
}
"""Published sink dimensions; those of another model, `find_sink_dimensions` looks for."""


def all_but_last(depth: int) -> Sequence[int]:
    """Return all layers but the last.

    Example:
        >>> list(all_but_last(4))
        [0, 1, 2]
    """
    return range(depth - 1)


def redistributed(
    rows: Float[Tensor, "*axes key"],
    sinks: Bool[Tensor, "*#axes key"],
    content: Bool[Tensor, "*#axes key"],
    removed: float,
) -> Float[Tensor, "*axes key"]:
    """Return rows in which a share of what sinks get goes to content, in proportion.

    ``Omega = removed * sum over sinks of A``; each content key gets ``A_j + Omega A_j / sum over
    content of A``. The sum of a row stays; a row that gives content nothing is left as it is.

    Args:
        rows: Rows after the softmax.
        sinks: Sink keys, of text and image.
        content: Image keys that are no sinks.
        removed: The share taken away: the paper's p, and 1 less the published code's p.

    Reference: Kang et al. 2025, arXiv:2503.03321.

    Example:
        >>> rows = torch.tensor([0.3, 0.2, 0.1, 0.1, 0.3])
        >>> sinks = torch.tensor([True, True, False, False, False])
        >>> content = torch.tensor([False, False, True, True, False])
        >>> [round(x, 4) for x in redistributed(rows, sinks, content, 0.6).tolist()]
        [0.12, 0.08, 0.25, 0.25, 0.3]
        >>> [round(x, 4) for x in redistributed(rows, sinks, content, 1 - 0.6).tolist()]
        [0.18, 0.12, 0.2, 0.2, 0.3]
    """
    taken, given = rows * sinks * removed, rows * content
    mass = given.sum(-1, keepdim=True)
    share = taken.sum(-1, keepdim=True) / mass
    moved = _moved(rows, content.to(rows.dtype), (sinks * removed).to(rows.dtype), share)
    return torch.where(mass > 0, moved, rows)


def _moved(
    rows: Float[Tensor, "*axes key"],
    content: Float[Tensor, "*#axes key"],
    lost: Float[Tensor, "*#axes key"],
    share: Float[Tensor, "*axes 1"],
) -> Float[Tensor, "*axes key"]:
    """Return `rows (1 + content share - lost)`: content gains by a share, sinks lose one."""
    return torch.addcmul(rows, rows, torch.addcmul(-lost, content, share))


@dataclass(frozen=True, slots=True, kw_only=True)
class VAR:
    """Moves attention from sink tokens to the other image tokens, in heads that look at the image.

    Sinks are tokens of the prompt whose `sink_dimension_value` reaches `tau` as they enter a layer.
    Queries after the image are changed, in the prompt and in the response.

    Attributes:
        dimensions: Sink dimensions of the language model, see `SINK_DIMENSIONS`.
        tau: Value from which a token is a sink.
        removed: Share of a sink's attention that is moved, in the paper's sense. Its number was not
            found; 0.4 is what the published code does with its 0.6 (the share that is kept). 0
            leaves the model as it is.
        rho: Least visual non-sink ratio of an image-centric head: 0.8 for general tasks, 0.5
            against hallucination, 0.9 where all depends on the image.
        least_mass: Least attention to the image of such a head.
        by_portion: Take the published code's test of the ratio; see `image_centric_heads`.
        needs_visual_sink: Change a layer only if a token of its image is a sink, as the published
            code does; by default sinks of the text alone are enough.
        layers: All but the last; the published code's go from 2 to the last.
        each_step: Look for sinks among the generated tokens too (our option; the published code
            looks once, at the prompt). Not with beams, which trade places.

    Reference: Kang et al. 2025, arXiv:2503.03321, known to us from notes and the published code.
    """

    dimensions: Sequence[int]
    tau: float = 20.0
    removed: float = 0.4
    rho: float = 0.8
    least_mass: float = 0.2
    by_portion: bool = False
    needs_visual_sink: bool = False
    layers: Layers = all_but_last
    each_step: bool = False

    @classmethod
    def as_published_code(cls, dimensions: Sequence[int], kept: float = 0.6) -> "VAR":
        """Return the settings of the published code, whose p is the share that is kept.

        Example:
            >>> VAR.as_published_code([1415, 2533]).removed
            0.4
        """
        return cls(
            dimensions=dimensions,
            removed=1 - kept,
            rho=0.5,
            by_portion=True,
            needs_visual_sink=True,
            layers=lambda depth: range(min(2, depth - 1), depth),
        )

    def enter(self, seams: Seams) -> None:
        """Watch for sinks, and redistribute what they get."""
        if self.removed == 0:
            return
        seams.require_image("VAR")
        run = _Redistribution(self, len(seams.inputs))
        seams.hidden(run.watch, self.layers)
        seams.attention(run.change, self.layers)


class _Redistribution:
    """The sinks of one run."""

    def __init__(self, settings: VAR, items: int) -> None:
        self._settings, self._items = settings, items
        self._sinks: dict[int, Bool[Tensor, "row column"]] = {}
        self._kinds: dict[int, _Kinds] = {}

    def watch(self, state: Tensor, layer: int, standing: Standing) -> Tensor:
        """Note which of the tokens that enter a layer are sinks."""
        settings = self._settings
        looks = standing.known(
            ("VAR looks", settings.each_step),
            lambda: settings.each_step or bool((standing.positions() < standing.lengths()).any()),
        )
        if not looks:
            return state
        if settings.each_step and standing.rows != self._items:
            raise InterventionError(
                f"VAR(each_step=True) on {standing.rows} rows for {self._items} inputs: beams "
                "trade places, so sinks among generated tokens cannot be kept; take each_step=False"
            )
        require_reachable(settings.tau, state.shape[-1])
        found = sink_tokens(sink_dimension_value(state.detach(), settings.dimensions), settings.tau)
        position = standing.positions()
        found = found & (position >= 0)
        if not settings.each_step:
            found = found & (position < standing.lengths())
        before = self._sinks.get(layer)
        if standing.first_query and before is not None:
            found = torch.cat([before[:, : standing.first_query], found], dim=1)
        self._sinks[layer] = found
        self._kinds.pop(layer, None)
        return state

    def change(self, call: AttentionCall, place: Place, standing: Standing) -> AttentionCall:
        chosen = chosen_queries(standing, "after image", lambda: standing.queries_after("image"))
        if not chosen.numbers or place.layer not in self._sinks:
            return call
        kinds = self._kinds_at(place.layer, standing, call.attention.dtype)
        if not kinds.any_sink:
            return call
        settings, keys = self._settings, slice(standing.keys)
        rows = pattern_rows(call.attention, chosen)
        mass, seen, sunk = (rows @ kinds.counted[:, :, keys]).unbind(-1)
        heads = image_centric_heads(
            mass, seen / mass, rho=settings.rho, least_mass=settings.least_mass,
            by_portion=settings.by_portion,
        )  # fmt: skip
        heads = heads & kinds.has_sink & (seen > 0)
        share = (settings.removed * sunk / seen).unsqueeze(-1)
        new = _moved(rows, kinds.content[..., keys], kinds.lost[..., keys], share)
        return with_rows(call, chosen, new, heads, stochastic=True)

    def _kinds_at(self, layer: int, standing: Standing, dtype: torch.dtype) -> "_Kinds":
        """Return what the keys are, of this step and of the next ones, which add no image."""
        known = self._kinds.get(layer)
        if known is None or not known.covers(standing):
            known = self._kinds[layer] = self._kinds_of(layer, standing, dtype)
        return known

    def _kinds_of(self, layer: int, standing: Standing, dtype: torch.dtype) -> "_Kinds":
        room = (0, _ROOM)
        image = pad(standing.keys_in("image"), room)
        stop = standing.first_key + image.shape[1]
        sinks = self._sinks[layer]
        sinks = pad(sinks, (0, max(0, stop - sinks.shape[1])))[:, standing.first_key : stop]
        content = image & ~sinks
        needed = sinks & image if self._settings.needs_visual_sink else sinks
        has_sink = needed[:, : standing.keys].any(-1)
        return _Kinds(
            first_key=standing.first_key,
            content=content[:, None, None].to(dtype),
            lost=(sinks * self._settings.removed)[:, None, None].to(dtype),
            counted=torch.stack([image, content, sinks], dim=-1)[:, None].to(dtype),
            has_sink=has_sink[:, None, None],
            any_sink=bool(has_sink.any()),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Kinds:
    """What the keys of a layer are, with room for tokens to come.

    Attributes:
        first_key: Column of key 0.
        content: 1 for image tokens that are no sinks, `(row, 1, 1, key)`.
        lost: The share that a key loses.
        counted: 1 for image tokens, content and sinks, `(row, 1, key, kind)`.
        has_sink: Which rows have a sink to take from, `(row, 1, 1)`.
        any_sink: Whether any has.
    """

    first_key: int
    content: Float[Tensor, "row 1 1 key"]
    lost: Float[Tensor, "row 1 1 key"]
    counted: Float[Tensor, "row 1 key 3"]
    has_sink: Bool[Tensor, "row 1 1"]
    any_sink: bool

    def covers(self, standing: Standing) -> bool:
        """Return whether the keys of a call are among these."""
        return (
            self.first_key == standing.first_key
            and len(self.has_sink) == standing.rows
            and self.content.shape[-1] >= standing.keys
        )
