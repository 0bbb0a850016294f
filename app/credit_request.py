"""`CreditRequest`: a credit rule as a command line names it, and the rule that is meant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnscope.app.failures import CommandError
from attnscope.credit import Rule, rule_named

__all__ = ["CreditRequest", "parse_numbers", "rule_of"]

Number = int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditRequest:
    """Which credit to give.

    Attributes:
        rule: Name of the rule.
        preset: `v1` or `rev`; None for the rule's own.
        rows: `own` or `emitting`, the row that speaks for a token; None for the rule's own.
        numbers: Other values of the preset's or of the rule's numbers, by name.
        layers: Layers to read, negative ones from the end; None for those of the preset.
        calibration: A file that names the heads; None to rank them by the traces.
        advantages: Advantages of the responses, one for all or one for each; empty if unknown.
    """

    rule: str
    preset: str | None = None
    rows: str | None = None
    numbers: Mapping[str, Number] = field(default_factory=dict)
    layers: Sequence[int] | None = None
    calibration: Path | None = None
    advantages: Sequence[float] = ()


def rule_of(request: CreditRequest, layers: Sequence[int]) -> Rule:
    """Return the rule that is asked for.

    Args:
        request: What is asked for.
        layers: The layers that there are, ascending.

    Raises:
        CommandError: There is no such layer.
        CreditError: There is no such rule, or it has no such setting.
    """
    chosen = None if request.layers is None else _resolved(request.layers, layers)
    return rule_named(
        request.rule,
        preset=request.preset,
        rows=request.rows,
        layers=chosen,
        numbers=request.numbers,
    )


def parse_numbers(options: Sequence[str]) -> dict[str, Number]:
    """Return the numbers of options that are written as `name=value`.

    Raises:
        CommandError: One is not written so.

    Example:
        >>> parse_numbers(["back_share=0.3", "look_back=2"])
        {'back_share': 0.3, 'look_back': 2}
    """
    return dict(_parsed(option) for option in options)


def _parsed(option: str) -> tuple[str, Number]:
    name, _, text = option.partition("=")
    for number in (int, float):
        try:
            return name.strip(), number(text)
        except ValueError:
            continue
    raise CommandError(f"{option!r} is no option; write name=number, as in back_share=0.3")


def _resolved(wanted: Sequence[int], layers: Sequence[int]) -> tuple[int, ...]:
    """Return layer numbers, negative ones counted from the last layer there is."""
    count = len(layers)
    missing = [n for n in wanted if n not in layers and not -count <= n < 0]
    if missing:
        raise CommandError(f"no layer {missing[0]}; the traces hold {list(layers)}")
    return tuple(sorted({n if n >= 0 else layers[n] for n in wanted}))
