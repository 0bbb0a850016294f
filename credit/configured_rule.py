"""`rule_named`: a rule of the catalog with other settings, as a command or a configuration says."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from attnscope.credit.catalog import find_rule
from attnscope.credit.errors import CreditError
from attnscope.credit.preset import REV, V1, Preset
from attnscope.credit.row_alignment import emitting_row, own_row
from attnscope.credit.rule import AmplifyingRule, Rule
from attnscope.credit.rule_preset import with_preset

__all__ = ["rule_named"]

Number = int | float

_RHYTHMS = {"v1": V1.rhythm, "rev": REV.rhythm}
_ROWS = {"own": own_row, "emitting": emitting_row}


def rule_named(
    name: str,
    *,
    preset: str | None = None,
    rows: str | None = None,
    layers: tuple[int, ...] | None = None,
    numbers: Mapping[str, Number] | None = None,
) -> Rule:
    """Return a rule of the catalog with other settings.

    A number, or the row, belongs to the rule itself where it has one of that name, else to its
    preset.

    Args:
        name: Its name in the catalog.
        preset: `v1` or `rev`, the version of the paper whose settings it takes; by default its own.
        rows: `own` or `emitting`, the row that speaks for a token; by default its own.
        layers: Layers to read; by default those of the preset.
        numbers: Other values of its numbers and of its preset's.

    Raises:
        CreditError: There is no such rule, it has no such number or no preset, or a number is out
            of its range.

    Example:
        >>> rule = rule_named("coupled", preset="v1", numbers={"share": 0.2, "back_share": 0.3})
        >>> rule.back_share, rule.preset.rhythm.share, rule.preset.rhythm.far
        (0.3, 0.2, 50)
    """
    rule = find_rule(name)
    given = _checked(name, rule, numbers or {})
    own: dict[str, Any] = {key: value for key, value in given.items() if key in _numbers(rule)}
    changes: dict[str, Any] = {key: value for key, value in given.items() if key not in own}
    if rows is not None:
        (own if _has_rows(rule) else changes)["rows"] = _chosen("rows", rows, _ROWS)
    if layers is not None:
        changes["layers"] = layers
    changed: Any = rule
    rule = replace(changed, **own) if own else rule
    if preset is None and not changes:
        return rule
    rhythm = None if preset is None else _chosen("preset", preset, _RHYTHMS)
    return with_preset(rule, _change(rhythm, changes))


def _change(rhythm: Any, changes: Mapping[str, Any]) -> Callable[[Preset], Preset]:
    def change(before: Preset) -> Preset:
        return replace(before, rhythm=rhythm or before.rhythm).changed(**changes)

    return change


def _chosen(what: str, name: str, among: Mapping[str, Any]) -> Any:
    if name not in among:
        raise CreditError(f"no {what} {name!r}; there are {sorted(among)}")
    return among[name]


def _checked(name: str, rule: Rule, numbers: Mapping[str, Number]) -> dict[str, Number]:
    """Return the numbers, each of the kind that its field has."""
    known = dict(_numbers(rule))
    if isinstance(rule, AmplifyingRule):
        known = _numbers(rule.preset.rhythm) | _numbers(rule.preset) | known
    for key, value in numbers.items():
        if key not in known:
            raise CreditError(f"the rule {name} has no {key}; its numbers are {sorted(known)}")
        if isinstance(known[key], int) and not isinstance(value, int):
            raise CreditError(f"{key} is a whole number, as {known[key]}, not {value}")
    return {key: type(known[key])(value) for key, value in numbers.items()}


def _numbers(settings: object) -> dict[str, Number]:
    """Return the numbers among the fields of a dataclass."""
    named: Any = settings
    values = {entry.name: getattr(settings, entry.name) for entry in fields(named)}
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _has_rows(rule: Rule) -> bool:
    own: Any = rule
    return "rows" in {entry.name for entry in fields(own)}
