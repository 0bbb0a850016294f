"""A `Card` as JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from attnscope.traces.card import Card
from attnscope.traces.plain_facts import as_number, as_text, as_truth, as_whole
from attnscope.traces.site_facts import SiteCard
from attnscope.traces.verification import Check, Verification

__all__ = ["card_from", "plain_card"]

_TEXTS = ("operator", "numbers", "rows", "mask", "bias", "dtype", "library", "computation")


def plain_card(card: Card) -> dict[str, Any]:
    """Return what stands on a card as plain facts."""
    return {
        "sites": [
            {"stack": stack, "layer": layer, **asdict(site)}
            for (stack, layer), site in card.sites.items()
        ],
        "verification": None if card.verification is None else asdict(card.verification),
        "lost": list(card.lost),
    }


def card_from(plain: Mapping[str, Any]) -> Card:
    """Return the card that `plain_card` wrote.

    Raises:
        TraceError: A field is of another kind.
    """
    verification = plain["verification"]
    return Card(
        sites={
            (as_text(fields["stack"]), as_whole(fields["layer"])): _site(fields)
            for fields in plain["sites"]
        },
        verification=None if verification is None else _verification(verification),
        lost=tuple(as_text(loss) for loss in plain["lost"]),
    )


def _site(fields: Mapping[str, Any]) -> SiteCard:
    window, heads = fields["window"], fields["heads"]
    return SiteCard(
        window=None if window is None else as_whole(window),
        softcap=as_number(fields["softcap"]),
        sinks=as_truth(fields["sinks"]),
        heads=None if heads is None else tuple(as_whole(head) for head in heads),
        lost=tuple(as_text(loss) for loss in fields["lost"]),
        **{name: as_text(fields[name]) for name in _TEXTS},
    )


def _verification(fields: Mapping[str, Any]) -> Verification:
    return Verification(
        checks=tuple(_check(check) for check in fields["checks"]),
        rows=as_whole(fields["rows"]),
        seed=as_whole(fields["seed"]),
        against=as_text(fields["against"]),
    )


def _check(fields: Mapping[str, Any]) -> Check:
    return Check(
        passed=as_truth(fields["passed"]),
        error=as_number(fields["error"]),
        tolerance=as_number(fields["tolerance"]),
        **{name: as_text(fields[name]) for name in ("what", "where", "note")},
    )
