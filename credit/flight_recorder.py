"""`FlightRecorder`: what the heads do on the same texts, recorded while a model learns.

One Parquet file per recording, written whole or not at all: a run that is killed keeps what it has,
and one that goes on adds to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from attnscope.credit.errors import CreditError
from attnscope.credit.extra_forward import evaluating
from attnscope.credit.policy_layers import unwrapped
from attnscope.metrics import Metric, Reading, find_metric
from attnscope.probes import Inputs, Measuring, Subject, capture
from attnscope.traces import replacement

if TYPE_CHECKING:
    from pandas import DataFrame
    from transformers import TrainerCallback

__all__ = ["FlightRecorder", "read_flight", "recording_callback"]

_COLUMNS = {"step": "int64", "probe": "str", "metric": "str", "layer": "int64", "head": "int64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightRecorder:
    """Measures head-level metrics on fixed texts, and keeps them in a folder.

    Attributes:
        folder: Where the files go; it is made if it is not there.
        probes: Texts, chats or tensors by a name that tells them apart. Keep them the same.
        processor: The tokenizer or processor that texts and chats need.
        metrics: Metrics with layers and heads, or their names; further axes are averaged over.
        options: Options of each metric, by its name.
        layers: Layers to record; by default all.
    """

    folder: Path
    probes: Mapping[str, Inputs]
    processor: Any = None
    metrics: Sequence[str | Metric] = ("head_span", "sink_mass", "previous_token", "entropy")
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Refuse metrics that say nothing of heads, and a recorder of nothing."""
        if not self.probes or not self.metrics:
            raise CreditError("a flight recorder needs a probe text and a metric at least")
        for metric in map(find_metric, self.metrics):
            if not {"layer", "head"} <= set(metric.axes):
                raise CreditError(
                    f"{metric.name} has the axes {metric.axes}; a flight recorder keeps metrics "
                    "with a layer and a head axis"
                )

    def record(self, model: nn.Module, step: int) -> Path:
        """Measure a model, and return the file that now holds the recording of this step.

        The model is run in evaluation mode, each module's own mode being restored; no random number
        is drawn.
        """
        table = self.measure(model, step)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"flight-{step:09d}.parquet"
        with replacement(path) as stream:
            table.to_parquet(stream, index=False)
        return path

    def measure(self, model: nn.Module, step: int) -> "DataFrame":
        """Return one row per probe, metric, layer and head."""
        import pandas

        inner = unwrapped(model)
        subject = Subject(inner, self.processor)
        tables = []
        with evaluating(inner):
            for probe, inputs in self.probes.items():
                recorder = Measuring(*self.metrics, options=self.options)
                readings = capture(subject, inputs, self.layers, into=recorder)
                tables += [_tidy(reading, step, probe) for reading in readings.values()]
        return pandas.concat(tables, ignore_index=True)


def _tidy(reading: Reading, step: int, probe: str) -> "DataFrame":
    others = [axis for axis in reading.axes if axis not in ("layer", "head")]
    table = reading.mean(*others).to_pandas().rename(columns={reading.name: "value"})
    table = table.assign(step=step, probe=probe, metric=reading.name)
    return table.loc[:, [*_COLUMNS, "value"]].astype({**_COLUMNS, "value": "float32"})


def recording_callback(recorder: FlightRecorder, every: int = 50) -> "TrainerCallback":
    """Return a callback for transformers' `Trainer`, and so for TRL's trainers.

    It records before the first step, after every so many, and at the end. Every process runs the
    probes, as a sharded model needs; the first one writes.

    Args:
        recorder: What to measure, and where to keep it.
        every: Optimizer steps between recordings.

    Raises:
        CreditError: There is no step between recordings.
    """
    from transformers import TrainerCallback

    if every < 1:
        raise CreditError(f"every is {every}; recordings are one step apart at least")

    class Recording(TrainerCallback):
        """Calls the recorder, each step once."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            _record(recorder, state, others["model"])

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step % every == 0:
                _record(recorder, state, others["model"])

        def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step % every:
                _record(recorder, state, others["model"])

    return Recording()


def _record(recorder: FlightRecorder, state: Any, model: nn.Module) -> None:
    if state.is_world_process_zero:
        recorder.record(model, state.global_step)
    else:
        recorder.measure(model, state.global_step)


def read_flight(path: str | Path) -> "DataFrame":
    """Return all recordings of a folder, or of a file that joins them, as one tidy table.

    Columns: step, probe, metric, layer, head, value; in the order of steps.

    Raises:
        CreditError: There is no recording, or a file is none.
    """
    import pandas

    path = Path(path)
    parts = [path] if path.is_file() else sorted(path.glob("flight-*.parquet"))
    if not parts:
        raise CreditError(f"{path} holds no recording (flight-*.parquet)")
    table = pandas.concat([pandas.read_parquet(part) for part in parts], ignore_index=True)
    missing = {*_COLUMNS, "value"} - set(table.columns)
    if missing:
        raise CreditError(f"{path} is no recording: it has no column {', '.join(sorted(missing))}")
    return table.astype({"probe": "str", "metric": "str"})
