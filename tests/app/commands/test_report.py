import pytest

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_page_and_figures_are_written_and_named(run, trace_file, tmp_path):
    page, folder = tmp_path / "new" / "page.html", tmp_path / "figures"
    result = run("report", trace_file, "-o", page, "--figures", folder, "--title", "A <title>")
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "A &lt;title&gt;" in text
    pictures = list(folder.iterdir())
    assert len(pictures) > 3
    assert all(picture.read_bytes().startswith(PNG) for picture in pictures)
    told = result.stdout.split("written:")[1].split()
    assert set(told) == {str(path) for path in (page, *pictures)}


@pytest.mark.parametrize("name", ["page.html", "figures/old.png"])
def test_what_is_there_stays_unless_forced(run, trace_file, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    words = ("-o", tmp_path / "page.html", "--figures", tmp_path / "figures")
    result = run("report", trace_file, *words)
    assert result.exit_code == 2
    assert result.stderr == f"error: {path} exists; --force overwrites it\n"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_an_unknown_stack_is_told(run, trace_file, tmp_path):
    result = run("report", trace_file, "-o", tmp_path / "page.html", "--stack", "vision")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "vision" in result.stderr
    assert not (tmp_path / "page.html").exists()
