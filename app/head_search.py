"""`find_heads`: a question about heads in words, as the metric that answers it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from attnscope.app.shared_readings import head_metrics
from attnscope.figures import HeadName
from attnscope.metrics import METRICS, Metric, Reading

__all__ = ["Answer", "find_heads", "ranked_heads"]

_WORD = re.compile(r"[a-z0-9]+")
_ENDINGS = ("ing", "al", "s")
_LOWEST = frozenset({"least", "lowest", "low", "not", "smallest", "weakest"})
_ASKED = (
    ("previous token preceding before", "previous_token", True),
    ("induction copy repeat prefix matching", "induction", True),
    ("duplicate same token", "duplicate_token", True),
    ("first token sink bos beginning streaming", "sink_mass", True),
    ("local near narrow short range neighborhood", "head_span", False),
    ("global far long range distant", "head_span", True),
    ("local patches near image", "patch_distance", False),
    ("focused sharp peaked certain concentrated", "entropy", False),
    ("spread broad diffuse uniform uncertain", "entropy", True),
    ("receiver thought anchor sentence broadcast", "receiver_score", True),
    ("vertical column sentence", "vertical_score", True),
    ("self diagonal own position", "own_share", True),
    ("negative signed subtract", "negative_share", True),
    ("redundant alike similar same heads", "head_divergence", False),
    ("unlike different diverse", "head_divergence", True),
    ("influence future anchor", "fai", True),
    ("preplan look back window", "waad", True),
)
"""What people ask for, the metric that tells, and whether its highest values are meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A metric that a question is about.

    Attributes:
        metric: The metric.
        highest: Whether heads with the highest values are asked for, or those with the lowest.
    """

    metric: Metric
    highest: bool


def find_heads(question: str) -> Answer | None:
    """Return the metric that a question about heads is about; None where no word is known.

    A metric is found by what people call such heads, by its own name and by its title; the entry
    that shares most words with the question is taken, the first among equals.

    Example:
        >>> answer = find_heads("first-token sinks")
        >>> answer.metric.name, answer.highest
        ('sink_mass', True)
        >>> find_heads("the most local heads").highest
        False
    """
    asked = _words(question)
    known = {metric.name for metric in head_metrics()}
    entries = [entry for entry in _ASKED if entry[1] in known]
    entries += [(f"{m.name} {m.title}".replace("_", " "), m.name, True) for m in head_metrics()]
    shares = [len(asked & _words(words)) for words, _, _ in entries]
    if not any(shares):
        return None
    _, name, highest = entries[shares.index(max(shares))]
    return Answer(metric=METRICS[name], highest=highest != bool(asked & _stems(_LOWEST)))


def ranked_heads(reading: Reading, *, highest: bool) -> list[tuple[HeadName, float]]:
    """Return the heads with their numbers, those first that are meant; NaN is left out."""
    layers = reading.coordinates.get("layer", tuple(range(reading.values.shape[0])))
    heads = reading.coordinates.get("head", tuple(range(reading.values.shape[1])))
    found = [
        (HeadName(layers[row], heads[head]), float(reading.values[row, head]))
        for row, head in reading.values.isnan().logical_not().nonzero().tolist()
    ]
    return sorted(found, key=lambda pair: -pair[1] if highest else pair[1])


def _words(text: str) -> frozenset[str]:
    return _stems(_WORD.findall(text.lower())) - {"head", "token", "the", "most", "attention"}


def _stems(words: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_stem, words))


def _stem(word: str) -> str:
    """Return a word without the ending that tells its forms apart."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) > 3:
            return word[: -len(ending)]
    return word
