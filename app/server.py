"""`serve`: the workbench as a server of this machine, until it is stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from attnscope.app.failures import CommandError

__all__ = [
    "DEFAULT_STORE",
    "MODELS",
    "STORE",
    "Serving",
    "command_of",
    "environment_of",
    "free_port",
    "serve",
    "url_of",
]

STORE = "ATTNSCOPE_STORE"
"""The environment variable that names the store of a server."""

DEFAULT_STORE = Path("captures")
"""The store where none is named: where `attnscope capture` writes."""

MODELS = "ATTNSCOPE_MODELS"
"""The environment variable that names the models that may be captured live, as a JSON list."""

_PORT = 8501
_PATIENCE = 120.0
_LARGEST_UPLOAD = 1024
_SETTINGS = {
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "runner.magicEnabled": "false",
    "server.fileWatcherType": "none",
    "server.headless": "true",
    "server.maxUploadSize": str(_LARGEST_UPLOAD),
    "theme.dark.primaryColor": "#2fbfa7",
    "theme.light.primaryColor": "#177f6e",
    "theme.paddingTop": "1.5rem",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What is to be served, and where.

    Attributes:
        store: The folder of the traces.
        trace: The name in the store of the trace to open first; empty for none.
        models: Models that may be captured live besides the shipped ones.
        host: The address to listen at; `localhost` is heard by this machine alone.
        port: The port.
        opens: Open a browser.
        details: Show the tracebacks of unexpected errors in the page.
    """

    store: Path
    trace: str = ""
    models: tuple[str, ...] = ()
    host: str = "localhost"
    port: int = _PORT
    opens: bool = True
    details: bool = False


def serve(serving: Serving) -> int:
    """Serve the workbench until it is stopped, and return the server's exit code.

    Raises:
        CommandError: streamlit is not installed, or the server does not come up.
    """
    _require_streamlit()
    environment = {**os.environ, **environment_of(serving)}
    before = signal.signal(signal.SIGTERM, _stop)  # or the server would outlive us
    process = subprocess.Popen(command_of(serving), env=environment)  # noqa: S603 - our own words
    try:
        _wait_for(serving, process)
        sys.stderr.write(f"the workbench is at {url_of(serving)} (Ctrl-C stops it)\n")
        if serving.opens:
            webbrowser.open(url_of(serving))
        return process.wait()
    except KeyboardInterrupt:  # the way in which it is meant to end
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
        process.terminate()
        process.wait()


def command_of(serving: Serving) -> list[str]:
    """Return the command that starts the server."""
    script = str(files("attnscope.app").joinpath("entry/script.py"))
    settings = {
        **_SETTINGS,
        "client.showErrorDetails": "full" if serving.details else "none",
        "server.address": serving.host,
        "server.port": str(serving.port),
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "streamlit", "run", script, *options]


def environment_of(serving: Serving) -> Mapping[str, str]:
    """Return what the server is told by its environment: the store and the models."""
    return {STORE: str(serving.store.resolve()), MODELS: json.dumps(serving.models)}


def url_of(serving: Serving) -> str:
    """Return where a browser finds the first page.

    Example:
        >>> url_of(Serving(store=Path(), trace="a b.safetensors", port=80))
        'http://localhost:80/rhythm?trace=a%20b.safetensors'
    """
    page = f"rhythm?trace={urllib.parse.quote(serving.trace)}" if serving.trace else ""
    return f"http://{serving.host}:{serving.port}/{page}"


def free_port(host: str) -> int:
    """Return the usual port, or another one where that is taken."""
    for port in (_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise CommandError(f"there is no free port at {host!r}")


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _wait_for(serving: Serving, process: subprocess.Popen) -> None:
    """Wait until the server answers.

    Raises:
        CommandError: It ended, or never answered.
    """
    health = f"http://{serving.host}:{serving.port}/_stcore/health"
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise CommandError(f"the server ended at once, with code {process.returncode}")
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except OSError:  # not yet
            time.sleep(0.2)
    raise CommandError(f"the server did not answer within {_PATIENCE:.0f} s")


def _require_streamlit() -> None:
    from importlib.util import find_spec

    if find_spec("streamlit") is None:
        raise CommandError(
            "the workbench needs streamlit, which is not installed: pip install attnscope[app]"
        )
