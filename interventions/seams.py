"""`Seams`: the places at which a running model can be changed, and what is known of its input."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.given_input import GivenInput
from attnscope.interventions.places import Layers, Place, Places
from attnscope.interventions.standing import Standing
from attnscope.probes import Encoded, Subject
from attnscope.probes.attention_call import AttentionCall
from attnscope.probes.hearing import unchanged
from attnscope.traces import TokenSequence

__all__ = ["AttentionChange", "HiddenChange", "Intervention", "LogitsChange", "Seams"]

AttentionChange = Callable[[AttentionCall, Place, Standing], AttentionCall]
"""Takes a call, its place and where its queries stand, and returns what is to have happened."""

HiddenChange = Callable[[Tensor, int, Standing], Tensor]
"""Takes `(row, query, width)` that enters a layer, and returns what enters in its stead."""

LogitsChange = Callable[[Tensor, Mapping[str, Any]], Tensor]
"""Takes the logits of a forward pass and its keyword arguments, and returns other logits."""


@runtime_checkable
class Intervention(Protocol):
    """Something that changes a model while it runs."""

    def enter(self, seams: "Seams") -> None:
        """Say at which seams what is to be changed; nothing at all for a setting without effect."""
        ...


@dataclass(frozen=True, slots=True)
class _AttentionSeam:
    change: AttentionChange
    layers: frozenset[int]
    wanted: Callable[[Place], bool]


class Seams:
    """The seams of one model, for the time of one `intervening`.

    Attributes:
        subject: The model.
        inputs: What it is about to be given, one for each item of the batch; may be empty.
        places: Where its attention stands.
        stack: Undone when the intervention ends; put hooks of your own here.
    """

    def __init__(self, subject: Subject, inputs: Sequence[Encoded], stack: ExitStack) -> None:
        self.subject, self.inputs, self.stack = subject, tuple(inputs), stack
        self.places = Places(subject)
        self._attention: list[_AttentionSeam] = []
        self._changes: dict[nn.Module, list[AttentionChange]] = {}
        self._heard: set[int] = set()
        self._given: GivenInput | None = None
        self._ran = self._paused = False

    # --- what interventions ask for ---------------------------------------------------------

    def attention(
        self, change: AttentionChange, layers: Layers = None, stack: str | None = None
    ) -> frozenset[int]:
        """Change attention calls of some layers, and return the numbers of these layers.

        Args:
            change: What to do to a call.
            layers: Which layers, negative ones from the end; None for all.
            stack: Of which stack (a path without its number); by default of those stacks that mix
                what the model speaks.

        Raises:
            InterventionError: The stack or a layer does not exist.
        """
        numbers = self.places.resolved(layers, stack)
        if stack is None:
            wanted: Callable[[Place], bool] = lambda place: place.speaks  # noqa: E731
        else:
            wanted = lambda place: place.stack == stack  # noqa: E731
        self._attention.append(_AttentionSeam(change, numbers, wanted))
        self._follow()
        return numbers

    def hidden(self, change: HiddenChange, layers: Layers = None) -> frozenset[int]:
        """Change the residual stream that enters some layers.

        Raises:
            InterventionError: A layer does not exist.
        """
        numbers = self.places.resolved(layers)
        for layer, block in self.places.blocks(numbers).items():
            hook = block.register_forward_pre_hook(
                _hidden_hook(self, change, layer), with_kwargs=True
            )
            self.stack.callback(hook.remove)
        self._follow()
        return numbers

    def logits(self, change: LogitsChange) -> None:
        """Change the logits of every forward pass of the model."""

        def hook(module: nn.Module, args: Any, given: dict[str, Any], output: Any) -> Any:
            logits = getattr(output, "logits", None)
            if self._paused or not isinstance(logits, Tensor):
                return output
            output.logits = change(logits, given)
            return output

        handle = self.subject.model.register_forward_hook(hook, with_kwargs=True)
        self.stack.callback(handle.remove)
        self._follow()

    @contextmanager
    def unchanged(self) -> Any:
        """Let the model run as it is while the context is open: for a pass on the side."""
        before, self._paused = self._paused, True
        try:
            with unchanged(self.subject.model):
                yield
        finally:
            self._paused = before

    def sequences(self) -> tuple[TokenSequence, ...]:
        """Return the sequences that the model will speak on, one for each item of the batch.

        Raises:
            InterventionError: Nothing is known of the input.
        """
        if not self.inputs:
            raise InterventionError(
                "this method has to know the input; give intervening() encoded="
                "subject.encode(...), or a list of them for a batch"
            )
        return tuple(each.sequences[each.main_sequence] for each in self.inputs)

    def require_image(self, method: str) -> None:
        """Refuse inputs without image tokens.

        Raises:
            InterventionError: An input has no image segment.
        """
        for number, sequence in enumerate(self.sequences()):
            if "image" not in sequence.segments:
                raise InterventionError(
                    f"{method} needs image tokens, and input {number} has none; its segments are "
                    f"{list(sequence.segments.names)}"
                )

    # --- while the model runs ---------------------------------------------------------------

    @property
    def changes_attention(self) -> bool:
        """Return whether attention calls have to be heard at all."""
        return bool(self._attention)

    def change(self, call: AttentionCall) -> AttentionCall:
        """Return what becomes of a call."""
        changes = self._changes.get(call.module)
        if changes is None:
            changes = self._changes[call.module] = self._changes_at(self.places[call.module])
        if not changes or self._paused or self._given is None:
            return call
        place, standing = self.places[call.module], self._given.standing_of(call)
        for change in changes:
            call = change(call, place, standing)
        return call

    def require_heard(self) -> None:
        """Refuse a run of which some attention that was to be changed was never heard.

        Raises:
            InterventionError: The model computes its attention in a way that no adapter hears.
        """
        if not self._ran:
            return
        deaf = [seam for number, seam in enumerate(self._attention) if number not in self._heard]
        if deaf:
            raise InterventionError(
                f"the attention of layers {sorted(deaf[0].layers)} of "
                f"{type(self.subject.model).__name__} was to be changed and was never heard: no "
                "adapter knows how this model computes it"
            )

    def _changes_at(self, place: Place) -> list[AttentionChange]:
        found = []
        for number, seam in enumerate(self._attention):
            if place.layer in seam.layers and seam.wanted(place):
                self._heard.add(number)
                found.append(seam.change)
        return found

    def _follow(self) -> None:
        """Follow what the model is given from now on."""
        if self._given is None:
            self._given = GivenInput(self.subject, self.inputs)
            handle = self.subject.model.register_forward_pre_hook(self._note, with_kwargs=True)
            self.stack.callback(handle.remove)

    def _note(self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self._given is not None and not self._paused:
            self._ran = True
            self._given.note(args, options)


def _hidden_hook(seams: Seams, change: HiddenChange, layer: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        if seams._paused or seams._given is None:
            return None
        state = args[0] if args else given["hidden_states"]
        changed = change(state, layer, seams._given.standing(state.shape[1]))
        if changed is state:
            return None
        return ((changed, *args[1:]), given) if args else (args, given | {"hidden_states": changed})

    return hook
