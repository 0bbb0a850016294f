import json
import socket

import pytest

from attnscope.app import server
from attnscope.app.server import MODELS, STORE, Serving, command_of, environment_of, free_port


@pytest.fixture
def served(monkeypatch):
    """Return what would have been served."""
    found: list[Serving] = []

    def serve(serving: Serving) -> int:
        found.append(serving)
        return 0

    monkeypatch.setattr(server, "serve", serve)
    return found


def test_a_folder_is_a_store(run, served, tmp_path):
    assert run("app", tmp_path, "--no-browser").exit_code == 0
    (serving,) = served
    assert (serving.store, serving.trace, serving.models) == (tmp_path, "", ())
    assert serving.host == "localhost"
    assert not serving.opens


def test_a_trace_is_opened_among_its_neighbors(run, served, trace_file):
    assert run("app", trace_file).exit_code == 0
    assert served[0].store == trace_file.parent
    assert server.url_of(served[0]).endswith(f"/rhythm?trace={trace_file.name}")


def test_a_model_is_offered_for_capture(run, served, model_folder):
    assert run("app", model_folder, "--model", "some/other").exit_code == 0
    assert served[0].models == (str(model_folder), "some/other")
    assert json.loads(environment_of(served[0])[MODELS]) == [str(model_folder), "some/other"]
    assert run("app", "countdown").exit_code == 0
    assert served[1].models == ()


def test_what_is_not_there_is_refused_before_a_server_starts(run, served, tmp_path):
    for what in (tmp_path / "none", "run.safetensors", "./none"):
        result = run("app", what)
        assert result.exit_code == 2
        assert "give a folder of traces" in result.stderr
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(b"noise")
    assert run("app", noise).exit_code == 2
    assert not served


def test_other_hosts_are_warned_of(run, served, tmp_path):
    result = run("app", tmp_path, "--host", "0.0.0.0")  # noqa: S104 - nothing is bound
    assert "can read and delete" in result.stderr
    assert "can read" not in run("app", tmp_path).stderr


def test_the_server_is_told_its_place_and_store(tmp_path):
    serving = Serving(store=tmp_path, host="127.0.0.1", port=9)
    command = command_of(serving)
    assert "--server.address=127.0.0.1" in command
    assert "--server.port=9" in command
    assert "--browser.gatherUsageStats=false" in command
    assert "--client.showErrorDetails=none" in command
    assert environment_of(serving)[STORE] == str(tmp_path.resolve())


def test_a_taken_port_is_not_free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert free_port("127.0.0.1") != taken.getsockname()[1]
