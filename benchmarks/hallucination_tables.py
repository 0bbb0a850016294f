"""Tables of what methods against hallucination do to the small LLaVA, as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnscope.metrics import confidence_table, paired_difference
from attnscope.models.subjects.glimpse.polls import POLLS
from benchmarks.hallucination_runs import WayScores, scores_of
from benchmarks.hallucination_ways import GREEDY
from benchmarks.hallucination_words import NUMBERS, PLACES, auroc_interval

__all__ = ["claim_table", "differences", "score_table", "seed_table", "verdict", "word_table"]

_CAPTION = ("chair_s", "chair_i", "recall", "f1", "length")


@dataclass(frozen=True, slots=True)
class Claim:
    """What was published of a way: a measure, its number without the way and with it, and where."""

    way: str
    measure: str
    before: float
    after: float
    source: str


CLAIMS = (
    Claim("VHR", "chair_s", 49.68, 33.32, "arXiv:2412.13949, LLaVA-1.5, greedy"),
    Claim("VHR", "chair_i", 14.32, 9.71, "the same"),
    Claim("VHR", "pope", 84.98, 85.47, "the same"),
    Claim("LocoRE", "chair_s", 51.0, 38.4, "arXiv:2601.20279, LLaVA-1.5, beams"),
    Claim("LocoRE", "pope", 85.4, 86.9, "the same"),
    Claim("LocoRE + SGRS", "chair_s", 51.0, 35.6, "the same"),
    Claim("LocoRE + SGRS", "pope", 85.4, 87.0, "the same"),
    Claim("PAINT", "chair_s", 46.2, 17.6, "arXiv:2501.12206, as copied by a review"),
    Claim("PAINT", "f1", 75.9, 71.8, "the same"),
    Claim("AGLA", "chair_s", 51.0, 43.0, "reported in arXiv:2601.20279"),
    Claim("AGLA", "pope", 85.4, 84.6, "the same"),
    Claim("VAR", "chair_s", 51.0, 52.4, "the same"),
    Claim("VAR", "pope", 85.4, 86.0, "the same"),
)
"""Published numbers in percent, of other and larger models."""

_AGREES, _OPPOSES = "as published", "the other way"
_TITLES = {
    "chair_s": "CHAIR_S",
    "chair_i": "CHAIR_I",
    "recall": "recall",
    "f1": "F1",
    "length": "words",
    "pope": "POPE F1",
}


def differences(
    scores: Mapping[str, WayScores],
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return the paired difference from greedy of each way and measure, with its interval."""
    plain, found = scores[GREEDY], {}
    for way, own in scores.items():
        if way != GREEDY:
            less = paired_difference(own.captions, plain.captions)
            found[way] = {name: _row(less, name) for name in _CAPTION}
            for kind in POLLS:
                polled = paired_difference(own.polls[kind], plain.polls[kind])
                found[way][f"pope_{kind}"] = _row(polled, "f1")
            found[way]["pope"] = found[way]["pope_adversarial"]
    return found


def score_table(scores: Mapping[str, WayScores]) -> str:
    """Return the scores of all ways as Markdown: value, and paired difference from greedy."""
    names = [*_CAPTION, *(f"pope_{kind}" for kind in POLLS)]
    titles = [_TITLES[name] for name in _CAPTION] + [f"POPE {kind}, F1" for kind in POLLS]
    lines = [
        f"| | {' | '.join(titles)} | ms per token |",
        f"| --- |{' --: |' * (len(titles) + 1)}",
    ]
    less = differences(scores)
    for way, own in scores.items():
        captions = confidence_table(own.captions)
        values = {name: _row(captions, name) for name in _CAPTION}
        values |= {f"pope_{kind}": _row(confidence_table(own.polls[kind]), "f1") for kind in POLLS}
        cells = [
            _relative(name, values[name], less[way][name])
            if way in less
            else _absolute(name, values[name])
            for name in names
        ]
        times = own.milliseconds / scores[GREEDY].milliseconds
        lines.append(f"| {way} | {' | '.join(cells)} | {own.milliseconds:.2f} ({times:.1f}x) |")
    return "\n".join(lines)


