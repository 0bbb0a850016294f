"""`open_trace`: a stored trace, read as far as it is asked for."""

import os
from pathlib import Path

from attnscope.traces.container import Container
from attnscope.traces.content import decode
from attnscope.traces.errors import about
from attnscope.traces.observations import Observations
from attnscope.traces.stored import StoredSource
from attnscope.traces.trace import Trace

__all__ = ["open_trace"]


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Return the trace that a file holds.

    Reads the header and the numbers per token. Everything else is read, and compared with its
    checksums, when it is asked for: `trace.attention[layer]` reads the factors of a layer,
    `trace.attention.heads(layer, head)` those of a head. The file has to stay in place meanwhile;
    it may be replaced, but not changed.

    Raises:
        TraceError: The file is no trace, a newer one, cut off or damaged; or there is none.
    """
    file = Path(path)
    container = Container(file)
    with about(file):
        content = decode(container.content)
        source = StoredSource(container, content)
    vectors = {field: container.tensor(name) for field, name in content.vectors.items()}
    with about(file):
        return Trace(
            observations=Observations(source),
            sequences={sequence.name: sequence for sequence in content.sequences},
            main_sequence=content.main_sequence,
            log_probabilities=vectors.get("log_probabilities"),
            entropies=vectors.get("entropies"),
            provenance=content.provenance,
        )
