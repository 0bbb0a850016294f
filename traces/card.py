"""`Card`: what the numbers of a trace are, how they were obtained, and what proves it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from types import MappingProxyType

from attnscope.traces.layer_numbers import layer_runs
from attnscope.traces.site import Site
from attnscope.traces.site_facts import SiteCard
from attnscope.traces.verification import Verification

__all__ = ["Card"]

_UNKNOWN = "unknown (the trace does not say what its numbers are)"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Card:
    """What the numbers of a trace are. Nothing on it is guessed: what nobody wrote is unknown.

    Attributes:
        sites: What each site holds, by `(stack, layer)`.
        verification: How far the trace was from the model's own slow attention; None where nobody
            looked.
        lost: What a reduction took from the trace as a whole.

    Example:
        >>> Card()
        Card: unknown (the trace does not say what its numbers are)
    """

    sites: Mapping[tuple[str, int], SiteCard] = field(default_factory=dict)
    verification: Verification | None = None
    lost: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Keep a copy of the mapping that nobody can change."""
        object.__setattr__(self, "sites", MappingProxyType(dict(self.sites)))

    @property
    def is_known(self) -> bool:
        """Return whether anything stands on the card."""
        return bool(self.sites or self.verification or self.lost)

    def of(self, sites: Iterable[Site]) -> "Card":
        """Return the card of some of the sites."""
        kept = {(site.stack, site.layer) for site in sites}
        if kept >= set(self.sites):
            return self
        return replace(self, sites={key: card for key, card in self.sites.items() if key in kept})

    def lines(self) -> list[str]:
        """Return what stands on the card, layers with the same facts together."""
        if not self.is_known:
            return [_UNKNOWN]
        groups: dict[tuple[str, SiteCard], list[int]] = {}
        for (stack, layer), card in self.sites.items():
            groups.setdefault((stack, card), []).append(layer)
        several = len(groups) > len({stack for stack, _ in groups})
        lines = [
            f"{stack}{f' {layer_runs(layers)}' if several else ''}: {card}"
            for (stack, card), layers in groups.items()
        ]
        lines += [f"lost: {loss}" for loss in self.lost]
        verified = "not verified" if self.verification is None else f"verified: {self.verification}"
        return [*lines, verified]

    def __repr__(self) -> str:
        """Return the lines of the card."""
        first, *rest = self.lines()
        return "\n".join([f"Card: {first}", *(f"      {line}" for line in rest)])

    def _repr_html_(self) -> str:
        """Return the same as a list, for notebooks."""
        items = "".join(f"<li>{escape(line)}</li>" for line in self.lines())
        return f"<ul>{items}</ul>"
