"""Sections of Markdown pages that commands write, with the machine that they ran on."""

import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["PROBES_PAGE", "RESULTS", "machine", "write_section"]

RESULTS = Path(__file__).with_name("RESULTS.md")
PROBES_PAGE = Path(__file__).parents[1] / "probes" / "README.md"


def machine() -> str:
    """Return one line on the machine and the libraries."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else names[0]
        if names
        else platform.machine()
    )
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return f"{device}, {torch.get_num_threads()} threads, {libraries}, {date.today().isoformat()}"


def write_section(name: str, text: str, page: Path = RESULTS) -> None:
    """Put a text between the markers of a section of a page, and print it.

    Raises:
        ValueError: The page has no such section.
    """
    whole = page.read_text()
    start, stop = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if start not in whole or stop not in whole:
        raise ValueError(f"{page.name} has no section between {start.strip()} and {stop}")
    before, _, rest = whole.partition(start)
    after = rest.partition(stop)[2]
    temporary = page.with_suffix(".partial")
    temporary.write_text(f"{before}{start}{text}\n\n({machine()})\n{stop}{after}")
    temporary.replace(page)
    print(text)
