"""What each number of a report means, for readers who see it for the first time."""

from collections.abc import Mapping
from types import MappingProxyType

from attnscope.figures.scale import range_text
from attnscope.metrics import Reading

__all__ = ["EXPLANATIONS", "WORDS_ON_UNCERTAINTY", "unit_and_range"]

EXPLANATIONS: Mapping[str, str] = MappingProxyType(
    {
        "head_span": (
            "How far back a head looks: the mean distance between a token and the tokens that it "
            "reads. A head that reads the token before it has a span near 1; a head that puts "
            "everything on the first token spans the whole text."
        ),
        "mean_distance": (
            "How far a head looks, forwards or backwards: the mean distance between a position "
            "and those that it reads."
        ),
        "entropy": (
            "How spread a head's attention is, averaged over the tokens shown. 0 when every token "
            "reads a single one; the logarithm of how many there are when all are read alike. Its "
            "exponential is roughly the number of tokens read at once."
        ),
        "sink_mass": (
            "The share of a head's attention that rests on the first token. Heads that find "
            "nothing to read tend to leave their attention there, which makes their span long."
        ),
        "local_waad": (
            "How far back the local heads look from a token; distances beyond the window count as "
            "the window. Low inside a phrase, where a token leans on its neighbors; high where the "
            "model reaches back, as it does when a new phrase begins."
        ),
        "preplan": (
            "By how much the distance above changes at the next token. Preplan tokens are those "
            "with the largest changes: a phrase is opened there, or closed."
        ),
        "global_fai": (
            "How much attention a token receives from tokens some way behind it, in the heads "
            "that look far. Anchor tokens are those that receive most: what follows keeps coming "
            "back to them. Undefined where no token stands far enough behind."
        ),
    }
)
"""One explanation for each metric that a report shows."""

WORDS_ON_UNCERTAINTY = (
    "How undecided the model was when it wrote a token: the entropy of the distribution that the "
    "token was drawn from. 0 when it was certain."
)
"""What the third curve of the rhythm means."""


def unit_and_range(reading: Reading) -> str:
    """Return in words what the numbers of a reading count and what they can be."""
    return ", ".join(filter(None, (reading.unit or "a share", range_text(reading.bounds))))
