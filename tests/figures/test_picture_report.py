"""The page of pictures: every answer with its numbers, and nothing that steers the page."""

import base64
import json
import re

import pytest
import torch
from PIL import Image

from attnscope.figures import (
    AnsweredPicture,
    FigureError,
    PictureAnswer,
    TextTable,
    write_picture_report,
)

CELLS = torch.tensor([[[0.1, 0.2], [0.0, 0.4]], [[0.0, 0.0], [0.0, 0.0]]])


@pytest.fixture
def page(tmp_path):
    answer = PictureAnswer(
        tokens=("a", "<b>ring</b>"),
        cells=CELLS,
        measures={"reliance": torch.tensor([0.5, float("nan")])},
        made_up=frozenset({1}),
    )
    shown = AnsweredPicture(
        name="one & only", picture=Image.new("RGB", (8, 8), "red"), answers={"plain": answer}
    )
    table = TextTable(title="scores", columns=("", ">value"), rows=[("x", "1")])
    path = write_picture_report(
        tmp_path / "page.html", "Title", facts=[("model", "m")], tables=[table], pictures=[shown]
    )
    return path.read_text()


def data_of(page: str) -> dict:
    return json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page)[0])


def test_cells_are_relative_to_the_brightest_patch_of_their_token(page: str) -> None:
    data = data_of(page)
    assert data["grid"] == [2, 2]
    assert data["peaks"] == [0.4, 0.0]
    assert list(base64.b64decode(data["cells"])) == [64, 128, 0, 255, 0, 0, 0, 0]


def test_a_number_that_is_not_defined_is_none(page: str) -> None:
    assert data_of(page)["measures"] == {"reliance": [0.5, None]}


def test_words_are_text_and_made_up_ones_are_marked_in_words_too(page: str) -> None:
    assert "<b>ring" not in page
    assert 'made-up" title="not in the picture">&lt;b&gt;ring' in page
    assert "one &amp; only" in page


def test_it_loads_nothing(page: str) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=\"(?!data:image|#)", page)


def test_numbers_that_are_not_one_per_token_are_refused() -> None:
    with pytest.raises(FigureError, match="2 tokens, of which x has 1"):
        PictureAnswer(tokens=("a", "b"), cells=None, measures={"x": torch.zeros(1)})


def test_an_answer_without_a_grid_has_no_cells(tmp_path) -> None:
    answer = PictureAnswer(tokens=("a",), cells=None, measures={})
    shown = AnsweredPicture(name="x", picture=Image.new("RGB", (300, 200)), answers={"p": answer})
    page = write_picture_report(tmp_path / "p.html", "T", facts=[], pictures=[shown]).read_text()
    assert "grid" not in data_of(page)
    assert "data:image/jpeg" in page
