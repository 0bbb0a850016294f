"""`riding`: readings of a batch from a forward pass that is made anyway.

The policy runs as if nobody listened. Only the layers that are read pay: one fused call and a band
of O(T far) memory each, in the policy's own precision.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import SoftmaxAttention
from attnscope.credit.aligned_sequences import AlignedSequences, aligned_chunks
from attnscope.credit.assembly import assembled
from attnscope.credit.errors import CreditError
from attnscope.credit.head_calibration import HeadCalibration
from attnscope.credit.head_recorder import SpanMean, mean_spans, recorder_for
from attnscope.credit.mask_check import check_mask
from attnscope.credit.overheard_calls import OverheardCall, overhearing
from attnscope.credit.policy_layers import softmax_layers
from attnscope.credit.reading_plan import ReadingPlan
from attnscope.credit.readings import Readings
from attnscope.credit.token_batch import TokenBatch
from attnscope.credit.token_facts import TokenFacts, token_facts

__all__ = ["Ride", "riding"]

_BAND = 2**25
"""Entries of the largest band, unless a single sequence needs more (128 MiB in float32)."""


@contextmanager
def riding(policy: nn.Module, batch: TokenBatch, plan: ReadingPlan) -> Iterator["Ride"]:
    """Listen to the policy's forward passes while the context is open.

    The passes go over the rows of the batch in order, all at once or a few at a time, with or
    without gradients. Log-probabilities, gradients, kernels and random numbers are what they are
    without; a layer that activation checkpointing runs again in the backward pass is heard once.

    Args:
        policy: The model that is called, adapters and all.
        batch: The rows that it is called on.
        plan: What to read.

    Raises:
        CreditError: The policy's attention cannot be heard or is not causal, or it is called on
            other rows.

    Example:
        `with riding(policy, batch, plan_for(rule)) as ride: log_probabilities = ...`, then
        `rule.assign(ride.readings())`.
    """
    ride = Ride(policy, batch, plan)
    with ExitStack() as stack:
        if not plan.wants_nothing:
            opened = policy.register_forward_pre_hook(ride._open, with_kwargs=True)
            stack.callback(opened.remove)
            closed = policy.register_forward_hook(ride._close, with_kwargs=True, always_call=True)
            stack.callback(closed.remove)
        if plan.wants_heads:
            stack.enter_context(overhearing(policy, ride._hear))
        yield ride


@dataclass(slots=True, kw_only=True, eq=False)
class _Pass:
    """One forward pass over some rows of the batch.

    Attributes:
        row: Its first row.
        rows: How many there are.
        ids: The tokens that the policy was given.
        numbers: The sequences with a response in these rows.
        heard: The layers that were read already.
        chunks: The sequences, cut out of their rows.
    """

    row: int
    rows: int
    ids: Tensor | None
    numbers: list[int]
    heard: set[int] = field(default_factory=set)
    chunks: list[AlignedSequences] = field(default_factory=list)


class Ride:
    """What was heard of a batch so far.

    Attributes:
        calibration: The heads of each group, once they are known.
        spans: Mean look-back distance of each head in each response, once readings were made; None
            where the heads were named before.
    """

    def __init__(self, policy: nn.Module, batch: TokenBatch, plan: ReadingPlan) -> None:
        self._batch, self._layout, self._plan = batch, batch.layout, plan
        self._layers = plan.layers_among(softmax_layers(policy)) if plan.wants_heads else ()
        self._recorder = recorder_for(plan, self._layers, _sizes(batch))
        self._facts: dict[int, TokenFacts] = {}
        self._seen = 0
        self._pass: _Pass | None = None
        self.calibration: HeadCalibration | None = plan.calibration
        self.spans: Float[Tensor, "batch layer head"] | None = None

    # --- a pass -----------------------------------------------------------------------------

    def _open(self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        ids = args[0] if args else options.get("input_ids")
        tokens = ids if ids is not None else options.get("inputs_embeds")
        if tokens is None:
            raise CreditError("the policy was called without input_ids: its rows are not known")
        rows, columns = tokens.shape[:2]
        if columns != self._layout.shape[1] or self._seen + rows > self._layout.shape[0]:
            raise CreditError(
                f"the policy was called on {rows} x {columns} tokens after {self._seen} rows; the "
                f"batch has {self._layout.shape[0]} x {self._layout.shape[1]}"
            )
        numbers = self._layout.in_rows(self._seen, self._seen + rows)
        self._pass = _Pass(row=self._seen, rows=rows, ids=ids, numbers=numbers)
        self._check_rows(self._pass, options.get("attention_mask"))

    def _check_rows(self, run: _Pass, mask: Any) -> None:
        """Refuse rows that were put in another order, cut or padded otherwise."""
        span = slice(run.row, run.row + run.rows)
        attended = self._layout.attended(span.start, span.stop)
        announced = self._batch.ids[span].cpu()
        other = run.ids is not None and bool((run.ids.cpu() != announced)[attended].any())
        padded = isinstance(mask, Tensor) and mask.ndim == 2
        if other or (padded and not bool(mask.cpu().bool()[attended].all())):
            raise CreditError(
                f"the policy was called on other rows than {span.start} to {span.stop - 1} of the "
                f"batch: their {'tokens' if other else 'padding'} differ"
            )

    def _close(
        self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        run, self._pass = self._pass, None
        if run is None or output is None:  # the pass failed, and says why itself
            return
        missing = sorted(set(self._layers) - run.heard)
        if missing and run.numbers:
            raise CreditError(
                f"layers {missing} of {type(module).__name__} were not heard: their attention does "
                "not go through transformers' AttentionInterface, or is compiled"
            )
        for number in run.numbers if self._plan.wants_tokens else ():
            stretch = self._layout.stretches[number]
            with torch.no_grad():
                self._facts[number] = token_facts(
                    output, run.ids, self._layout.shape[1], stretch.row - run.row, stretch
                )
        self._seen += run.rows

    def _hear(self, call: OverheardCall) -> None:
        run, layer = self._pass, getattr(call.module, "layer_idx", None)
        if run is None or layer is None or layer not in self._layers or layer in run.heard:
            return
        if call.query.shape[2] != self._layout.shape[1]:
            return
        run.heard.add(layer)
        window = call.options.get("sliding_window")
        with torch.no_grad(), torch.autocast(call.query.device.type, enabled=False):
            stretches = [self._layout.stretches[number] for number in run.numbers]
            check_mask(call, stretches, run.row, window)
            self._recorder.meet(call.query.shape[1], call.query.device)
            run.chunks = [
                chunk.to(call.query.device)
                for chunk in run.chunks or self._cut(run, call.query.shape[1])
            ]
            for chunk in run.chunks:
                attention = _operator(call, chunk, window)
                self._recorder.take(self._layers.index(layer), chunk, attention)

    def _cut(self, run: _Pass, heads: int) -> Iterator[AlignedSequences]:
        rhythm = self._plan.preset.rhythm
        chosen = [(number, self._layout.stretches[number]) for number in run.numbers]
        sizes = (run.row, self._layout.shape[1], self._layout.mask.shape[1])
        return aligned_chunks(chosen, sizes, _BAND // (heads * max(rhythm.window, rhythm.far + 1)))

    # --- the result -------------------------------------------------------------------------

    def readings(
        self,
        *,
        mean: SpanMean = mean_spans,
        advantage: Float[Tensor, " batch"] | Float[Tensor, "batch response"] | None = None,
        draw: int = 0,
    ) -> Readings:
        """Return the readings of the batch, once all its rows have been seen.

        Where no calibration was given the heads are ranked now, and `calibration` says how.

        Args:
            mean: How head spans are averaged over the batch (over all processes, say).
            advantage: Advantages of the responses, for rules that look at their sign.
            draw: Number of the batch, for rules that draw at random.

        Raises:
            CreditError: Some rows have not been seen.
        """
        if self._seen < self._layout.shape[0] and not self._plan.wants_nothing:
            raise CreditError(
                f"{self._seen} of {self._layout.shape[0]} rows went through the policy; there are "
                "no readings of the others"
            )

        def noted(spans: Tensor) -> Tensor:
            self.spans = spans
            return mean(spans)

        found, self.calibration = self._recorder.finish(noted)
        return assembled(self._batch, self._plan, found, self._facts, advantage, draw)


def _sizes(batch: TokenBatch) -> tuple[int, int]:
    """Return the number of responses and of their columns."""
    return batch.layout.mask.shape[0], batch.layout.mask.shape[1]


def _operator(call: OverheardCall, chunk: AlignedSequences, window: int | None) -> SoftmaxAttention:
    """Return the attention of some sequences, each cut out of its row."""
    from transformers.masking_utils import sliding_window_causal_mask_function

    from attnscope.probes.adapters.transformers_attention import operator_of
    from attnscope.probes.adapters.transformers_masks import lazy_mask

    if call.options.get("position_bias") is not None:
        raise CreditError(
            f"{type(call.module).__name__} adds a bias to its scores; credit reads attention "
            "without one"
        )
    query, key = chunk.align(call.query.detach()), chunk.align(call.key.detach())
    count, length = query.shape[0], query.shape[2]
    rule = None if window is None else sliding_window_causal_mask_function(window)
    mask = lazy_mask(count, length, length, mask_function=rule, device=query.device)
    return operator_of(call.module, query, key, mask, call.options)[0]
