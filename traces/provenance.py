"""`Provenance`: where the numbers of a trace come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Provenance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What has to be known to capture the same trace again.

    Attributes:
        model: Name or path of the model; empty where it has none.
        revision: Commit or checkpoint of the model.
        dtype: Type that the model computed in (`bfloat16`).
        weights: Fingerprint of the model's weights; None where nobody took it.
        versions: Versions of the libraries that took part, by their names.
        gradient_target: What the gradients are of; None where none were taken.
        notes: Anything else, by name.
    """

    model: str = ""
    revision: str | None = None
    dtype: str | None = None
    weights: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    gradient_target: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep copies of the mappings that nobody can change."""
        object.__setattr__(self, "versions", MappingProxyType(dict(self.versions)))
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))
