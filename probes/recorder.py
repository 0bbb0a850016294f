"""`capture`: run a model once and record what its attention did.

Nothing else touches a model's hooks, modes and configurations.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnscope.probes.adapters import ADAPTERS
from attnscope.probes.attention_call import AttentionCall
from attnscope.probes.collector import Collector, Recorder, Run
from attnscope.probes.encoding import Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.forward import (
    forward,
    hidden_states,
    missed_modules,
    next_token_facts,
    provenance,
)
from attnscope.probes.hearing import hearing
from attnscope.probes.sites import SiteNamer
from attnscope.probes.subject import Inputs, Subject
from attnscope.probes.targets import Target, resolve_target
from attnscope.probes.verification import verified
from attnscope.traces import Observation

__all__ = ["capture", "capture_each"]


def capture(  # noqa: PLR0913 - the public door
    subject: Subject,
    inputs: Inputs,
    layers: Sequence[int] | None = None,
    gradient: str | Target | None = None,
    into: Recorder | None = None,
    *,
    response: str | None = None,
    images: Sequence[Any] = (),
    verify: bool = False,
) -> Any:
    """Run the model once, teacher-forced, and return what the recorder made of its attention.

    The model's fused kernels stay on and its outputs are what they are without a capture; its
    hooks, modes and configurations are restored on every exit.

    Args:
        subject: The model, with its tokenizer or processor.
        inputs: A text, a chat, an `Encoded` from `subject.encode` or `subject.generate`, or the
            tensors that the model's forward takes, a batch of one.
        layers: Layer numbers to record in every stack, negative ones from the end; all by default.
        gradient: `"loss"`, `"logit"`, or a target: record dL/dz of every head as well.
        into: What to do with the observations; by default a `Collector`, which returns a `Trace`.
        response: The model's own words after a text.
        images: Pictures that a text or chat refers to.
        verify: Run the model again by its own slow attention, and write on the trace's card how
            far it is from that; see `verify`.

    Raises:
        CaptureError: The inputs do not fit the model, nothing would be recorded, or what would be
            recorded is not what it claims to be.
    """
    encoded = subject.encode(inputs, response=response, images=images)
    recorder = Collector() if into is None else into
    target = None if gradient is None else resolve_target(gradient)
    if target is None and recorder.needs & {"gradient", "gradients"}:
        raise CaptureError(
            "this recorder measures gradients; say of what: gradient='loss' or 'logit'"
        )
    found = _Capture(subject, encoded, recorder, target, layers).run()
    return verified(found, subject, encoded) if verify else found


def capture_each(
    subject: Subject,
    inputs: Mapping[str, Tensor],
    layers: Sequence[int] | None = None,
    **options: Any,
) -> Iterator[Any]:
    """Yield a capture of every item of a padded batch, each without its padding.

    Takes what `capture` takes.
    """
    for encoded in subject.encode_each(inputs):
        yield capture(subject, encoded, layers, **options)


class _Capture:
    """One forward pass and what is heard during it."""

    def __init__(
        self,
        subject: Subject,
        encoded: Encoded,
        recorder: Recorder,
        target: Target | None,
        layers: Sequence[int] | None,
    ) -> None:
        self.subject, self.encoded, self.recorder, self.target = subject, encoded, recorder, target
        names = {
            module: name
            for adapter in ADAPTERS
            for module, name in adapter.names(subject.model).items()
        }
        self.namer = SiteNamer(subject.model, encoded, layers, names)
        self.hidden: dict[str, Tensor] = {}
        self.pending: list[tuple[list[Observation], Tensor]] = []
        self.origins: dict[tuple[str, int], tuple[str, str]] = {}

    def run(self) -> Any:
        model, recorder = self.subject.model, self.recorder
        recorder.start()
        with ExitStack() as stack:
            stack.callback(model.train, model.training)
            model.eval()
            stack.enter_context(torch.set_grad_enabled(self.target is not None))
            called = stack.enter_context(missed_modules(model))
            if "hidden" in recorder.needs:
                stack.enter_context(hidden_states(model, self.namer.blocks(), self.hidden))
            stack.enter_context(hearing(model, self._listen, self._riders))
            logits = forward(self.subject, self.encoded, keep_logits=self._needs_logits)
            missed = called.without(self.namer.heard)
            if not self.namer.heard:
                raise CaptureError(_nothing_heard(model, missed))
            self.namer.require_layers()
            if self.target is not None:
                self._take_gradients(logits)
        sequences = dict(self.encoded.sequences) | self.namer.sequences
        main = self.namer.main_sequence()
        facts = (
            next_token_facts(logits, sequences.get(main))
            if self.namer.main_is_causal
            else (None, None)
        )
        return recorder.finish(
            Run(
                sequences=sequences,
                main_sequence=main,
                log_probabilities=facts[0],
                entropies=facts[1],
                told=partial(provenance, self.subject, self.target, missed),
                origins=self.origins,
            )
        )

    @property
    def _needs_logits(self) -> bool:
        return self.target is not None or "logits" in self.recorder.needs

    @property
    def _several(self) -> bool:
        return "gradients" in self.recorder.needs

    def _riders(self, module: torch.nn.Module) -> tuple[Any, ...]:
        return self.recorder.riders if self.namer.wants(module) else ()

    def _listen(self, call: AttentionCall) -> Tensor:
        output = call.output
        if not self.namer.wants(call.module):
            self.namer.hear(call.module)
            return output
        if self.target is not None and not output.requires_grad:
            output = output.detach().requires_grad_()
        observations = self.namer.observations(call, self.hidden)
        for one in observations:
            self.origins[one.site.stack, one.site.layer] = call.library, call.computation
        if self._several and not self._speaks(observations):
            return output
        if self.target is not None:
            self.pending.append((observations, output))
        else:
            self._record(observations)
        return output

    def _speaks(self, observations: list[Observation]) -> bool:
        """Return whether a site belongs to the main sequence: others cost a pass per number."""
        main = self.encoded.main_sequence
        return any(one.site.reads_itself(main) for one in observations)

    def _record(self, observations: list[Observation]) -> None:
        for observation in observations:
            self.recorder.record(observation)

    def _take_gradients(self, logits: Tensor | None) -> None:
        if logits is None or self.target is None:
            raise CaptureError(
                f"{type(self.subject.model).__name__} gives no logits to take a gradient of"
            )
        sequence = self.encoded.sequences.get(self.namer.main_sequence())
        if sequence is None:
            sequence = self.namer.sequences[self.namer.main_sequence()]
        numbers = self.target(logits, sequence).reshape(-1)
        if len(numbers) != 1 and not self._several:
            raise CaptureError(
                f"the target {self.target.name!r} is {len(numbers)} numbers, and this recorder "
                "takes the gradient of one"
            )
        for number in numbers.unbind()[:-1]:
            self._take_gradient(number, retain_graph=True)
        self._take_gradient(numbers[-1])
        self.pending = []

    def _take_gradient(self, number: Tensor, *, retain_graph: bool = False) -> None:
        outputs = [output for _, output in self.pending]
        # autograd.grad leaves no .grad behind in the user's parameters
        gradients = torch.autograd.grad(
            number, outputs, allow_unused=True, retain_graph=retain_graph
        )
        for (observations, output), gradient in zip(self.pending, gradients, strict=True):
            filled = torch.zeros_like(output) if gradient is None else gradient
            pairs = zip(observations, filled.detach(), strict=True)
            self._record([replace(observation, gradient=item) for observation, item in pairs])


def _nothing_heard(model: torch.nn.Module, missed: tuple[str, ...]) -> str:
    kinds = (
        f"its attention modules are {', '.join(missed)}" if missed else "no attention module ran"
    )
    return (
        f"nothing to record: no adapter hears the attention of {type(model).__name__} ({kinds}). "
        "Models that compute their own softmax need one of their own"
    )
