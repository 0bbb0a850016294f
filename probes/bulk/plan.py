"""`Plan`: what is to be captured of every item of a dataset."""

import hashlib
import json
from dataclasses import asdict, dataclass

__all__ = ["Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be captured of every item.

    Attributes:
        model: What the model is called: captures of another one are other items.
        layers: Layer numbers, negative ones from the end; None for all.
        gradient: `loss` or `logit`; None for no gradient.
        hidden: Keep the hidden states that enter each layer, too.
        metrics: Metrics to stream; their readings are kept then, and no trace.
        generate: Most tokens that the model may answer with first; 0 for no answer.
        tags: Tags of every item.
        verify: Hold each trace against the model's own slow attention; one that does not prove
            itself gets the tag `unproven`, too.
    """

    model: str = ""
    layers: tuple[int, ...] | None = None
    gradient: str | None = None
    hidden: bool = False
    metrics: tuple[str, ...] = ()
    generate: int = 0
    tags: tuple[str, ...] = ()
    verify: bool = False

    def digest(self) -> str:
        """Return a hash of all that changes what is captured: all but the tags.

        Example:
            >>> Plan(tags=("a",)).digest() == Plan().digest(), Plan(generate=1) == Plan()
            (True, False)
        """
        facts = asdict(self)
        del facts["tags"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
