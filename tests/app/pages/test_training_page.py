import shutil

import pandas
import pytest

from attnscope.app.library import Library
from attnscope.app.recordings import find_recordings
from attnscope.credit import CreditError, read_flight


@pytest.fixture
def recorded(store):
    """Keep a recording of one head that becomes a sink in the store."""
    folder = store / "run"
    folder.mkdir()
    for step, value in ((0, 0.0), (10, 0.8), (20, 1.0)):
        row = {"step": step, "probe": "text", "metric": "sink_mass", "layer": 1, "head": 2}
        table = pandas.DataFrame([row | {"value": value}])
        table.to_parquet(folder / f"flight-{step:09d}.parquet", index=False)
    yield folder
    shutil.rmtree(folder)


def test_a_recording_of_the_store_is_shown(open_page, recorded):
    page = open_page("training", recording="run")
    assert not page.exception
    assert page.selectbox[1].value == "sink_mass"
    arrivals = page.dataframe[-1].value
    assert arrivals[["layer", "head", "arrival"]].iloc[0].tolist() == [1, 2, 10]
    page.slider[0].set_value(0.9).run()
    assert page.dataframe[-1].value["arrival"].tolist() == [20]


def test_recordings_are_found_beneath_the_store(store, recorded):
    found = find_recordings(Library(store))
    assert next(iter(found.items())) == ("run", recorded)


def test_a_file_that_is_no_recording_is_refused(tmp_path):
    path = tmp_path / "flight-000000000.parquet"
    pandas.DataFrame({"step": [0]}).to_parquet(path)
    with pytest.raises(CreditError, match="is no recording: it has no column head, layer"):
        read_flight(tmp_path)


def test_a_link_brings_the_threshold_back(open_page, recorded):
    page = open_page("training", recording="run", **{"threshold-sink_mass": 0.9})
    assert page.slider[0].value == 0.9
    assert page.dataframe[-1].value["arrival"].tolist() == [20]
    page.slider[0].set_value(0.25).run()
    assert page.query_params["threshold-sink_mass"] == "0.25"
    assert page.query_params["recording"] == "run"
    for nonsense in ("high", "nan", "7", "-1"):
        page = open_page("training", recording="run", **{"threshold-sink_mass": nonsense})
        assert page.slider[0].value == 0.5


def test_a_metric_without_a_number_has_no_threshold(open_page, recorded):
    for path in recorded.glob("*.parquet"):
        pandas.read_parquet(path).assign(value=float("nan")).to_parquet(path, index=False)
    page = open_page("training", recording="run")
    assert not page.exception
    assert len(page.slider) == 0
