import io
import sys
import time

import pytest

from attnscope.app.progress import watched


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("count", [0, 1, 3])
def test_items_come_in_order_and_nothing_is_shown_off_a_terminal(capsys, count):
    assert list(watched(list(range(count)), "doing")) == list(range(count))
    shown = capsys.readouterr()
    assert not shown.out + shown.err


def test_a_terminal_sees_how_far_it_is_how_fast_and_how_long_it_takes(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    for _ in watched([1, 2, 3], "doing"):
        time.sleep(0.15)
    text = terminal.getvalue()
    assert "doing" in text
    assert "3/3" in text
    assert "/s" in text
    assert "0:00:00" in text
