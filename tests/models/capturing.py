"""What every reference mechanism owes to the workbench: it can be captured, stored and measured."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from attnscope import capture, measure, open_trace
from attnscope.attention import OperatorError
from attnscope.metrics import METRICS, Metric, MetricError
from attnscope.probes import Measuring, Subject
from attnscope.traces import Trace

__all__ = ["assert_capture_keeps_the_contract"]

_SMALL = 2**16


def assert_capture_keeps_the_contract(
    model: nn.Module, inputs: Mapping[str, Tensor], folder: Path
) -> Trace:
    """Capture a model, save the trace, open it again, and measure all that can be measured.

    The model's output is bit for bit what it was; every stack gives three metrics at least, the
    same of the stored trace and of a stream; a metric either measures or refuses.
    """
    model.eval()
    with torch.no_grad():
        before = model(**inputs)
        trace = capture(Subject(model), inputs)
        after = model(**inputs)
    assert_same_output(before, after)
    trace.save(folder / "trace.safetensors")
    stored = open_trace(folder / "trace.safetensors")
    assert stored.sites == trace.sites
    assert len(stored.sites) > 0
    for observation, again in zip(trace.observations, stored.observations, strict=True):
        if observation.attention.shape.numel() <= _SMALL:
            torch.testing.assert_close(again.attention.dense(), observation.attention.dense())
        read = again.attention.apply(again.value)
        assert read.isfinite().all()
        torch.testing.assert_close(read, observation.attention.apply(observation.value))
    for stack in stored.stacks:
        measured = [name for name, metric in METRICS.items() if _measures(stored, metric, stack)]
        assert len(measured) >= 3, f"{stack} can be measured by {measured} only"
        streamed = capture(Subject(model), inputs, into=Measuring("row_sum", stack=stack))
        torch.testing.assert_close(
            streamed["row_sum"].values,
            measure(stored, "row_sum", stack=stack).values,
            equal_nan=True,
        )
    return trace


def assert_same_output(one: object, other: object) -> None:
    """Compare tensors, or whatever holds tensors in order, bit for bit."""
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor)
        assert torch.equal(one, other)
    elif isinstance(one, tuple | list):
        assert isinstance(other, tuple | list)
        for left, right in zip(one, other, strict=True):
            assert_same_output(left, right)


def _measures(trace: Trace, metric: Metric, stack: str) -> bool:
    if metric.over == "trace":
        return False
    try:
        values = measure(trace, metric, stack=stack).values
    except (MetricError, OperatorError):
        return False
    assert not values.isinf().any()
    return True
