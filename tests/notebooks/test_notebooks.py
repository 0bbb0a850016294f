import re
from pathlib import Path

import nbformat
import pytest

from notebooks.execute import NOTEBOOKS, clean, execute

ROOT = Path(__file__).parents[2]
LARGEST = 1_500_000  # bytes
EVERY = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def printed(notebook):
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def forms(notebook):
    """Return what each output is: a stream by its name, anything else by its mime types."""
    return [sorted(output.get("data", {})) or output.get("name") for output in outputs(notebook)]


@pytest.fixture
def kept(path):
    return nbformat.read(path, as_version=4)


# --- as they are kept ---------------------------------------------------------------------------


def test_the_notebooks_are_numbered_in_reading_order():
    assert [path.name[:3] for path in NOTEBOOKS] == sorted({path.name[:3] for path in NOTEBOOKS})
    assert len(NOTEBOOKS) == len(list((ROOT / "notebooks").glob("*.ipynb")))


@EVERY
def test_a_kept_notebook_is_valid_clean_and_small(path, kept):
    nbformat.validate(kept)
    assert clean(kept) == kept
    assert path.stat().st_size < LARGEST


@EVERY
def test_every_cell_of_a_kept_notebook_was_run_in_order_without_complaint(path, kept):
    counts = [cell.execution_count for cell in kept.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert "error" not in {output.output_type for output in outputs(kept)}
    assert "stderr" not in {output.get("name") for output in outputs(kept)}


@EVERY
def test_a_kept_notebook_shows_pictures_where_nothing_runs(path, kept):
    assert any("image/png" in output.get("data", {}) for output in outputs(kept))
    for output in outputs(kept):
        data = output.get("data", {})
        assert "application/vnd.plotly.v1+json" not in data or "image/png" in data
        assert "<script" not in data.get("text/html", "")


@EVERY
def test_a_kept_notebook_names_no_private_path(path):
    text = path.read_text(encoding="utf-8")
    assert [word for word in ("/" + "tmp/", "/home/", "/root/", str(ROOT)) if word in text] == []


@EVERY
def test_the_links_of_a_notebook_lead_somewhere(path, kept):
    words = "\n".join(cell.source for cell in kept.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", words) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


# --- as they run --------------------------------------------------------------------------------


def below(limit):
    return lambda number: float(number.replace(",", "")) < limit


FOUND = {
    "01": (r"6 layers, largest difference (\S+)", below(1e-4)),
    "05": (r"largest difference (\S+) of the largest value", below(1e-3)),
    "08": (r"the whole process, at most: (\S+) MB", below(2_000)),
    "09": (r"(Homemade\S*)", bool),
}
"""What a run must print, and what must hold of it, by the notebook's number."""


@EVERY
def test_a_notebook_runs_and_gives_the_kinds_of_outputs_that_are_kept(path, kept):
    fresh = execute(path)
    assert forms(fresh) == forms(kept)
    if path.name[:2] in FOUND:
        pattern, holds = FOUND[path.name[:2]]
        found = re.search(pattern, printed(fresh))
        assert found is not None
        assert holds(found.group(1)), found.group(0)


def test_running_leaves_the_kept_notebook_as_it_was(tmp_path):
    path = tmp_path / "00_short.ipynb"
    cells = [nbformat.v4.new_code_cell("from pathlib import Path\nPath('left.txt').touch()\n1 + 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    before = path.read_bytes()
    fresh = execute(path)
    assert fresh.cells[0].outputs[0].data["text/plain"] == "2"
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["00_short.ipynb"]


def test_cleaning_keeps_the_picture_and_drops_what_differs_between_machines():
    data = {"text/html": "<b>text</b>", "image/png": "AAAA", "text/plain": "text"}
    output = nbformat.v4.new_output("execute_result", data, metadata={"width": 3})
    cell = nbformat.v4.new_code_cell("text", outputs=[output], metadata={"execution": {"at": "9"}})
    version = {"language_info": {"name": "python", "version": "3.11.7"}}
    cleaned = clean(nbformat.v4.new_notebook(cells=[cell], metadata=version))
    assert cleaned.metadata.language_info == {"name": "python"}
    assert cleaned.cells[0].id == "cell-01"
    assert cleaned.cells[0].metadata == {}
    assert cleaned.cells[0].outputs[0].metadata == {}
    assert set(cleaned.cells[0].outputs[0].data) == {"image/png", "text/plain"}
