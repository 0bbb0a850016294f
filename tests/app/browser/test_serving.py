"""The command itself: it serves until it is told to stop, and leaves nothing behind."""

import socket
import subprocess
import sys
import time

from attnscope.app.server import free_port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_command_serves_until_it_is_stopped(tmp_path):
    port = free_port("127.0.0.1")
    words = ["app", str(tmp_path), "--host", "127.0.0.1", "--port", str(port), "--no-browser"]
    starts = "from attnscope.app.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", starts, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "the workbench is at" in line)
        assert f"http://127.0.0.1:{port}/" in said
        assert answers(port)
        process.terminate()
        assert process.wait(60) == 0
    end = time.monotonic() + 60
    while answers(port) and time.monotonic() < end:
        time.sleep(0.1)
    assert not answers(port)