def claim_table(less: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """Return what was published of each way beside what happens here, and how often they agree."""
    verdicts: list[str] = []
    lines = [
        "| way | measure | published | here, less greedy | direction | source |",
        "| --- | --- | --: | --: | --- | --- |",
    ]
    for claim in CLAIMS:
        value, low, high = less[claim.way][claim.measure]
        verdicts.append(verdict(claim.after - claim.before, low, high))
        lines.append(
            f"| {claim.way} | {_TITLES[claim.measure]} | {claim.before:g} to {claim.after:g} "
            f"| {100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) "
            f"| {verdicts[-1]} | {claim.source} |"
        )
    agree, oppose = (verdicts.count(kind) for kind in (_AGREES, _OPPOSES))
    return "\n".join(lines) + (
        f"\n\nOf {len(CLAIMS)} published directions {agree} are found here, {oppose} go the other "
        f"way, and {len(CLAIMS) - agree - oppose} are not told apart from no difference."
    )


def verdict(published: float, low: float, high: float) -> str:
    """Return whether an interval agrees with the direction of a published difference.

    Example:
        >>> verdict(-16.4, -0.1, -0.02), verdict(-16.4, 0.02, 0.1), verdict(-16.4, -0.1, 0.1)
        ('as published', 'the other way', 'not told apart')
    """
    if low <= 0 <= high:
        return "not told apart"
    return _AGREES if (published > 0) == (low > 0) else _OPPOSES


def word_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return how well each number tells made-up words from grounded ones, as Markdown."""
    lines = ["| AUROC | at the color | at the shape |", "| --- | --: | --: |"]
    for name, title in NUMBERS.items():
        cells = [_told_apart(auroc_interval(entries, word, name)) for word in PLACES]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    made_up = sum(word["made_up"] for entry in entries for word in entry["words"])
    words = sum(len(entry["words"]) for entry in entries)
    return "\n".join(lines) + f"\n\n{words:,} object names in greedy captions, {made_up:,} made up."


def seed_table(entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return CHAIR_I of each way and draw of scenes, as Markdown."""
    seeds = sorted({entry["seed"] for kept in entries.values() for entry in kept})
    lines = [
        f"| CHAIR_I | {' | '.join(f'seed {seed}' for seed in seeds)} |",
        f"| --- |{' --: |' * len(seeds)}",
    ]
    for way, kept in entries.items():
        own = [[entry for entry in kept if entry["seed"] == seed] for seed in seeds]
        cells = [f"{scores_of(part).captions.measures['chair_i']:.1%}" for part in own]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(table: Any, name: str) -> tuple[float, float, float]:
    value, low, high = (float(table.loc[name, column]) for column in ("value", "low", "high"))
    return value, low, high


def _absolute(name: str, values: tuple[float, float, float]) -> str:
    form = ".1f" if name == "length" else ".1%"
    value, low, high = (format(x, form) for x in values)
    return f"{value} ({low} to {high})"


def _relative(
    name: str, values: tuple[float, float, float], less: tuple[float, float, float]
) -> str:
    """Return a score with its difference from greedy, in bold where the interval holds no 0."""
    unit = 1 if name == "length" else 100
    shown = format(values[0], ".1f" if name == "length" else ".1%")
    value, low, high = (f"{unit * x:+.1f}" for x in less)
    mark = "" if less[1] <= 0 <= less[2] else "**"
    return f"{shown}, {mark}{value}{mark} ({low} to {high})"


def _told_apart(values: tuple[float, float, float]) -> str:
    """Return an AUROC with its interval, and in words what it says."""
    value, low, high = values
    side = "lower" if value > 0.5 else "higher"
    sure = "" if low > 0.5 or high < 0.5 else ", if at all"
    return f"{value:.3f} ({low:.3f} to {high:.3f}), {side} where it is made up{sure}"
