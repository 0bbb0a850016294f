"""The options with which commands that load a model say which one, in which type, and where."""

from typing import Annotated

import typer

__all__ = ["Device", "Dtype", "Revision", "TrustRemoteCode"]

Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Dtype = Annotated[
    str | None, typer.Option(help="Type of the weights; by default the checkpoint's.")
]
Device = Annotated[
    str | None, typer.Option(help="Where to run; by default a GPU where there is one.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
]
