"""`verify_file`: a trace file against the model that it is of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnscope.app.failures import CommandError
from attnscope.app.screen import plain_table, screen, visible
from attnscope.app.subjects import ModelChoice, load_model
from attnscope.probes import verify
from attnscope.traces import Check, Verification, open_trace

__all__ = ["VerifyRequest", "print_verification", "verify_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """What is to be compared.

    Attributes:
        layers: Layer numbers, negative ones from the end; None for all.
        rows: Rows of each map.
        seed: Draws the rows.
        images: Files of the pictures that the model saw.
    """

    layers: Sequence[int] | None = None
    rows: int = 16
    seed: int = 0
    images: tuple[Path, ...] = ()


def verify_file(path: Path, choice: ModelChoice, request: VerifyRequest) -> Verification:
    """Return how far a trace file is from what the model computes.

    Args:
        path: The trace file.
        choice: The model; without a name, the one that the trace names.
        request: What to compare.

    Raises:
        CommandError: The trace names no model that could be loaded, or a picture cannot be read.
        CaptureError: The model cannot be loaded, or run from what the trace holds.
        TraceError: The file is no trace.
    """
    trace = open_trace(path)
    origin = trace.provenance
    if not choice.name:
        if not origin.model:
            raise CommandError(f"{path} names no model; give --model")
        choice = replace(choice, name=origin.model, revision=choice.revision or origin.revision)
    subject = load_model(replace(choice, dtype=choice.dtype or origin.dtype))
    return verify(
        trace,
        subject,
        layers=request.layers,
        rows=request.rows,
        seed=request.seed,
        images=[_picture(one) for one in request.images],
    )


def print_verification(verification: Verification) -> None:
    """Print a table of the comparisons, and the outcome."""
    table = plain_table("", "compared", "of", ">error", ">at most", "")
    for check in verification.checks:
        table.add_row(
            "ok" if check.passed else "FAILED",
            check.what,
            visible(check.where),
            *_numbers(check),
            visible(check.note),
        )
    console = screen()
    console.print(table)
    console.print(visible(str(verification)), soft_wrap=True)


def _numbers(check: Check) -> tuple[str, str]:
    numbers = (check.error, check.tolerance)
    error, limit = ("" if number is None else f"{number:.1e}" for number in numbers)
    return error, limit


def _picture(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except UnidentifiedImageError as error:
        raise CommandError(f"{path} is no picture that can be read") from error
