"""`with_preset`: a rule with other settings, a control with those of the rule inside."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from attnscope.credit.errors import CreditError
from attnscope.credit.preset import Preset
from attnscope.credit.rule import AmplifyingRule, Rule
from attnscope.credit.rules import PositionMatched, ShuffledHeads

__all__ = ["with_preset"]


def with_preset(rule: Rule, change: Callable[[Preset], Preset]) -> Rule:
    """Return the rule with a changed preset; a control keeps the rule that it controls for.

    Args:
        rule: A rule of the catalog, or any frozen dataclass with a `preset`.
        change: What becomes of its preset.

    Raises:
        CreditError: The rule has no preset.

    Example:
        >>> from attnscope.credit import Coupled, PositionMatched
        >>> control = PositionMatched(rule=Coupled())
        >>> with_preset(control, lambda preset: preset.changed(far=50)).preset.rhythm.far
        50
    """
    if isinstance(rule, PositionMatched | ShuffledHeads):
        return replace(rule, rule=with_preset(rule.rule, change))
    if not isinstance(rule, AmplifyingRule):
        raise CreditError(
            f"{type(rule).__name__} has no preset: it does not amplify a share of the tokens"
        )
    own: Any = rule
    return replace(own, preset=change(rule.preset))
