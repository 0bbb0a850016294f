"""Attention that inseq saved as JSON."""

import base64
import binascii
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from attnscope.attention import DenseAttention
from attnscope.probes.errors import CaptureError
from attnscope.probes.importing.map_checks import checked_map, imported_trace, numbered, observed
from attnscope.traces import Observation, Trace

__all__ = ["from_inseq"]


def from_inseq(path: str | Path, item: int = 0) -> Trace:
    """Return the trace of one item of a file that inseq's `attention` method saved.

    inseq keeps, for each generated token, the row of the position that predicts it: queries are the
    steps of generation, printed as the tokens that they produced. `target_attributions` are rows
    over the text, `source_attributions` rows over what an encoder read. Weights that inseq has
    aggregated over layers or heads are no maps any more, and are refused.

    Args:
        path: A `.json` or `.json.gz` file.
        item: Which of its sequences.

    Raises:
        CaptureError: It is no such file, not of attention, or aggregated.
    """
    content = _plain(_read(Path(path)))
    found = content.get("sequence_attributions") if isinstance(content, Mapping) else None
    if not isinstance(found, list) or not found:
        raise CaptureError(f"{path} holds no sequence_attributions; it is not of inseq")
    info = content.get("info") or {}
    method = info.get("attribution_method", "attention")
    if method != "attention":
        raise CaptureError(f"{path} holds attributions by {method!r}; only 'attention' has maps")
    if not 0 <= item < len(found):
        raise CaptureError(f"no sequence {item} in {path}; there are {len(found)}")
    observations = _observations(found[item])
    notes = {"imported from": "attributions of inseq", "kept as": "dense rows of generated tokens"}
    return imported_trace(observations, "text", notes, str(info.get("model_name", "")))


def _observations(sequence: Mapping[str, Any]) -> list[Observation]:
    target, source = (_words(sequence.get(side) or []) for side in ("target", "source"))
    first = int(sequence.get("attr_pos_start") or 0)
    stop = int(sequence.get("attr_pos_end") or len(target))
    steps = numbered("generation", target[first:stop], stop - first)
    text = numbered("text", target, len(target))
    observations = []
    for field, keys, offset in (
        ("target_attributions", text, first - 1),
        ("source_attributions", numbered("encoder", source, len(source)), None),
    ):
        if sequence.get(field) is None:
            continue
        weights = _tensor(sequence[field], field)
        expected = (len(keys), len(steps))
        if weights.ndim != 4 or tuple(weights.shape[:2]) != expected:
            raise CaptureError(
                f"{field} have shape {tuple(weights.shape)}; maps need {expected} and the axes "
                "layer and head after them, which aggregation takes away"
            )
        stack = field.removesuffix("_attributions")
        for layer in range(weights.shape[2]):
            # What a step had not seen yet is NaN.
            rows = weights[:, :, layer].permute(2, 1, 0).nan_to_num(0.0)
            pattern = checked_map(rows, f"{field} of layer {layer}", partial=True)
            axis = "token" if offset is not None else "memory"
            attention = DenseAttention(pattern, offset=offset, key_axis=axis)
            observations.append(observed(attention, (stack, layer), steps, keys))
    if not observations:
        raise CaptureError("the sequence holds neither target_attributions nor source_attributions")
    if all(one.keys.name != "text" for one in observations):
        raise CaptureError("the sequence holds no target_attributions, rows over the text")
    return observations


def _read(path: Path) -> Any:
    try:
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except (OSError, ValueError) as error:
        raise CaptureError(f"{path} cannot be read as JSON ({error})") from error


def _plain(found: Any) -> Any:
    """Return the fields of saved objects without the names of their classes."""
    if isinstance(found, Mapping):
        if "__instance_type__" in found:
            return _plain(found.get("attributes", {}))
        return {name: _plain(value) for name, value in found.items()}
    return [_plain(one) for one in found] if isinstance(found, list) else found


def _words(tokens: Sequence[Any]) -> list[str]:
    return [str(one["token"] if isinstance(one, Mapping) else one) for one in tokens]


def _tensor(found: Any, field: str) -> Tensor:
    """Return numbers from lists, from lists with their shape, or from safetensors in base64."""
    if isinstance(found, Mapping) and "__ndarray__" in found:
        found = found["__ndarray__"]
    if isinstance(found, str):
        try:
            tensors = load(base64.b64decode(found, validate=True))
        except (binascii.Error, SafetensorError) as error:
            raise CaptureError(f"{field} are text that is no safetensors ({error})") from error
        if len(tensors) != 1 or not next(iter(tensors.values())).is_floating_point():
            raise CaptureError(
                f"{field} are stored in 8 bits, as {sorted(tensors)}; save them in float32 or 16"
            )
        return next(iter(tensors.values())).float()
    return torch.tensor(found, dtype=torch.float32)
