"""One server of the workbench, one browser, and pages that must not complain."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attnscope.app.server import Serving, command_of, environment_of, free_port

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 120_000
"""Milliseconds: the first page of a server imports torch, on a machine that may be busy."""

# Before streamlit finds where it is served, it asks below the page's own address.
HARMLESS = ("/_stcore/health", "/_stcore/host-config")


@dataclass(frozen=True, slots=True)
class Server:
    """A running workbench: where it is, its store, and its process."""

    url: str
    store: Path
    process: subprocess.Popen


@dataclass(slots=True)
class Tab:
    """A page of the browser, and what it complained of."""

    page: "Page"
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, address: str, title: str) -> "Page":
        """Go to an address, and wait until its page is drawn."""
        self.page.goto(f"{self.url}/{address}")
        self.settle(title)
        return self.page

    def settle(self, title: str) -> None:
        """Wait until a page stands there and the script has ended."""
        self.page.get_by_role("heading", name=title, exact=True).wait_for(timeout=PATIENCE)
        self.wait()

    def wait(self) -> None:
        """Wait until the script has ended."""
        from playwright.sync_api import expect

        self.page.wait_for_timeout(300)
        running = self.page.get_by_test_id("stStatusWidget")
        expect(running).to_have_count(0, timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser_store(run, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three answered traces."""
    folder = tmp_path_factory.mktemp("browser-store")
    for name, times in {"a": 4, "b": 3, "c": 2}.items():
        response = "three four five six seven one two " * times
        path = folder / f"{name}.safetensors"
        words = ("--text", "zero one two", "--response", response, "-o", path)
        result = run("capture", model_folder, *words)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def server(browser_store: Path, model_folder: Path) -> Iterator[Server]:
    """Return a workbench on a free port of this machine."""
    port = free_port("127.0.0.1")
    serving = Serving(
        store=browser_store, models=(str(model_folder),), host="127.0.0.1", port=port, details=True
    )
    environment = {**os.environ, **environment_of(serving), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command_of(serving), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(url)
            yield Server(url, browser_store, process)
        finally:
            process.terminate()


def wait_for(url: str) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"no server at {url}")


@pytest.fixture(scope="session")
def browser() -> Iterator["BrowserContext"]:
    """Return one profile of the system's Chromium, which loads the app's scripts once."""
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    driver = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is missing")
    driver.expect.set_options(timeout=PATIENCE / 2)
    with driver.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened.new_context(viewport={"width": 1280, "height": 1600})
        opened.close()


@pytest.fixture
def tab(
    browser: "BrowserContext",
    server: Server,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tab]:
    """Return a fresh page; it fails its test if the console or an exception complains."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    own = Tab(page, server.url)
    page.on("pageerror", lambda error: own.complaints.append(str(error)))
    page.on("console", lambda message: complain(own, message))
    yield own
    if request.node.stash.get(FAILED, False):
        folder = Path(os.environ.get("SCREENSHOTS", tmp_path_factory.mktemp("screenshots")))
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{request.node.name}.png", full_page=True)
    exceptions = page.get_by_test_id("stException").count()
    page.close()
    assert not own.complaints
    assert not exceptions


def complain(tab: Tab, message: "ConsoleMessage") -> None:
    """Keep an error of the console, unless it is one of streamlit's own questions."""
    where = message.location.get("url", "")
    if message.type == "error" and not where.endswith(HARMLESS):
        tab.complaints.append(f"{message.text} ({where})")


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Remember whether a test failed, for the picture of its page."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
