"""The catalog of credit rules: every rule that has a name, and how well its formula is known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from attnscope.credit.bottom import bottom_share
from attnscope.credit.errors import CreditError
from attnscope.credit.preset import REV
from attnscope.credit.rule import Rule
from attnscope.credit.rules import (
    Coupled,
    Entropy,
    EntropyMask,
    EntropyShaped,
    Global,
    Local,
    LowProbability,
    PositionMatched,
    RandomShare,
    Receiver,
    Redistributed,
    ShuffledHeads,
    Uniform,
)

__all__ = ["RULES", "CatalogedRule", "find_rule"]

_RHYTHM = "Li et al. 2025, arXiv:2510.13554"
_PAPER = "read in the paper; no official code exists"
_CONTROL = "our own control"
_BOTTOM = REV.changed(select=bottom_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogedRule:
    """A rule's name, how it is made with its defaults, and on what evidence it stands.

    Attributes:
        name: Its name in the catalog.
        make: Returns the rule with its defaults.
        source: Where it comes from.
        evidence: How the formula is known: read in the paper, second-hand, from memory, our own.
    """

    name: str
    make: Callable[[], Rule]
    source: str
    evidence: str


_ENTRIES = (
    CatalogedRule(
        name="uniform",
        make=Uniform,
        source="Shao et al. 2024, arXiv:2402.03300, GRPO",
        evidence="read in the paper",
    ),
    CatalogedRule(name="random_share", make=RandomShare, source=_RHYTHM, evidence=_PAPER),
    CatalogedRule(
        name="position_matched",
        make=lambda: PositionMatched(rule=Coupled()),
        source=_CONTROL,
        evidence=_CONTROL,
    ),
    CatalogedRule(
        name="shuffled_heads",
        make=lambda: ShuffledHeads(rule=Coupled()),
        source=_CONTROL,
        evidence=_CONTROL,
    ),
    CatalogedRule(
        name="bottom_local", make=lambda: Local(preset=_BOTTOM), source=_RHYTHM, evidence=_PAPER
    ),
    CatalogedRule(
        name="bottom_global", make=lambda: Global(preset=_BOTTOM), source=_RHYTHM, evidence=_PAPER
    ),
    CatalogedRule(
        name="bottom_coupled",
        make=lambda: Coupled(preset=_BOTTOM),
        source=_RHYTHM,
        evidence="our reading: the lowest FAI in place of the highest",
    ),
    CatalogedRule(name="entropy", make=Entropy, source=_RHYTHM, evidence=_PAPER),
    CatalogedRule(
        name="entropy_mask",
        make=EntropyMask,
        source="Wang et al. 2025, arXiv:2506.01939",
        evidence="read in the code of a trainer that has it",
    ),
    CatalogedRule(name="local", make=Local, source=_RHYTHM, evidence=_PAPER),
    CatalogedRule(name="global", make=Global, source=_RHYTHM, evidence=_PAPER),
    CatalogedRule(
        name="coupled",
        make=Coupled,
        source=_RHYTHM,
        evidence=f"{_PAPER}; alpha, thresholds and intro() are our reading",
    ),
    CatalogedRule(
        name="receiver",
        make=Receiver,
        source="Bogdan et al. 2025, arXiv:2506.19143",
        evidence="heads as in the paper; credit by them is our variant",
    ),
    CatalogedRule(
        name="low_probability",
        make=LowProbability,
        source="Yang et al. 2025, arXiv:2505.12929",
        evidence="from memory, unchecked",
    ),
    CatalogedRule(
        name="entropy_shaped",
        make=EntropyShaped,
        source="Cheng et al. 2025, arXiv:2506.14758",
        evidence="from memory, unchecked",
    ),
    CatalogedRule(
        name="redistributed",
        make=Redistributed,
        source="Chan et al. 2024, arXiv:2402.00782",
        evidence="rewards read in the authors' code; the sum to go is our reading",
    ),
)

RULES: Mapping[str, CatalogedRule] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""The rules by name, with their defaults."""


def find_rule(name: str) -> Rule:
    """Return the rule of a name, with its defaults.

    Raises:
        CreditError: The catalog has no such rule.

    Example:
        >>> find_rule("coupled").back_share
        0.5
    """
    if name not in RULES:
        raise CreditError(f"no credit rule {name!r}; the catalog has {sorted(RULES)}")
    return RULES[name].make()
