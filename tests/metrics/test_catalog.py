"""The catalog: complete, consistent, and true to what is measured."""

import inspect
import math

import pytest
import torch

import attnscope.metrics
from attnscope.metrics import CATALOG, METRICS, MetricError, find_metric, measure
from attnscope.metrics.metric import NEEDS, Streamed
from tests.metrics.patterns import TOKENS, observation, small_trace

TRACE = small_trace()
SIZES = {"layer": 3, "head": 4, "query": TOKENS, "key": TOKENS, "token": TOKENS, "patch": 6}


def test_names_are_unique() -> None:
    assert len(METRICS) == len(CATALOG)


@pytest.mark.parametrize("name", METRICS)
def test_readings_have_the_axes_and_bounds_that_are_declared(name: str) -> None:
    metric = METRICS[name]
    reading = measure(TRACE, name)
    assert reading.axes == metric.axes
    for axis, size in zip(reading.axes, reading.values.shape, strict=True):
        assert size == SIZES.get(axis, size)
    known = reading.values[~reading.values.isnan()]
    assert known.numel()
    low, high = reading.bounds
    assert float(known.min()) >= (-math.inf if low is None else low - 1e-6)
    assert float(known.max()) <= (math.inf if high is None else high + 1e-6)
    assert reading.values.dtype in (torch.float32, torch.float64)
    assert len(reading.to_pandas()) == reading.values.numel()


@pytest.mark.parametrize("name", METRICS)
def test_entries_say_what_they_are(name: str) -> None:
    metric = METRICS[name]
    assert metric.title[0].isupper()
    assert metric.paper
    assert set(metric.needs) <= set(NEEDS)
    assert (metric.axes[0] == "layer") == (metric.over == "site")
    assert metric.missing(observation(0)) == ()


@pytest.mark.parametrize("name", METRICS)
def test_defaults_of_options_are_those_of_the_code(name: str) -> None:
    measured = METRICS[name].measure
    parts = [measured.part, measured.whole] if isinstance(measured, Streamed) else [measured]
    for part in parts:
        for option, parameter in inspect.signature(part).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                assert METRICS[name].options.get(option, parameter.default) == parameter.default


def test_every_option_is_used() -> None:
    with pytest.raises(MetricError, match="no metric 'nothing'; the catalog has"):
        find_metric("nothing")
    assert find_metric("waad") is METRICS["waad"]
    assert find_metric(METRICS["waad"]) is METRICS["waad"]


def test_the_door_is_sorted_and_complete() -> None:
    names = attnscope.metrics.__all__
    assert all(hasattr(attnscope.metrics, name) for name in names)
    assert len(set(names)) == len(names)
