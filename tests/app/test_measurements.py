import pytest

from attnscope.app.failures import CommandError
from attnscope.app.measurements import measure_all
from attnscope.metrics import measure
from attnscope.traces import open_trace


def test_readings_come_in_the_order_asked_for_each_once(trace_file):
    readings = measure_all(open_trace(trace_file), ["waad", "fai", "waad"], [])
    assert [reading.name for reading in readings] == ["waad", "fai"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("queries=[4,5]", {"queries": [4, 5]}),
        ("queries=none", {}),
        ("far=none", {"far": None}),
        ("near=2", {"near": 2}),
        (" near = 2 ", {"near": 2}),
        ("renormalize=true", {"renormalize": True}),
    ],
)
def test_options_are_numbers_words_and_lists(trace_file, text, options):
    trace = open_trace(trace_file)
    (found,) = measure_all(trace, ["fai"], [text])
    expected = measure(trace, "fai", **options)
    assert found.values.nan_to_num(-1).equal(expected.values.nan_to_num(-1))
    assert found.options == expected.options


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("near=2.5", "option near of fai cannot be 2.5; it is 10 by default"),
        ("near=true", "option near of fai cannot be True"),
        ("queries=all", "option queries of fai cannot be 'all'; it is None by default"),
        ("=3", "'=3' is no option"),
        ("near=", "'near=' is no option"),
    ],
)
def test_options_of_another_kind_are_refused(trace_file, text, reason):
    with pytest.raises(CommandError, match=reason):
        measure_all(open_trace(trace_file), ["fai"], [text])
