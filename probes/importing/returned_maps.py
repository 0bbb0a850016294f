"""Maps that transformers returned, and what was drawn with bertviz."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from attnscope.attention import DenseAttention
from attnscope.probes.errors import CaptureError
from attnscope.probes.importing.map_checks import checked_map, imported_trace, numbered, observed
from attnscope.traces import Observation, Segment, Segments, TokenSequence, Trace

__all__ = ["from_attentions", "from_bertviz"]

Maps = Sequence[Any] | None
Tokens = Sequence[str] | None


def from_attentions(  # noqa: PLR0913 - the fields of what the library returns
    attentions: Maps,
    tokens: Tokens = None,
    *,
    encoder_attentions: Maps = None,
    cross_attentions: Maps = None,
    encoder_tokens: Tokens = None,
    partial: bool = False,
    model: str = "",
) -> Trace:
    """Return the trace of the `attentions` that a forward pass returned, a map per layer.

    Of an encoder-decoder give its `decoder_attentions` as `attentions`.

    Args:
        attentions: Maps `(1, head, query, key)` by layer.
        tokens: What to print at each position; by default numbers.
        encoder_attentions: The same of an encoder.
        cross_attentions: Of what a decoder reads of the encoder.
        encoder_tokens: The encoder's tokens.
        partial: Rows may sum to less than 1, as beside a learned sink (gpt-oss).
        model: The model's name.

    Raises:
        CaptureError: There is no map, one is no map, or tokens and maps differ in length.

    Example:
        >>> import torch
        >>> from_attentions([torch.eye(2)[None, None]], ["to", "be"]).attention[0].causal
        True
    """
    several = encoder_attentions is not None or cross_attentions is not None
    own = "decoder" if several else "text"
    parts = [
        ("encoder", encoder_attentions, ("encoder", "encoder")),
        (own, attentions, (own, own)),
        ("cross", cross_attentions, (own, "encoder")),
    ]
    words = {own: tokens, "encoder": encoder_tokens}
    known: dict[str, TokenSequence] = {}
    observations = [
        one
        for stack, maps, names in parts
        if maps is not None
        for one in _layers(stack, maps, names, words, known, partial)
    ]
    if not observations:
        raise CaptureError("no maps were given: attentions=, encoder_attentions= or the like")
    notes = {"imported from": "returned attentions", "kept as": "dense maps"}
    return imported_trace(observations, own if own in known else "encoder", notes, model)


def from_bertviz(
    attention: Maps = None,
    tokens: Tokens = None,
    sentence_b_start: int | None = None,
    *,
    include_layers: Sequence[int] | None = None,
    **parts: Any,
) -> Trace:
    """Return the trace of what bertviz' `head_view` and `model_view` draw, by the same names.

    Args:
        attention: Maps by layer.
        tokens: Tokens.
        sentence_b_start: Where the second sentence begins.
        include_layers: The layers to keep.
        parts: `encoder_attention`, `decoder_attention`, `cross_attention`, `encoder_tokens`,
            `decoder_tokens`.

    Raises:
        CaptureError: As `from_attentions`, or an argument that bertviz does not have.
    """
    names = ("encoder_attention", "decoder_attention", "cross_attention")
    unknown = sorted(set(parts) - {*names, "encoder_tokens", "decoder_tokens"})
    if unknown:
        raise CaptureError(f"bertviz has no {unknown}; it has {names} and tokens of the two")
    decodes = attention is None
    trace = from_attentions(
        parts.get("decoder_attention") if decodes else attention,
        parts.get("decoder_tokens") if decodes else tokens,
        encoder_attentions=parts.get("encoder_attention"),
        cross_attentions=parts.get("cross_attention"),
        encoder_tokens=parts.get("encoder_tokens"),
    )
    trace = trace if include_layers is None else trace.select(layers=include_layers)
    if sentence_b_start is None:
        return trace
    return _in_sentences(trace, sentence_b_start)


def _layers(
    stack: str,
    maps: Sequence[Any],
    names: tuple[str, str],
    words: dict[str, Tokens],
    known: dict[str, TokenSequence],
    partial: bool,
) -> Iterator[Observation]:
    if not len(maps):
        raise CaptureError(
            f"the {stack} attentions are empty: fused kernels return none; load the model with "
            "attn_implementation='eager', or capture() it as it is"
        )
    for layer, given in enumerate(maps):
        if isinstance(given, tuple | list):
            raise CaptureError(
                f"{stack} attentions hold a {type(given).__name__} per step, as generate() returns "
                "them; run the model once over prompt and answer"
            )
        pattern = checked_map(given, f"layer {layer} of the {stack}", partial=partial)
        for name, length in zip(names, pattern.shape[1:], strict=True):
            known.setdefault(name, numbered(name, words[name], length))
        cross = names[0] != names[1]
        attention = DenseAttention(pattern, key_axis="memory" if cross else "token")
        yield observed(attention, (stack, layer), known[names[0]], known[names[1]])


def _in_sentences(trace: Trace, start: int) -> Trace:
    name, length = trace.main_sequence, len(trace.tokens)
    if not 0 < start < length:
        raise CaptureError(f"sentence B starts at {start}; there are {length} tokens")
    runs = (
        Segment(name="sentence A", start=0, stop=start),
        Segment(name="sentence B", start=start, stop=length),
    )
    told = replace(trace.sequences[name], segments=Segments(runs))
    observations = [
        replace(
            one,
            queries=told if one.queries.name == name else one.queries,
            keys=told if one.keys.name == name else one.keys,
        )
        for one in trace.observations
    ]
    sequences = {**trace.sequences, name: told}
    return replace(trace, observations=observations, sequences=sequences)
