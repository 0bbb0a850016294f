"""The recurrences of transformers' state-space layers, each with how its call is read."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from attnscope.attention import AttentionOperator, DeltaRuleAttention, ScanAttention
from attnscope.probes.attention_call import AttentionCall, Listener
from attnscope.probes.errors import CaptureError

__all__ = ["SCANS"]

Given = dict[str, Any]
Function = Callable[..., Any]


def selective_scan(module: nn.Module, listener: Listener, scan: Function, given: Given) -> Any:
    """Hear Mamba's scan: each channel is a head, and the gate is applied after it.

    The library's own function multiplies by the gate as its last step; here that is done outside,
    so that z is the scan's output.
    """
    gate = given.pop("z")
    delta = _steps(given["dt"], given["delta_bias"], given["delta_softplus"], axis=-2)
    attention = ScanAttention(
        given["C"].mT.unsqueeze(-3),
        given["B"].mT.unsqueeze(-3),
        delta,
        given["A"],
        skip=given["D"],
    )
    result = scan(**given, z=None)
    output, *state = result if isinstance(result, tuple) else (result,)
    value = given["hidden_states"].unsqueeze(-1)
    heard = _listened(module, listener, (attention, value, output.unsqueeze(-1))).squeeze(-1)
    heard = heard if gate is None else heard * silu(gate)
    return (heard, *state) if state else heard


def chunk_scan(module: nn.Module, listener: Listener, scan: Function, given: Given) -> Any:
    """Hear Mamba-2's scan, with one rate per head."""
    _refuse_states(module, given, "initial_states")
    if given.get("z") is not None:
        kind = type(module).__name__
        raise CaptureError(f"the scan of a {kind} multiplies by a gate before its output is known")
    delta = _steps(given["dt"], given["dt_bias"], given["dt_softplus"], axis=-1)
    delta = delta.clamp(*given["dt_limit"]).mT
    attention = ScanAttention(
        given["C"].transpose(1, 2),
        given["B"].transpose(1, 2),
        delta,
        given["A"].unsqueeze(-1),
        skip=given["D"],
    )
    result = scan(**given)
    output, *state = result if isinstance(result, tuple) else (result,)
    value = given["hidden_states"].transpose(1, 2)
    heard = _listened(module, listener, (attention, value, output.transpose(1, 2)))
    heard = heard.transpose(1, 2).contiguous()  # some layers ask for a view of it
    return (heard, *state) if state else heard


def delta_rule(module: nn.Module, listener: Listener, scan: Function, given: Given) -> Any:
    """Hear the gated delta rule, whose queries and keys the function normalizes itself."""
    _refuse_states(module, given, "initial_state")
    query, key = (given[name].transpose(1, 2).float() for name in ("query", "key"))
    if given["use_qk_l2norm_in_kernel"]:
        query, key = _normalized(query), _normalized(key)
    scale = given.get("scale")
    attention = DeltaRuleAttention(
        query * (query.shape[-1] ** -0.5 if scale is None else scale),
        key,
        given["beta"].mT.float(),
        given["g"].mT.float(),
    )
    output, state = scan(**given)
    value = given["value"].transpose(1, 2)
    heard = _listened(module, listener, (attention, value, output.transpose(1, 2)))
    return heard.transpose(1, 2).contiguous(), state


SCANS: Mapping[str, Callable[[nn.Module, Listener, Function, Given], Any]] = {
    "mamba_selective_scan": selective_scan,
    "mamba2_chunk_scan": chunk_scan,
    "torch_chunk_gated_delta_rule": delta_rule,
}
"""Readers by the name under which layers call their recurrence."""


def _listened(
    module: nn.Module, listener: Listener, heard: tuple[AttentionOperator, Tensor, Tensor]
) -> Tensor:
    attention, value, output = heard
    return listener(
        AttentionCall(
            module=module,
            attention=attention,
            value=value,
            output=output,
            laid_out=True,
            library=type(module).__module__.partition(".")[0],
            computation="the model itself",
        )
    )


def _steps(raw: Tensor, bias: Tensor | None, positive: bool, *, axis: int) -> Tensor:
    """Return how far each position steps; the bias lies along an axis of the channels or heads."""
    if bias is not None:
        own = bias.to(raw.dtype)
        raw = raw + (own.unsqueeze(-1) if axis == -2 else own)
    return softplus(raw) if positive else raw


def _normalized(rows: Tensor) -> Tensor:
    return rows * torch.rsqrt(rows.square().sum(-1, keepdim=True) + 1e-6)


def _refuse_states(module: nn.Module, given: Given, name: str) -> None:
    packed = [key for key in ("cu_seqlens", "seq_idx") if given.get(key) is not None]
    if given.get(name) is not None or packed:
        what = f"packed sequences ({', '.join(packed)})" if packed else "a state of earlier tokens"
        raise CaptureError(
            f"{type(module).__name__} was given {what}: its map over these tokens alone is not "
            "what it computes. Capture one whole sequence at a time, without a cache"
        )
