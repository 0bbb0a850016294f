"""`attnscope demo`: the shipped reasoner at work, captured, measured and drawn."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report, figures and traces.")
    ] = Path("demo"),
    problems: Annotated[
        int, typer.Option(min=1, max=100, help="How many problems the model is to solve.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Which problems.")] = 4,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of a demo.")] = False,
) -> None:
    """Watch a small reasoner solve arithmetic puzzles that it was not trained on."""
    from attnscope.app.demonstration import demonstrate

    demonstrate(output, count=problems, seed=seed, force=force)
