"""`intervening`: change a model's attention for as long as a context is open."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.seams import Intervention, Seams
from attnscope.probes import Encoded, Subject
from attnscope.probes.hearing import changing

__all__ = ["intervening"]


@contextmanager
def intervening(
    subject: Subject,
    *interventions: Intervention,
    encoded: Encoded | Sequence[Encoded] | None = None,
) -> Iterator[None]:
    """Let a model run and generate with its attention changed, and restore it on every exit.

    Inside, `subject.generate`, the model's own `generate` (greedy, sampling, beams, left-padded
    batches, caches or none), its forward passes and `capture` all go through the changes, in the
    order given. A trace says in its provenance which were on, and its operators are the changed
    ones. Settings without effect leave the model alone, to the bit.

    A method that changes the rows from which the response is predicted does so at the prompt's
    last token and at every token after it, whether they come one by one or in one pass.

    Args:
        subject: The model.
        interventions: What to change.
        encoded: The input that the model is about to be given, or one for each item of a batch;
            methods that look at segments or at the end of the prompt need it.

    Raises:
        InterventionError: A method does not fit the model or its input, or the model's attention
            was never heard.

    Example:
        `with intervening(subject, LocoRE(), encoded=prompt): answer = subject.generate(prompt)`
    """
    for intervention in interventions:
        if not isinstance(intervention, Intervention):
            raise InterventionError(f"{intervention!r} is no intervention: it has no enter(seams)")
    inputs = [encoded] if isinstance(encoded, Encoded) else list(encoded or ())
    with ExitStack() as stack:
        seams = Seams(subject, inputs, stack)
        for intervention in interventions:
            intervention.enter(seams)
        names = [repr(intervention) for intervention in interventions]
        change = seams.change if seams.changes_attention else None
        stack.enter_context(changing(subject.model, names, change))
        stack.enter_context(_uncompiled(subject))
        yield
        seams.require_heard()


@contextmanager
def _uncompiled(subject: Subject) -> Iterator[None]:
    """Keep `generate` from compiling the model for a static cache: a graph cannot be changed."""
    config: Any = getattr(subject.model, "generation_config", None)
    if config is None or not hasattr(config, "disable_compile"):
        yield
        return
    before, config.disable_compile = config.disable_compile, True
    try:
        yield
    finally:
        config.disable_compile = before
