"""Run the notebooks from top to bottom and keep them with their outputs.

`python -m notebooks.execute` (or `make notebooks`) runs all of them in order; names run some.
"""

import os
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import nbformat
import typer
from nbclient import NotebookClient

from attnscope.traces import replacement

__all__ = ["NOTEBOOKS", "clean", "execute"]

NOTEBOOKS = tuple(sorted(Path(__file__).parent.glob("[0-9][0-9]_*.ipynb")))
"""The notebooks, in the order in which they are read."""

_LONGEST_CELL = 300
_SURROUNDINGS = {
    # Whoever runs this may draw for no screen at all; a notebook shows its pictures.
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    # A progress bar redraws itself: in a file each of its states would be kept.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",
}
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a fresh run, clean.

    It runs in an empty folder of its own, which is removed afterwards.

    Raises:
        CellExecutionError: A cell raised an error.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=_LONGEST_CELL,
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": folder}},
        )
        client.execute(env={**os.environ, **_SURROUNDINGS})
    return clean(notebook)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook without what differs from one machine or run to the next.

    Where an output is both markup and a picture, the picture is kept: pages that show notebooks
    drop the colors of markup.
    """
    cleaned = deepcopy(notebook)
    cleaned.metadata = nbformat.NotebookNode(deepcopy(_METADATA))
    for number, cell in enumerate(cleaned.cells, start=1):
        cell.metadata = {}
        cell.id = f"cell-{number:02}"
        for output in cell.get("outputs", ()):
            output.pop("metadata", None)
            if output.output_type in ("display_data", "execute_result"):
                output.metadata = {}
                _keep_picture(output.data)
    return cleaned


def _keep_picture(data: dict[str, Any]) -> None:
    if "image/png" in data:
        data.pop("text/html", None)


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Beginnings of names, as 02.")] = None,
) -> None:
    """Run notebooks in order and write each back, whole or not at all."""
    chosen = [path for path in NOTEBOOKS if path.name.startswith(tuple(names or [""]))]
    if not chosen:
        raise typer.BadParameter(f"no notebook begins so; there are {[p.stem for p in NOTEBOOKS]}")
    for path in chosen:
        typer.echo(path.name)
        executed = execute(path)
        with replacement(path) as stream:
            stream.write((nbformat.writes(executed).rstrip("\n") + "\n").encode("utf-8"))


if __name__ == "__main__":
    typer.run(main)
