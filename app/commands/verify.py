"""`attnscope verify`: hold a trace against the model's own slow attention."""

from pathlib import Path
from typing import Annotated

import typer

from attnscope.app.commands.model_options import Device, Revision, TrustRemoteCode

__all__ = ["verify"]

_MODEL = (
    "A folder, a hub id, or `countdown`; by default the model and revision that the trace names."
)


def verify(  # noqa: PLR0913 - one parameter per option
    trace: Annotated[Path, typer.Argument(help="A trace file.", show_default=False)],
    model: Annotated[str | None, typer.Option(help=_MODEL, show_default=False)] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to compare, as in 0,4-8,-1; by default all.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each map that are compared.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Draws the rows.")] = 0,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="A picture that the model saw: no trace holds pixels; may be repeated."),
    ] = None,
    revision: Revision = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type of the weights; by default the trace's.")
    ] = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run the model again by its own slow attention and compare; the exit code is 1 if they differ.

    Weights, row sums and outputs of sampled rows of every head are compared, and tokens, segments,
    the order of the layers and the fingerprint of the weights.
    """
    from attnscope.app.layers import parse_layers
    from attnscope.app.subjects import ModelChoice
    from attnscope.app.verifications import VerifyRequest, print_verification, verify_file

    request = VerifyRequest(
        layers=None if layers is None else parse_layers(layers),
        rows=rows,
        seed=seed,
        images=tuple(image or ()),
    )
    choice = ModelChoice(
        name=model or "",
        revision=revision,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    verification = verify_file(trace, choice, request)
    print_verification(verification)
    if not verification.passed:
        raise typer.Exit(1)
