"""`attnscope credit`: which tokens of captured responses a credit rule would amplify."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["credit"]

_TRACES = "Trace files of one model's responses, taken as one batch."
_RULE = "Name of a rule; an unknown one tells which there are."
_ROWS = "Which row speaks for a token: its own, or the one that it was drawn from."
_OPTION = "Another number of the rule, as in back_share=0.3; may be repeated."
_CALIBRATION = "A head calibration that was saved; by default heads are ranked by these traces."
_ADVANTAGE = "Advantage of the response; repeat it for each trace. Some rules look at its sign."


class PresetName(StrEnum):
    """The versions of the preplan-and-anchor paper."""

    V1 = "v1"
    REV = "rev"


class Rows(StrEnum):
    """What a token can be judged by."""

    OWN = "own"
    EMITTING = "emitting"


def credit(  # noqa: PLR0913 - one parameter per option
    trace: Annotated[list[Path], typer.Argument(help=_TRACES, show_default=False)],
    rule: Annotated[str, typer.Option(help=_RULE)] = "coupled",
    preset: Annotated[
        PresetName | None, typer.Option(help="The paper's settings; by default the rule's own.")
    ] = None,
    rows: Annotated[Rows | None, typer.Option(help=_ROWS)] = None,
    share: Annotated[float | None, typer.Option(help="Share of the tokens to select.")] = None,
    amplification: Annotated[float | None, typer.Option(help="Weight of a selected token.")] = None,
    window: Annotated[int | None, typer.Option(help="Distance at which WAAD clips.")] = None,
    near: Annotated[int | None, typer.Option(help="First distance of FAI's horizon.")] = None,
    far: Annotated[int | None, typer.Option(help="Last distance of FAI's horizon.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to read, as in 2-4; by default the middle third.")
    ] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help=_OPTION)] = None,
    advantage: Annotated[list[float] | None, typer.Option(help=_ADVANTAGE)] = None,
    calibration: Annotated[Path | None, typer.Option(help=_CALIBRATION)] = None,
    top: Annotated[
        int, typer.Option(min=0, metavar="N", help="List the N heaviest tokens of each response.")
    ] = 30,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", "--out", help="Draw it on an HTML page.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a row per token to this file.")] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write tokens, settings and heads to this file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite these files.")] = False,
) -> None:
    """Show which tokens of responses earn more of the reward, by a credit rule."""
    from attnscope.app.credit_export import export_credit_csv, export_credit_json
    from attnscope.app.credit_page import write_credit_page
    from attnscope.app.credit_request import CreditRequest, parse_numbers
    from attnscope.app.credit_tables import print_credited
    from attnscope.app.credited import credit_traces
    from attnscope.app.layers import parse_layers
    from attnscope.app.outputs import check_free
    from attnscope.app.screen import print_paths

    check_free([path for path in (output, csv, json) if path is not None], force=force)
    named = {"share": share, "amplification": amplification, "window": window}
    named |= {"near": near, "far": far}
    request = CreditRequest(
        rule=rule,
        preset=None if preset is None else preset.value,
        rows=None if rows is None else rows.value,
        numbers={name: value for name, value in named.items() if value is not None}
        | parse_numbers(option or []),
        layers=None if layers is None else parse_layers(layers),
        calibration=calibration,
        advantages=advantage or (),
    )
    credited = credit_traces(trace, request)
    print_credited(credited, top)
    if csv is not None:
        export_credit_csv(credited, csv)
    if json is not None:
        export_credit_json(credited, json)
    if output is not None:
        print_paths([write_credit_page(credited, output)])
