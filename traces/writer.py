"""`write_trace`: a trace as one safetensors file."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from attnscope.attention import OPERATORS, OperatorError
from attnscope.traces.atomic_file import replacement
from attnscope.traces.container import checksum, pieces
from attnscope.traces.content import Content, SiteRecord, encode
from attnscope.traces.errors import TraceError, about
from attnscope.traces.layout import Entry, arrange, seal
from attnscope.traces.observations import Observations, SiteSummary, identity
from attnscope.traces.reading_content import record_of
from attnscope.traces.site import Observation
from attnscope.traces.stored_reading import StoredReading

__all__ = ["write_trace"]


def write_trace(
    path: Path,
    content: Content,
    observations: Observations,
    vectors: Mapping[str, Tensor | None],
    readings: Mapping[str, StoredReading],
) -> None:
    """Write the parts of a trace to one file, which appears complete or not at all.

    What is not of tensors comes as the content of a file that holds none yet.

    Tensors are written from where they lie, slice by slice, and may lie on an accelerator; one
    that several sites share is written once. What the path held before stays readable for traces
    that were opened from it.

    Raises:
        TraceError: An operator cannot be stored, or the path cannot be written.
    """
    with about(path):
        if path.is_dir():
            raise TraceError("is a folder")
        shelf = _Shelf()
        content = replace(
            content,
            vectors=shelf.put_all("token", vectors),
            records=tuple(
                _record(shelf, str(index), observation, summary)
                for index, (observation, summary) in enumerate(
                    zip(observations, observations.summaries, strict=True)
                )
            ),
            readings=tuple(
                record_of(key, reading, shelf.put(f"reading.{index}", reading.values))
                for index, (key, reading) in enumerate(readings.items())
            ),
        )
        _write(path, content, shelf.tensors)


def _write(path: Path, content: Content, tensors: Mapping[str, Tensor]) -> None:
    """Write a header without checksums, the tensors, and then the header with them."""
    entries = arrange(tensors)
    checksums = {name: ["0" * 16] * pieces(entry) for name, entry in entries.items()}
    opening = seal(encode(content, checksums), entries)
    with replacement(path) as stream:
        stream.write(opening)
        for name, entry in entries.items():
            checksums[name] = []
            for piece in _bytes(tensors[name], entry):
                checksums[name].append(checksum(piece))
                stream.write(piece)
        stream.seek(0)
        stream.write(seal(encode(content, checksums), entries))


class _Shelf:
    """Tensors that are to be written, each once, by the name under which it came first."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[object, str] = {}

    def put(self, name: str, tensor: Tensor) -> str:
        """Return the name of an equal view that is there already, or of this one."""
        known = self._names.setdefault(identity(tensor), name)
        if known == name:
            self.tensors[name] = tensor.detach()
        return known

    def put_all(self, prefix: str, tensors: Mapping[str, Tensor | None]) -> dict[str, str]:
        """Return the names of several tensors, of those that exist."""
        return {
            name: self.put(f"{prefix}.{name}", tensor)
            for name, tensor in tensors.items()
            if tensor is not None
        }


def _record(
    shelf: _Shelf, prefix: str, observation: Observation, summary: SiteSummary
) -> SiteRecord:
    if OPERATORS.get(summary.kind) is not type(observation.attention):
        raise TraceError(
            f"the {summary.kind} of {summary.site.path} cannot be stored; "
            f"files hold {', '.join(OPERATORS)}"
        )
    try:
        parts, facts = observation.attention.parts()
    except OperatorError as error:
        raise TraceError(f"{summary.site.path} cannot be stored: {error}") from error
    fields = {
        "value": observation.value,
        "gradient": observation.gradient,
        "hidden": observation.hidden,
    }
    return SiteRecord(
        summary=summary,
        facts=facts,
        parts=shelf.put_all(f"{prefix}.attention", parts),
        fields=shelf.put_all(prefix, fields),
    )


def _bytes(tensor: Tensor, entry: Entry) -> Iterator[memoryview]:
    """Yield the content of a tensor, one checksum's worth at a time."""
    count = pieces(entry)
    for piece in tensor.unbind(0) if count > 1 else (tensor,):
        plain = piece.cpu().resolve_neg().contiguous()
        yield plain.reshape(-1).view(torch.uint8).numpy().data
