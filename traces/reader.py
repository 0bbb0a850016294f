"""`open_trace`: a stored trace, read as far as it is asked for."""

import os
from pathlib import Path

from attnscope.traces.container import Container
from attnscope.traces.content import decode
from attnscope.traces.errors import about
from attnscope.traces.observations import Observations
from attnscope.traces.reading_content import reading_from
from attnscope.traces.stored import StoredSource
from attnscope.traces.trace import Trace

__all__ = ["open_trace", "trace_of"]


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Return the trace that a file holds.

    Reads the header and the numbers per token. Everything else is read, and compared with its
    checksums, when it is asked for: `trace.attention[layer]` reads the factors of a layer,
    `trace.attention.heads(layer, head)` those of a head. The file has to stay in place meanwhile;
    it may be replaced, but not changed.

    Raises:
        TraceError: The file is no trace, a newer one, cut off or damaged; or there is none.
    """
    return trace_of(Container(Path(path)))


def trace_of(container: Container) -> Trace:
    """Return the trace of an open container.

    Raises:
        TraceError: The container's content is damaged, or describes no trace.
    """
    with about(container.path):
        content = decode(container.content)
        source = StoredSource(container, content)
    vectors = {field: container.tensor(name) for field, name in content.vectors.items()}
    values = [container.tensor(record.values) for record in content.readings]
    with about(container.path):
        return Trace(
            observations=Observations(source),
            sequences={sequence.name: sequence for sequence in content.sequences},
            main_sequence=content.main_sequence,
            log_probabilities=vectors.get("log_probabilities"),
            entropies=vectors.get("entropies"),
            provenance=content.provenance,
            readings={
                record.key: reading_from(record, found)
                for record, found in zip(content.readings, values, strict=True)
            },
            card=content.card,
        )
