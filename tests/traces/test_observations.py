"""Observations are a sequence that knows its sites before it reads them."""

import torch

from attnscope.traces import open_trace
from attnscope.traces.observations import Observations, identity


def test_slices_are_observations_that_were_not_read(stored, place_of, flip):
    flip(stored, place_of(stored, "1.hidden")[0])
    trace = open_trace(stored)
    later = trace.observations[1:]
    assert isinstance(later, Observations)
    assert [summary.site.layer for summary in later.summaries] == [1]
    assert repr(later) == "Observations(1 sites)"
    assert trace.observations[-2].site.layer == 0


def test_iterating_reads_one_site_after_the_other(stored, place_of, flip):
    flip(stored, place_of(stored, "1.hidden")[0])
    assert next(iter(open_trace(stored).observations)).site.layer == 0


def test_summaries_are_the_same_held_and_stored(make_trace, build, tmp_path):
    trace = make_trace(build)
    trace.save(tmp_path / "trace.safetensors")
    back = open_trace(tmp_path / "trace.safetensors")
    assert back.observed.summaries == trace.observed.summaries
    assert back.nbytes == trace.nbytes


def test_identity_is_of_the_numbers_not_of_the_object():
    tensor = torch.randn(3, 4)
    assert identity(tensor) == identity(tensor.view(3, 4))
    assert identity(tensor) != identity(tensor[:2])
    assert identity(tensor) != identity(tensor.view(torch.int32))
    assert identity(tensor) != identity(tensor.clone())
