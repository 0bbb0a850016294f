"""The shape of the house: folders, packaging and file sizes agree with each other."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = sorted(
    path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "benchmarks"
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_links_only_include_and_sources_are_the_code_folders():
    links = sorted(path.name for path in (ROOT / "src/attnscope").iterdir() if path.is_symlink())
    build = PROJECT["tool"]["hatch"]["build"]
    included = sorted(path for path in build["only-include"] if "/" not in path)
    sources = {
        name: target
        for name, target in build["targets"]["wheel"]["sources"].items()
        if "/" not in name
    }
    assert links == CODE
    assert included == CODE
    assert sources == {name: f"attnscope/{name}" for name in CODE}


def test_every_link_is_relative_and_leads_to_its_folder():
    for name in CODE:
        assert (ROOT / "src/attnscope" / name).readlink() == Path("../..") / name


@pytest.mark.parametrize("folder", [*CODE, "benchmarks"])
def test_no_file_exceeds_300_lines(folder):
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: size for path, size in sizes.items() if size > 300} == {}


def test_no_file_bears_the_name_of_a_public_function():
    import attnscope.attention
    import attnscope.figures
    import attnscope.interventions
    import attnscope.metrics
    import attnscope.probes
    import attnscope.traces

    for package in (
        attnscope.attention,
        attnscope.figures,
        attnscope.interventions,
        attnscope.metrics,
        attnscope.probes,
        attnscope.traces,
    ):
        files = {path.stem for path in Path(package.__path__[0]).glob("*.py")}
        functions = {
            name for name in package.__all__ if callable(getattr(package, name)) and name.islower()
        }
        assert not files & functions, package.__name__


def test_public_names_are_sorted():
    for path in ROOT.glob("*/__init__.py"):
        text = path.read_text()
        if "__all__" in text:
            names = (
                text.split("__all__ = [")[1]
                .split("]")[0]
                .replace('"', "")
                .replace(",", " ")
                .split()
            )
            assert names == sorted(
                names, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
            ), path


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "attnscope",
            "transformers matplotlib plotly streamlit pandas timm captum transformer_lens",
        ),
        ("attnscope.app.main", "transformers matplotlib plotly streamlit"),
        ("attnscope.models.subjects.countdown", "transformers matplotlib plotly"),
        ("attnscope.figures", "transformers streamlit"),
    ],
)
def test_importing_stays_light(module, heavy):
    code = (
        f"import sys, {module}; print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_private_choice_of_words_stays_out_of_the_tree():
    """No absolute path of a developer's machine, and no registry's host."""
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    texts = [
        ROOT / name for name in files if name.endswith((".py", ".md", ".toml", ".txt", "Makefile"))
    ]
    forbidden = ("/" + "work/", "/" + "tmp/w", "pypi" + ".org", "python" + "hosted")
    assert [
        str(path)
        for path in texts
        if path.is_file() and any(word in path.read_text() for word in forbidden)
    ] == []
