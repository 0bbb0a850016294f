"""`attnscope capture`: what a model attends to, as trace files, or as a store of a dataset."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attnscope.app.commands.model_options import Device, Dtype, Revision, TrustRemoteCode
from attnscope.app.failures import CommandError, print_error

__all__ = ["capture"]

_MODEL = "A folder, a hub id, or `countdown`, the reasoner that comes with attnscope."
_DATASET = (
    "What to capture into a store: .jsonl, .parquet, .txt or pictures (a file or a folder), a "
    "folder that the library datasets saved, or a dataset's id. Items that the store holds are "
    "left out; errors are kept in it, and the exit code is 1."
)
_METRICS = "Keep the readings of these metrics, as in waad,fai, and no traces (of a dataset)."
_LINES = (
    "A .jsonl file: a text (and a response) or messages in each line, an id if you like. "
    "Bad lines are told, the rest goes on, and the exit code is 1."
)
_OUTPUT = (
    "Folder for the traces, named by id or number of line; for a text also a .safetensors file; "
    "of a dataset the store, a folder or an address as s3://bucket/runs."
)


class Gradient(StrEnum):
    """What gradients can be taken of."""

    LOSS = "loss"
    LOGIT = "logit"


class Engine(StrEnum):
    """Where a dataset can be worked on."""

    LOCAL = "local"
    RAY = "ray"


def capture(  # noqa: PLR0913 - one parameter per option
    model: Annotated[str, typer.Argument(help=_MODEL, show_default=False)],
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help=_DATASET, show_default=False)
    ] = None,
    *,
    output: Annotated[str, typer.Option("--output", "-o", help=_OUTPUT, show_default=False)],
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
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite trace files.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Hold each trace against the model's own slow attention."),
    ] = False,
    metrics: Annotated[str | None, typer.Option(help=_METRICS)] = None,
    split: Annotated[str, typer.Option(help="Which split of a dataset.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option(help="A tag of every item of a dataset; may be repeated.")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="Work on a dataset here, or on the actors of a Ray cluster.")
    ] = Engine.LOCAL,
    workers: Annotated[
        int, typer.Option(min=0, help="Actors; by default as many as there are GPUs, or cores / 2.")
    ] = 0,
) -> None:
    """Run a model over texts or pictures and keep what its attention did."""
    from attnscope.app.captures import CaptureRequest, capture_lines, capture_text, print_captured
    from attnscope.app.dataset_captures import DatasetRequest, capture_into_store
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
        verify=verify,
    )
    of_texts = (text, response, file, force or None)
    of_datasets = (metrics, split or None, tag, workers or None)
    _require_one_kind(dataset, of_texts, (*of_datasets, None if engine is Engine.LOCAL else engine))
    if dataset is not None:
        wanted = DatasetRequest(
            dataset=dataset,
            split=split,
            metrics=tuple(name.strip() for name in (metrics or "").split(",") if name.strip()),
            tags=tuple(tag or ()),
            uses_ray=engine is Engine.RAY,
            workers=workers,
        )
        raise typer.Exit(capture_into_store(choice, wanted, output, request))
    failed, folder = 0, Path(output)
    if text is not None and file is None:
        prompt = Prompt(name="1", inputs=text, response=response)
        captured = capture_text(choice, prompt, folder, request)
    elif file is not None and text is None and response is None:
        captured, failed = capture_lines(choice, file, folder, request)
    else:
        raise CommandError("give --text (and --response), --file, or a dataset; one of them")
    if captured:
        print_captured(captured)
    if failed:
        print_error(f"{failed} of {failed + len(captured)} lines failed")
        raise typer.Exit(1)


def _require_one_kind(
    dataset: str | None, of_texts: tuple[object, ...], of_datasets: tuple[object, ...]
) -> None:
    """Refuse options of a dataset without one, and options of texts beside one."""
    if dataset is not None and any(option is not None for option in of_texts):
        raise CommandError("a dataset goes with no --text, --response, --file or --force")
    if dataset is None and any(option is not None for option in of_datasets):
        raise CommandError("--metrics, --split, --tag, --engine and --workers go with a dataset")
