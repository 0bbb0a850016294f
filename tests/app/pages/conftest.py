"""A store of small traces, and a way to open a page on it without a browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.server import MODELS, STORE

FIRST = "zero one two", "three four five six seven one two " * 4
SECOND = "zero one two", "three four six five seven one two " * 3

Opened = Callable[..., AppTest]


@pytest.fixture(scope="session")
def store(run, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two answered traces, one without a response, and a file that is none."""
    folder = tmp_path_factory.mktemp("store")
    for name, (text, response) in {"a": FIRST, "b": SECOND}.items():
        path = folder / f"{name}.safetensors"
        result = run("capture", model_folder, "--text", text, "--response", response, "-o", path)
        assert result.exit_code == 0, result.output
    plain = folder / "older" / "plain.safetensors"
    result = run("capture", model_folder, "--text", "six seven one", "-o", plain)
    assert result.exit_code == 0, result.output
    (folder / "weights.safetensors").write_bytes(b"no trace at all")
    return folder


@pytest.fixture
def open_page(store: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Return what runs a page at an address: `open_page("heads", trace="a.safetensors")`."""

    def opened(page: str, at: Path = store, models: str = "[]", **address: object) -> AppTest:
        monkeypatch.setenv(STORE, str(at))
        monkeypatch.setenv(MODELS, models)
        script = f"from attnscope.app.workbench import showing\nshowing({page!r})()"
        test = AppTest.from_string(script, default_timeout=60)
        for name, value in address.items():
            test.query_params[name] = str(value)
        test.run()
        assert not test.exception, test.exception
        return test

    return opened
