"""`wrap_generate`: put something around a model's `generate` for the time of an intervention."""

from collections.abc import Callable
from typing import Any

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.seams import Seams

__all__ = ["Generate", "wrap_generate"]

Generate = Callable[..., Any]
"""A model's `generate`."""


def wrap_generate(seams: Seams, wrapper: Callable[[Generate], Generate]) -> None:
    """Replace the model's `generate` by what `wrapper` makes of it, until the context closes.

    Raises:
        InterventionError: The model has no `generate`.
    """
    model: Any = seams.subject.model
    generate = getattr(model, "generate", None)
    if generate is None:
        raise InterventionError(f"{type(model).__name__} has no generate(): nothing to decode")
    outer = vars(model).get("generate")
    model.generate = wrapper(generate)
    if outer is None:  # what the class defines comes back once the instance's own is gone
        seams.stack.callback(delattr, model, "generate")
    else:
        seams.stack.callback(setattr, model, "generate", outer)
