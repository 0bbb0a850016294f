import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from plotly.offline import get_plotlyjs

from attnscope.attention import SoftmaxAttention
from attnscope.figures import FigureError, TracePictures, save_figures, write_report
from attnscope.metrics import measure
from attnscope.traces import Observation, Trace, TraceError, open_trace, reduce

VOID = {"br", "meta"}


class Page(HTMLParser):
    """What a browser would load, and whether elements close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        self.loads += [tag] if tag in ("link", "iframe", "img", "object", "base") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    write_report(trace, place / "report.html")
    return place


@pytest.fixture(scope="module")
def written(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def figures_of(page: str) -> list[dict]:
    found = re.findall(r'<script type="application/json" class="figure">(.*?)</script>', page)
    return [json.loads(text) for text in found]


def test_a_report_is_one_file_that_loads_nothing(written: str, folder: Path) -> None:
    page = Page()
    page.feed(written)
    assert page.open == []
    assert all(target.startswith("#") for target in page.loads)
    own = written.replace(get_plotlyjs(), "")
    assert not re.search(r"https?:|url\(|@import|//cdn", own)
    assert "default-src 'none'" in own
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_plotly_is_inlined_exactly_once(written: str) -> None:
    assert written.count(get_plotlyjs()) == 1


def test_no_token_and_no_name_is_markup(written: str, attack: str) -> None:
    own = written.replace(get_plotlyjs(), "")
    assert attack not in own
    assert "alert(1)" in own  # it is there, as text
    assert "<model>" not in own
    assert "<why>" not in own
    for figure in figures_of(written):
        texts = re.findall(r'"((?:[^"\\]|\\.)*)"', json.dumps(figure["data"]))
        assert not any("<script" in text or "<b>" in text for text in texts)


def test_every_part_is_there(written: str) -> None:
    for anchor in ("overview", "text", "rhythm", "heads", "maps", "numbers"):
        assert f'<section id="{anchor}">' in written
        assert f'<a href="#{anchor}">' in written
    assert written.count('<figure class="attnscope-ribbon">') == 2
    assert len(figures_of(written)) == 7  # rhythm, three grids, scatter, two maps
    assert "Top preplan tokens" in written
    assert "Top anchor tokens" in written
    assert "arXiv:2510.13554" in written
    assert "prefers-color-scheme: dark" in written


def test_the_figures_are_those_of_the_trace(written: str) -> None:
    rhythm = figures_of(written)[0]
    labels = rhythm["data"][0]["x"]
    assert len(labels) == 24
    assert labels[0] == "8 Add"
    assert not rhythm["layout"].get("title")


def test_a_stored_trace_gives_the_same_report(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "trace.safetensors")
    stored = open_trace(tmp_path / "trace.safetensors")
    held, read = TracePictures.of(trace), TracePictures.of(stored)
    assert held.marks == read.marks
    for name, reading in held.readings.items():
        torch.testing.assert_close(read.readings[name].values, reading.values, equal_nan=True)
    write_report(stored, tmp_path / "report.html")


def test_what_is_not_defined_is_said_and_the_rest_is_shown(trace: Trace, tmp_path: Path) -> None:
    def both_ways(observation: Observation) -> Observation:
        attention = observation.attention
        assert isinstance(attention, SoftmaxAttention)
        free = SoftmaxAttention(attention.query, attention.key, causal=False)
        return replace(observation, attention=free)

    other = replace(trace, observations=[both_ways(each) for each in trace.observations])
    page = write_report(other, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not shown." in page
    assert "causal attention" in page
    assert "Mean attention distance" in page
    assert len(figures_of(page)) == 6  # without the rhythm
    names = [path.name for path in save_figures(other, tmp_path / "pictures", dpi=40)]
    assert "rhythm.png" not in names
    assert "grid_mean_distance.png" in names


def test_a_trace_of_one_head_is_still_reported(trace: Trace, tmp_path: Path) -> None:
    first = trace.select(layers=0).observations[0]
    single = replace(first, attention=first.attention.select_heads([1]))
    page = write_report(replace(trace, observations=[single]), tmp_path / "report.html")
    assert "most local head" in page.read_text(encoding="utf-8")


def test_an_unknown_stack_is_refused(trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no stack 'decoder'"):
        write_report(trace, tmp_path / "report.html", stack="decoder")
    assert not list(tmp_path.iterdir())


def test_the_title_can_be_given(trace: Trace, tmp_path: Path) -> None:
    page = write_report(trace, tmp_path / "report.html", title="A & B").read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in page


def test_pictures_for_paper_are_complete_files(trace: Trace, tmp_path: Path) -> None:
    paths = save_figures(trace, tmp_path / "new" / "pictures", dpi=30)
    assert len(paths) == 9
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert {path.name for path in (tmp_path / "new" / "pictures").iterdir()} == {
        path.name for path in paths
    }


def test_a_trace_is_only_read(trace: Trace, tmp_path: Path) -> None:
    before = [each.attention.rows([31]).clone() for each in trace.observations]
    write_report(trace, tmp_path / "report.html")
    for each, rows in zip(trace.observations, before, strict=True):
        torch.testing.assert_close(each.attention.rows([31]), rows)


def test_a_trace_of_readings_alone_shows_its_readings(trace: Trace, tmp_path: Path) -> None:
    names = ("head_span", "entropy", "local_waad")
    kept = reduce(trace, readings=[measure(trace, name) for name in names], readings_only=True)
    kept.save(tmp_path / "kept.safetensors")
    kept = open_trace(tmp_path / "kept.safetensors")
    written = write_report(kept, tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(written)
    assert page.open == []
    assert len(figures_of(written)) == 2
    assert "keeps readings, and no attention" in written
    assert "Mean over every query" in written
    pictures = save_figures(kept, tmp_path / "figures")
    found = [path.name for path in pictures]
    assert found == ["grid_head_span.png", "grid_entropy.png", "ribbon_local_waad.png"]


def test_a_trace_of_nothing_is_refused(trace: Trace, tmp_path: Path) -> None:
    empty = replace(trace, observations=[], readings={})
    with pytest.raises(FigureError, match="neither attention nor readings"):
        write_report(empty, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(FigureError, match="neither attention nor readings"):
        save_figures(empty, tmp_path / "figures")
