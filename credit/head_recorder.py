"""Recorders of head statistics: of every head, or of groups of heads that were named before."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import SoftmaxAttention, key_position
from attnscope.credit.aligned_sequences import AlignedSequences
from attnscope.credit.errors import CreditError
from attnscope.credit.head_calibration import HeadCalibration, calibration_of
from attnscope.credit.reading_plan import GROUP_OF, ReadingPlan
from attnscope.metrics import RhythmPreset, fai, group_mean, head_span, waad

__all__ = ["HeadRecorder", "SpanMean", "mean_spans", "recorder_for"]

SpanMean = Callable[[Tensor], Tensor]
"""Maps spans `(batch, layer, head)`, NaN for empty responses, to their mean `(layer, head)`."""

_WAAD, _FAI, _SPAN = "waad", "fai", "span"
_STATISTIC_OF = {"local_waad": _WAAD, "global_fai": _FAI, "receiver_fai": _FAI}


def mean_spans(spans: Float[Tensor, "batch layer head"]) -> Float[Tensor, "layer head"]:
    """Return the mean span of each head over the responses that have one."""
    return spans.nanmean(0)


@runtime_checkable
class HeadRecorder(Protocol):
    """Takes the attention of the layers one by one, and keeps a few numbers per response token."""

    def meet(self, heads: int, device: torch.device) -> None:
        """Learn how many heads a layer has and where it lies, before anything is measured."""
        ...

    def take(self, place: int, chunk: AlignedSequences, attention: SoftmaxAttention) -> None:
        """Measure some sequences in the layer that is number `place` of those that are read."""
        ...

    def finish(
        self, mean: SpanMean
    ) -> tuple[dict[str, Float[Tensor, "batch _"]], HeadCalibration | None]:
        """Return the readings by name, and the heads that they are of; None if nothing was read."""
        ...


def recorder_for(
    plan: ReadingPlan, layers: tuple[int, ...], sizes: tuple[int, int]
) -> HeadRecorder:
    """Return the recorder that a plan asks for.

    Args:
        plan: What to read.
        layers: The layers that are read.
        sizes: Number of responses, and of the columns of a response.
    """
    if plan.calibration is None:
        return _EachHead(plan, layers, sizes)
    return _NamedHeads(plan, plan.calibration, sizes)


class _EachHead:
    """Keeps every head's statistics until the heads are ranked."""

    def __init__(self, plan: ReadingPlan, layers: tuple[int, ...], sizes: tuple[int, int]) -> None:
        self._plan, self._layers, self._sizes = plan, layers, sizes
        wanted = {_STATISTIC_OF[name] for name in plan.attention}
        # FAI first: the band that it needs is wide enough for WAAD, which finds it there
        self._statistics = (*(name for name in (_FAI, _WAAD) if name in wanted), _SPAN)
        self._kept: dict[str, Tensor] = {}

    def meet(self, heads: int, device: torch.device) -> None:
        sizes = (self._sizes[0], len(self._layers), heads)
        if _SPAN not in self._kept:
            self._kept[_SPAN] = torch.full(sizes, torch.nan, device=device)

    def take(self, place: int, chunk: AlignedSequences, attention: SoftmaxAttention) -> None:
        _attend(attention, spans=True)
        for statistic in self._statistics:
            values = _measured(statistic, attention, chunk, self._plan.preset.rhythm)
            if statistic not in self._kept:
                sizes = (self._sizes[0], len(self._layers), *values.shape[1:])
                self._kept[statistic] = values.new_full(sizes, torch.nan)
            kept = self._kept[statistic]
            kept[list(chunk.numbers), place] = values.to(kept.device)

    def finish(
        self, mean: SpanMean
    ) -> tuple[dict[str, Float[Tensor, "batch _"]], HeadCalibration | None]:
        if _SPAN not in self._kept:
            return {}, None
        spans = mean(self._kept[_SPAN])  # also of a batch without a token: others may have some
        if bool(spans.isnan().all()):
            return {}, None
        calibration = calibration_of(spans, self._layers, self._plan.preset)
        readings = {}
        for name in self._plan.attention if _WAAD in self._kept or _FAI in self._kept else ():
            values = self._kept[_STATISTIC_OF[name]].movedim(0, 2)
            members = calibration.group(GROUP_OF[name]).to(values.device)
            readings[name] = group_mean(values.flatten(2), members).reshape(values.shape[2:])
        return readings, calibration


class _NamedHeads:
    """Adds up the statistics of named heads, and measures no others."""

    def __init__(
        self, plan: ReadingPlan, calibration: HeadCalibration, sizes: tuple[int, int]
    ) -> None:
        self._plan, self._calibration, self._sizes = plan, calibration, sizes
        self._sums: dict[str, Tensor] = {}

    def meet(self, heads: int, device: torch.device) -> None:
        named = self._calibration.spans.shape[1]
        if heads != named:
            raise CreditError(f"the calibration names {named} heads per layer, a layer has {heads}")

    def take(self, place: int, chunk: AlignedSequences, attention: SoftmaxAttention) -> None:
        numbers = list(chunk.numbers)
        for name in self._plan.attention:
            heads = self._calibration.group(GROUP_OF[name])[place].nonzero().flatten()
            if not len(heads):
                continue
            group = attention.select_heads(heads)
            _attend(group, spans=False)
            statistic = _STATISTIC_OF[name]
            values = _measured(statistic, group, chunk, self._plan.preset.rhythm).sum(1)
            if name not in self._sums:
                sizes = (self._sizes[0], values.shape[-1])
                self._sums[name] = values.new_full(sizes, torch.nan)
            sums = self._sums[name]
            before, values = sums[numbers], values.to(sums.device)
            sums[numbers] = torch.where(before.isnan(), values, before + values)

    def finish(
        self, mean: SpanMean
    ) -> tuple[dict[str, Float[Tensor, "batch _"]], HeadCalibration | None]:
        counts = {name: int(self._calibration.group(GROUP_OF[name]).sum()) for name in self._sums}
        return {name: total / counts[name] for name, total in self._sums.items()}, self._calibration


def _attend(attention: SoftmaxAttention, *, spans: bool) -> None:
    """Make the one fused call, in the policy's own precision, that all statistics come from."""
    key = attention.key
    nothing = key.new_zeros(()).expand(*key.shape[:-1], 1)
    attention.attend(nothing, riders=(key_position,) if spans else ())


def _measured(
    statistic: str, attention: SoftmaxAttention, chunk: AlignedSequences, rhythm: RhythmPreset
) -> Float[Tensor, "sequence head *row"]:
    """Return a statistic at the columns of the responses."""
    if statistic == _WAAD:
        return chunk.by_row(waad(attention, rhythm.window))
    if statistic == _FAI:
        received = fai(attention, rhythm.near, rhythm.far, chunk.responses)
        return chunk.by_row(received)[..., 1:]
    return head_span(attention, chunk.responses)
