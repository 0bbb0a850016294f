"""Queries and keys that vLLM-Hook wrote while a model was served."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from attnscope.attention import SoftmaxAttention
from attnscope.probes.errors import CaptureError
from attnscope.probes.importing.map_checks import imported_trace, numbered, observed
from attnscope.traces import Trace

__all__ = ["from_vllm_hook"]


def from_vllm_hook(
    folder: str | Path, request: int = 0, tokens: Sequence[str] | None = None, *, model: str = ""
) -> Trace:
    """Return the trace of one request from `qk.safetensors` and `qk.json` of one rank.

    Queries and keys are those that the attention layer got, rotated. Sliding windows, soft-caps and
    learned sinks are not in these files: the maps are those of plain causal attention, which the
    notes say. Where only the last query was kept, a map has one row.

    Args:
        folder: The folder of the two files.
        request: Which entry of the batch.
        tokens: What to print at each key; by default numbers.
        model: The model's name.

    Raises:
        CaptureError: A file is missing, a pickle, or not what its side file says.
    """
    folder = Path(folder)
    facts = _side_file(folder)
    observations = []
    with _opened(folder / "qk.safetensors") as file:
        for item in facts["layer_order"]:
            mode = item.get("hookq_mode", facts.get("hookq_mode", "all_tokens"))
            query, key = _request(file, item, facts, request, mode == "all_tokens")
            attention = _operator(query, key, facts["config"], item["module_name"])
            keys = numbered("text", tokens, attention.keys)
            cut = attention.keys - attention.queries
            queries = keys
            if cut:
                queries = numbered("last queries", keys.tokens[cut:], attention.queries)
            place = "attention", int(item["layer_num"])
            observations.append(observed(attention, place, queries, keys))
    notes = {
        "imported from": "queries and keys of vLLM-Hook",
        "kept as": "factors",
        "assumed": "plain causal attention: windows, soft-caps and sinks are not in the files",
    }
    return imported_trace(observations, "text", notes, model)


def _side_file(folder: Path) -> Mapping[str, Any]:
    path = folder / "qk.json"
    if not path.is_file() or not (folder / "qk.safetensors").is_file():
        pickled = (folder / "qk.pt").is_file()
        raise CaptureError(
            f"{folder} holds no qk.safetensors with its qk.json"
            + (
                "; its qk.pt is a pickle, which is never opened: set VLLM_HOOK_USE_SAFETENSORS=1"
                if pickled
                else ""
            )
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        missing = {"config", "layer_order"} - set(facts)
    except (ValueError, TypeError) as error:
        raise CaptureError(f"{path} is no JSON of vLLM-Hook ({error})") from error
    if missing or facts.get("compact_all_tokens"):
        what = f"has no {sorted(missing)}" if missing else "tells of the compact layout"
        raise CaptureError(f"{path} {what}; read is the layout with one padded row per request")
    return facts


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CaptureError(f"{path} is not a safetensors file ({error})") from error


def _request(
    file: Any, item: Mapping[str, Any], facts: Mapping[str, Any], request: int, every: bool
) -> tuple[Tensor, Tensor]:
    """Return one request's queries and keys `(position, width)` without their padding."""
    query, key = (_tensor(file, item[side]) for side in ("key_q", "key_k"))
    if not 0 <= request < len(query):
        raise CaptureError(f"no request {request}; the file holds {len(query)}")
    common = facts.get("seq_lens")
    lengths = facts.get("q_seq_lens", common), facts.get("k_seq_lens", common)
    query, key = query[request], key[request]
    if lengths[1] is not None:
        key = key[: int(lengths[1][request])]
    if not every:
        return query.reshape(1, -1), key
    return (query if lengths[0] is None else query[: int(lengths[0][request])]), key


def _tensor(file: Any, name: str) -> Tensor:
    if name not in file.keys():  # noqa: SIM118 - a file is no mapping
        raise CaptureError(f"qk.safetensors holds no {name!r}, which qk.json names")
    return file.get_tensor(name)


def _operator(
    query: Tensor, key: Tensor, config: Mapping[str, Any], where: str
) -> SoftmaxAttention:
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads", heads))
    width = query.shape[-1] // heads
    if (query.shape[-1], key.shape[-1]) != (heads * width, kv_heads * width) or heads % kv_heads:
        raise CaptureError(
            f"{where}: queries of width {query.shape[-1]} and keys of width {key.shape[-1]} are "
            f"not {heads} and {kv_heads} heads of one width, as qk.json says"
        )
    scale = config.get("attention_multiplier")
    return SoftmaxAttention(
        query.unflatten(-1, (heads, width)).transpose(0, 1),
        key.unflatten(-1, (kv_heads, width)).transpose(0, 1),
        1 / math.sqrt(width) if scale is None else float(scale),
        causal=True,
    )
