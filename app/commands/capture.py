"""`attnscope capture`: what a model attends to, as trace files."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attnscope.app.failures import CommandError, print_error

__all__ = ["capture"]

_MODEL = "A folder, a hub id, or `countdown`, the reasoner that comes with attnscope."
_LINES = (
    "A .jsonl file: a text (and a response) or messages in each line, an id if you like. "
    "Bad lines are told, the rest goes on, and the exit code is 1."
)
_OUTPUT = (
    "Folder for the traces, named by id or number of line; for a text also a .safetensors file."
)


class Gradient(StrEnum):
    """What gradients can be taken of."""

    LOSS = "loss"
    LOGIT = "logit"


def capture(  # noqa: PLR0913 - one parameter per option
    model: Annotated[str, typer.Argument(help=_MODEL, show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help=_OUTPUT, show_default=False)],
    text: Annotated[str | None, typer.Option(help="What the model is to read.")] = None,
    response: Annotated[
        str | None, typer.Option(help="The model's own words after the text.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help=_LINES)] = None,
    generate: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            show_default=False,
            help="Let the model answer first, with N tokens at most, where no response is given.",
        ),
    ] = 0,
    layers: Annotated[
        str | None, typer.Option(help="Layers to capture, as in 0,4-8,-1; by default all.")
    ] = None,
    gradient: Annotated[
        Gradient | None, typer.Option(help="Capture the gradient of this, too.")
    ] = None,
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Keep the hidden states of each layer, too.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type of the weights; by default the checkpoint's.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to run; by default a GPU where there is one.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite trace files.")] = False,
) -> None:
    """Run a model over text and keep what its attention did."""
    from attnscope.app.captures import CaptureRequest, capture_lines, capture_text, print_captured
    from attnscope.app.layers import parse_layers
    from attnscope.app.prompts import Prompt
    from attnscope.app.subjects import ModelChoice

    choice = ModelChoice(
        name=model,
        revision=revision,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    request = CaptureRequest(
        layers=None if layers is None else parse_layers(layers),
        gradient=None if gradient is None else gradient.value,
        hidden=hidden,
        generate=generate,
        force=force,
    )
    failed = 0
    if text is not None and file is None:
        prompt = Prompt(name="1", inputs=text, response=response)
        captured = capture_text(choice, prompt, output, request)
    elif file is not None and text is None and response is None:
        captured, failed = capture_lines(choice, file, output, request)
    else:
        raise CommandError("give --text (and --response), or --file; one of them")
    if captured:
        print_captured(captured)
    if failed:
        print_error(f"{failed} of {failed + len(captured)} lines failed")
        raise typer.Exit(1)
