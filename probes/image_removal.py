"""Taking the picture away from an input: its tokens dropped, or the picture made blank or noise."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from attnscope.probes.encoding import Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.subject import Subject
from attnscope.traces import Segment, Segments, TokenSequence

__all__ = ["Removal", "with_blank_image", "with_noise_image", "without_image"]

Removal = Callable[[Subject, Encoded], Encoded]
"""Takes the picture out of an input, and leaves its words as they are."""

_OF_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels")
_OF_PLACES = ("position_ids", "cache_position", "rope_deltas")
_OF_PICTURES = re.compile(r"pixel|image|video|patch|aspect_ratio|spatial_shapes|cross_attention")


def without_image(subject: Subject, encoded: Encoded) -> Encoded:
    """Return an input without its pictures: their tokens are gone, and later ones move up.

    Dropping tokens and shifting positions is our reading: the paper says that the image context is
    removed, not how. Tokens of the vocabulary that open and close a picture stay, being words.

    Args:
        subject: The model.
        encoded: Its input.

    Raises:
        CaptureError: There is no picture in it, or a tensor that belongs neither to tokens nor to
            pictures.

    Reference: He et al. 2024, arXiv:2412.13949.
    """
    name = _reader_of_pictures(encoded)
    sequence = encoded.sequences[name]
    pictured = set(sequence.segments["image"])
    kept = [place for place in range(len(sequence)) if place not in pictured]
    if not kept:
        raise CaptureError("nothing is left of an input that is all image")
    tensors = {}
    for key, tensor in encoded.model_inputs.items():
        if key in _OF_TOKENS and tensor.shape[1:] == (len(sequence),):
            tensors[key] = tensor[:, kept]
        elif key.startswith("decoder_") or not tensor.ndim:
            tensors[key] = tensor
        elif key not in _OF_PLACES and not _OF_PICTURES.search(key):
            raise CaptureError(
                f"{key} {tuple(tensor.shape)} belongs neither to the {len(sequence)} tokens nor to "
                "a picture, so that it is not known what is left of it without one"
            )
    shorter = _shortened(sequence, kept)
    return replace(encoded, model_inputs=tensors, sequences={**encoded.sequences, name: shorter})


def with_blank_image(subject: Subject, encoded: Encoded) -> Encoded:
    """Return an input whose pictures are flat: every entry is their mean.

    Positions and tokens stay as they were. The mean, not 0: some models take a picture of zeros
    for padding.

    Raises:
        CaptureError: There is no picture in it.
    """
    return _repainted(encoded, lambda picture: torch.full_like(picture, float(picture.mean())))


def with_noise_image(subject: Subject, encoded: Encoded, seed: int = 0) -> Encoded:
    """Return an input whose pictures are normal noise of their own mean and spread.

    Positions and tokens stay as they were.

    Args:
        subject: The model.
        encoded: Its input.
        seed: Which noise.

    Raises:
        CaptureError: There is no picture in it.
    """

    def noise(picture: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(picture.shape, generator=generator).to(picture)
        return picture.mean() + picture.std() * normal

    return _repainted(encoded, noise)


def _reader_of_pictures(encoded: Encoded) -> str:
    """Return the sequence that has pictures in it."""
    found = [name for name, one in encoded.sequences.items() if "image" in one.segments]
    if not found:
        known = {name: list(one.segments.names) for name, one in encoded.sequences.items()}
        raise CaptureError(f"no image segment to remove; the segments by sequence are {known}")
    return found[0]


def _repainted(encoded: Encoded, paint: Callable[[Tensor], Tensor]) -> Encoded:
    tensors: Mapping[str, Tensor] = encoded.model_inputs
    pictures = [key for key in tensors if "pixel_values" in key]
    if not pictures:
        raise CaptureError(f"no picture to repaint; the inputs are {sorted(tensors)}")
    painted = {key: paint(tensors[key]) for key in pictures}
    return replace(encoded, model_inputs={**tensors, **painted})


def _shortened(sequence: TokenSequence, kept: list[int]) -> TokenSequence:
    """Return the tokens that are kept, with their segments."""
    runs = [run for run in sequence.segments if run.name != "image"]
    place = {old: new for new, old in enumerate(kept)}
    moved = [
        Segment(name=run.name, start=place[run.start], stop=place[run.stop - 1] + 1) for run in runs
    ]
    return replace(
        sequence,
        tokens=tuple(sequence.tokens[old] for old in kept),
        ids=None if sequence.ids is None else tuple(sequence.ids[old] for old in kept),
        segments=Segments(tuple(moved)),
    )
