"""`attnscope hallucination`: what a model makes up of pictures, with and without methods."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnscope.app.commands.model_options import Device, Dtype, Revision, TrustRemoteCode
from attnscope.app.failures import CommandError, print_error

if TYPE_CHECKING:
    from attnscope.app.pictured_items import PicturedItem

__all__ = ["hallucination"]

_MODEL = "A folder, a hub id, or `glimpse`, the small vision-language model of attnscope."
_DATASET = (
    "A .jsonl file: in each line an image (its path, from the file's folder) and, where known, "
    "objects (names) and questions (text, and the answer yes or no)."
)
_SCENES = "Held-out scenes of glimpse with all that is in them, in place of files."
_METHOD = (
    "vhr, locore, var, paint, agla or sgrs, or several joined by +, as in locore+sgrs; "
    "may be repeated."
)
_SET = "An option of a method, as in vhr.alpha=3; may be repeated."
_ANNOTATIONS = (
    "COCO's instance annotations (.json), which tell what is in the pictures of --images."
)
_SYNONYMS = "Names of objects, an object a line, split by commas; by default their own names."


def hallucination(  # noqa: PLR0913 - one parameter per option
    model: Annotated[str, typer.Argument(help=_MODEL, show_default=False)],
    *,
    images: Annotated[
        Path | None, typer.Option(help="A folder of pictures.", show_default=False)
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help=_DATASET, show_default=False)] = None,
    scenes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=_SCENES, show_default=False)
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help=_METHOD)] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="METHOD.NAME=VALUE", help=_SET)
    ] = None,
    annotations: Annotated[Path | None, typer.Option(help=_ANNOTATIONS)] = None,
    synonyms: Annotated[Path | None, typer.Option(help=_SYNONYMS)] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What asks for a description.", show_default=False)
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a description.")] = 512,
    sample: Annotated[
        bool, typer.Option("--sample", help="Draw tokens, in place of the likeliest ones.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of draws, intervals and scenes.")] = 0,
    show: Annotated[
        int, typer.Option(min=0, metavar="N", help="Show the first N pictures on the page.")
    ] = 8,
    layers: Annotated[
        str | None, typer.Option(help="Layers whose attention is shown; by default all.")
    ] = None,
    heads: Annotated[
        str | None, typer.Option(help="Heads of these layers, as in 0,3; by default all.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for page and tables.")] = (
        Path("hallucination")
    ),
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite page and tables.")] = False,
) -> None:
    """Let a model describe pictures, plainly and by methods against hallucination, and compare.

    Where it is known what is in the pictures, descriptions are scored by CHAIR, and answers to
    yes-or-no questions by POPE. The page shows where the model looks with each word. A picture that
    fails is told, the rest goes on, and the exit code is 1.
    """
    from attnscope.app.answer_looks import Looking
    from attnscope.app.hallucination_methods import parse_methods
    from attnscope.app.hallucination_study import Study
    from attnscope.app.hallucination_truths import names_of
    from attnscope.app.hallucinations import study_hallucination
    from attnscope.app.layers import parse_layers
    from attnscope.app.pictured_answers import Decoding
    from attnscope.app.subjects import ModelChoice, load_model

    methods, settings = parse_methods(method or [], setting or [])
    looking = Looking(
        layers=None if layers is None else parse_layers(layers),
        heads=None if heads is None else parse_layers(heads),
    )
    _require_one(model, images, dataset, scenes, annotations)
    items, failed = _items(images, dataset, (scenes, seed), (annotations, synonyms))
    if not items:
        raise typer.Exit(1)
    study = Study(
        methods=methods,
        settings=settings,
        prompt=prompt or _prompt_of(model),
        decoding=Decoding(max_tokens=max_tokens, samples=sample, seed=seed),
        names=names_of(items, synonyms, is_glimpse=model == _GLIMPSE),
        shown=show,
        looking=looking,
        force=force,
    )
    choice = ModelChoice(
        name=model,
        revision=revision,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    count = failed + len(items)
    failed += study_hallucination(load_model(choice), items, study, output)
    if failed:
        print_error(f"{failed} of {count} pictures failed")
        raise typer.Exit(1)


_GLIMPSE = "glimpse"


def _require_one(
    model: str,
    images: Path | None,
    dataset: Path | None,
    scenes: int | None,
    annotations: Path | None,
) -> None:
    """Refuse several kinds of pictures at once, and what goes with another kind."""
    if sum(given is not None for given in (images, dataset, scenes)) != 1:
        raise CommandError("give --images, --dataset or --scenes; one of them")
    if scenes is not None and model != _GLIMPSE:
        raise CommandError(f"--scenes are pictures for {_GLIMPSE}; {model} needs --images")
    if annotations is not None and images is None:
        raise CommandError("--annotations tell of the pictures of --images")


def _items(
    images: Path | None,
    dataset: Path | None,
    scenes: tuple[int | None, int],
    truths: tuple[Path | None, Path | None],
) -> tuple[list["PicturedItem"], int]:
    """Return the pictures, and how many lines of a dataset were of no use."""
    from attnscope.app.hallucination_truths import read_annotations, read_names
    from attnscope.app.pictured_items import glimpse_items, read_dataset, read_folder

    annotations, synonyms = truths
    count, seed = scenes
    if count is not None:
        return glimpse_items(count, seed), 0
    if images is not None:
        names = None if synonyms is None else read_names(synonyms)
        objects = None if annotations is None else read_annotations(annotations, names)
        return read_folder(images, objects), 0
    if dataset is None:
        raise CommandError("no pictures were given")
    items, bad = read_dataset(dataset)
    for line in bad:
        print_error(line.reason, before=f"line {line.line} of {dataset}: ")
    return items, len(bad)


def _prompt_of(model: str) -> str:
    """Return what asks for a description: glimpse's own words, or those of the VHR paper."""
    if model != _GLIMPSE:
        return "Please describe this image in detail."
    from attnscope.models.subjects.glimpse import describe_prompt

    return describe_prompt()[0]["content"][1]["text"]
