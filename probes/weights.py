"""`weights_fingerprint`: a short name of a model's weights; another checkpoint has another."""

import hashlib

import torch
from torch import Tensor, nn

__all__ = ["weights_fingerprint"]

_SAMPLES = 32
"""Entries of each parameter that are looked at."""


def weights_fingerprint(model: nn.Module) -> str:
    """Return sixteen digits of a hash of names, types, shapes and sampled entries of parameters.

    Each parameter lends its first, its last and evenly spaced entries, so that it takes
    milliseconds whatever the model's size. Training moves nearly every entry and changes it; an
    edit of a few entries may not. A model in another type has another fingerprint.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 2)
        >>> before = weights_fingerprint(layer)
        >>> _ = layer.weight.data.add_(1)
        >>> len(before), before == weights_fingerprint(layer)
        (16, False)
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(_sampled(parameter.detach()))
    return digest.hexdigest()[:16]


def _sampled(parameter: Tensor) -> bytes:
    """Return some entries as bytes; none of what lies elsewhere (meta, sharded, quantized)."""
    plain = type(parameter) is Tensor and parameter.layout is torch.strided
    if not plain or parameter.device.type == "meta" or not parameter.numel():
        return b""
    places = torch.linspace(0, parameter.numel() - 1, _SAMPLES, dtype=torch.float64).long()
    index = torch.unravel_index(places.to(parameter.device), parameter.shape)
    entries = parameter[index] if parameter.ndim else parameter.reshape(1)
    return entries.cpu().contiguous().view(torch.uint8).numpy().tobytes()
