"""`recorded_inputs`: what a model read, had back from the trace of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from attnscope.probes.encoding import Encoded, as_batch_of_one
from attnscope.probes.errors import CaptureError
from attnscope.probes.subject import Inputs, Subject
from attnscope.traces import Trace

__all__ = ["recorded_inputs"]

_NAMES = {"text": "input_ids", "encoder": "input_ids", "decoder": "decoder_input_ids"}


def recorded_inputs(
    trace: Trace, subject: Subject, inputs: Inputs | None = None, images: Sequence[Any] = ()
) -> Encoded:
    """Return the inputs that were given, or those that the trace tells of.

    A trace holds token ids. It holds no pixels, no sound and no positions of the caller's own.

    Args:
        trace: The trace.
        subject: The model that is to read again.
        inputs: What the model read, if it is at hand.
        images: The pictures that the model saw.

    Raises:
        CaptureError: The trace does not hold what the model read.
    """
    if inputs is not None:
        return subject.encode(inputs, images=images)
    pictures = _pixels(subject, images) if images else {}
    ids = {
        _NAMES[name]: as_batch_of_one(sequence.ids)
        for name, sequence in trace.sequences.items()
        if name in _NAMES and sequence.ids is not None
    }
    if _saw_pictures(trace) and not pictures:
        raise CaptureError(
            "the model saw pictures, and pixels are not in a trace: give the same pictures again "
            "with images= (--image on the command line), or all inputs with inputs="
        )
    if not ids and not pictures:
        raise CaptureError(
            f"the trace holds no token ids (its sequences are {list(trace.sequences)}), so that "
            "the model cannot be run from it; give what it read with inputs="
        )
    return subject.encode({**ids, **pictures})


def _saw_pictures(trace: Trace) -> bool:
    sequences = trace.sequences.values()
    return any(
        sequence.axis == "patch" or any(run.grid is not None for run in sequence.segments)
        for sequence in sequences
    )


def _pixels(subject: Subject, images: Sequence[Any]) -> Mapping[str, Tensor]:
    processor = getattr(subject.processor, "image_processor", subject.processor)
    if processor is None:
        raise CaptureError("pictures need a processor: Subject(model, processor)")
    return dict(processor(images=list(images), return_tensors="pt"))
