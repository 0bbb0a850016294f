import pandas
import torch

from attnscope.app.downloads import csv_of, html_of, image_of
from attnscope.app.markdown_text import as_text
from attnscope.figures import head_grid, token_ribbon
from attnscope.metrics import Reading

GRID = head_grid(Reading(name="n", values=torch.rand(2, 3), axes=("layer", "head")))
RIBBON = token_ribbon(
    Reading(
        name="n",
        values=torch.tensor([0.1, 0.2]),
        axes=("query",),
        coordinates={"query": ("<b>", "two")},
    )
)


def test_pictures_become_files_of_every_kind():
    for picture in (GRID, RIBBON):
        assert image_of(picture, "png").startswith(b"\x89PNG")
        assert b"<svg" in image_of(picture, "svg")


def test_pages_hold_all_they_need():
    page = html_of(RIBBON, "a <title>").decode()
    assert "&lt;b&gt;" in page
    assert "a &lt;title&gt;" in page
    assert "<script" not in page
    assert b'src="http' not in html_of(GRID, "grid")


def test_tables_are_not_rounded():
    number = 0.1 + 0.2
    assert float(csv_of(pandas.DataFrame({"x": [number]})).decode().split()[1]) == number


def test_untrusted_text_is_not_read_as_markdown():
    text = "![x](http://y) **b** :red[c] $d$ `e` <i>"
    assert as_text(text).replace("\\", "") == text
    assert "](" not in as_text(text)
    assert "$d$" not in as_text(text)
