"""What a model's heads give at the end of a prompt whose image was taken out."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.seams import Seams
from attnscope.interventions.standing import prompt_length
from attnscope.probes.attention_call import AttentionCall
from attnscope.probes.forward import forward
from attnscope.probes.hearing import hearing
from attnscope.probes.image_removal import Removal

__all__ = ["image_free_outputs"]


def image_free_outputs(
    seams: Seams, layers: frozenset[int], remove: Removal
) -> dict[str, list[Float[Tensor, "head dim"]]]:
    """Return the outputs z of all heads at the last token of each image-free prompt, by path.

    The model runs unchanged, once for each input.

    Args:
        seams: The model and its inputs.
        layers: Which layers.
        remove: Takes the picture out of an input.

    Raises:
        InterventionError: The model's attention was never heard.
    """
    found: dict[str, list[Tensor]] = {}
    last = 0

    def listener(call: AttentionCall) -> Tensor:
        place = seams.places[call.module]
        if place.speaks and place.layer in layers:
            found.setdefault(place.path, []).append(call.output[0, :, last].detach())
        return call.output

    model = seams.subject.model
    with seams.unchanged(), torch.no_grad(), hearing(model, listener, lambda module: ()):
        for each in seams.inputs:
            without = remove(seams.subject, each)
            last = prompt_length(without.sequences[without.main_sequence]) - 1
            forward(seams.subject, without, keep_logits=False)
    if not found:
        raise InterventionError(
            f"the attention of {type(model).__name__} was never heard: no adapter knows how this "
            "model computes it"
        )
    return found
