"""`Encoded`: one unpadded input of a model, with its tokens and what they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.probes.errors import CaptureError
from attnscope.traces import Segment, Segments, TokenSequence

__all__ = ["Chat", "Encoded", "Roles", "kinds_of_tokens", "split_batch", "token_sequence"]

Chat = Sequence[Mapping[str, Any]]
"""Messages with `role` and `content`, as chat templates take them."""

Roles = Mapping[str, range]
"""Positions by role, before special tokens and images are told apart."""

_LENGTH_KEYS = (
    "attention_mask",
    "input_ids",
    "token_type_ids",
    "position_ids",
    "mm_token_type_ids",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The tensors of one forward pass, a batch of one without padding.

    Attributes:
        model_inputs: What the model's forward takes.
        sequences: The token sequences of the input by name; image patches join during a capture.
        main_sequence: The sequence that the model speaks (a decoder's, else the text).
    """

    model_inputs: Mapping[str, Tensor]
    sequences: Mapping[str, TokenSequence] = field(default_factory=dict)
    main_sequence: str = "text"

    def __len__(self) -> int:
        """Return the number of tokens of the main sequence."""
        return (
            len(self.sequences[self.main_sequence]) if self.main_sequence in self.sequences else 0
        )


def split_batch(inputs: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the items of a batch, each a batch of one without its left or right padding.

    Raises:
        CaptureError: An item is all padding, or has padding between its tokens.
    """
    sizes = {
        name: len(tensor)
        for name, tensor in inputs.items()
        if isinstance(tensor, Tensor) and tensor.ndim
    }
    batch = sizes.get("input_ids", next(iter(sizes.values()), 0))
    for item in range(batch):
        single = {
            name: tensor[item : item + 1]
            if isinstance(tensor, Tensor) and sizes.get(name) == batch
            else tensor
            for name, tensor in inputs.items()
        }
        for prefix in ("", "decoder_"):
            single = _unpadded(single, prefix, item)
        yield single


def _unpadded(single: dict[str, Tensor], prefix: str, item: int) -> dict[str, Tensor]:
    mask = single.get(f"{prefix}attention_mask")
    if mask is None or mask.ndim != 2 or bool(mask.all()):
        return single
    kept = mask[0].nonzero().flatten()
    if not len(kept):
        raise CaptureError(
            f"item {item} of the batch is all padding: its {prefix}attention_mask has no 1"
        )
    first, last = int(kept[0]), int(kept[-1])
    if last - first + 1 != len(kept):
        raise CaptureError(
            f"item {item} of the batch has padding between its tokens (positions {first} to "
            f"{last}, {len(kept)} real); pad on the left or on the right"
        )
    length = mask.shape[1]
    names = {f"{prefix}{name}" for name in _LENGTH_KEYS} | (
        {"labels"} if prefix or "decoder_input_ids" not in single else set()
    )
    return {
        name: tensor[:, first : last + 1]
        if name in names and tensor.ndim >= 2 and tensor.shape[1] == length
        else tensor
        for name, tensor in single.items()
    }


def token_sequence(
    name: str,
    ids: Tensor,
    tokenizer: Any,
    *,
    roles: Roles | None = None,
    images: Sequence[Segment] = (),
) -> TokenSequence:
    """Return the sequence of some token ids, with segments for roles, special tokens and images.

    A special token inside a role is a segment `special` of its own; an image's placeholder tokens
    are a segment `image` with its grid.
    """
    flat = [int(token) for token in ids.reshape(-1)]
    labels = ["prompt"] * len(flat)
    for role, span in (roles or {}).items():
        for position in span:
            labels[position] = role
    special = set(getattr(tokenizer, "all_special_ids", None) or ())
    placeholders = {position for image in images for position in image.positions}
    for position, token in enumerate(flat):
        if token in special and position not in placeholders:
            labels[position] = "special"
    return TokenSequence(
        name=name,
        tokens=tuple(_printed(flat, tokenizer)),
        ids=tuple(flat),
        segments=Segments(tuple(_runs(labels, images))),
    )


def _runs(labels: Sequence[str], images: Sequence[Segment]) -> Iterator[Segment]:
    by_start = {image.start: image for image in images}
    start = 0
    while start < len(labels):
        if start in by_start:
            yield by_start[start]
            start = by_start[start].stop
            continue
        stop = start + 1
        while stop < len(labels) and labels[stop] == labels[start] and stop not in by_start:
            stop += 1
        yield Segment(name=labels[start], start=start, stop=stop)
        start = stop


def _printed(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """Return what to print for each token: its text, or its vocabulary entry where it has none."""
    if tokenizer is None:
        return [str(token) for token in ids]
    entries = tokenizer.convert_ids_to_tokens(list(ids))
    texts = [tokenizer.decode([token]) for token in ids]
    pairs = zip(texts, entries, ids, strict=True)
    return [
        text if text and "\ufffd" not in text else str(entry or token)
        for text, entry, token in pairs
    ]


def kinds_of_tokens(
    model: nn.Module, prompt: Mapping[str, Tensor], length: int
) -> dict[str, Tensor]:
    """Return what is said of the kind of each token, those of an answer to the prompt included.

    They are of the kind of the last one before them. PaliGemma alone marks by 1 what is read
    causally, as its answer is.
    """
    marks_causal = getattr(getattr(model, "config", None), "model_type", "") == "paligemma"
    kinds = {}
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in prompt:
            before = prompt[name]
            last = torch.ones_like(before[:, -1:]) if marks_causal else before[:, -1:]
            said = last.expand(-1, length - before.shape[1])
            kinds[name] = torch.cat([before, said], dim=1)
    return kinds


def as_batch_of_one(ids: Sequence[int]) -> Tensor:
    """Return token ids as the `(1, token)` tensor that models take."""
    return torch.tensor([list(ids)], dtype=torch.long)
