"""The decision rule of the plan, and the sentences that it turns differences into.

The plan names this file by its hash: it was fixed before the runs.
"""

from collections.abc import Mapping

from benchmarks.credit.contrasts import Contrast, Difference

__all__ = ["CONFIRMATORY", "HEADROOM", "PLANNED_PAIRS", "RELEVANT", "conclusion", "verdict"]

HEADROOM: Contrast = ("oracle", "uniform")
CONFIRMATORY: tuple[Contrast, ...] = (
    ("coupled", "random"),
    ("coupled", "position"),
    ("coupled", "entropy"),
    ("coupled", "uniform"),
)
PLANNED_PAIRS = 16
RELEVANT = 1.0
"""The least difference, in points of accuracy, that counts as help."""

Differences = Mapping[Contrast, Difference | None]


def verdict(found: Differences) -> str:
    """Return `void`, `supports`, `refutes`, `inconclusive`, or `no data`."""
    headroom, random, position = (found.get(one) for one in (HEADROOM, *CONFIRMATORY[:2]))
    if headroom is None or random is None or position is None:
        return "no data"
    if headroom.low <= 0 or headroom.estimate < RELEVANT:
        return "void"
    better = all(one.low > 0 and one.estimate >= RELEVANT for one in (random, position))
    if better:
        return "supports"
    return "refutes" if random.high < RELEVANT else "inconclusive"


_SENTENCES = {
    "no data": "There are no pairs of runs of all the arms that the decision rule needs yet.",
    "void": (
        "The oracle, which knows which choices were to blame, is not shown to beat uniform credit "
        "by a difference that matters: the task leaves credit no headroom, and nothing can be "
        "concluded about attention."
    ),
    "supports": (
        "The results support the claim: coupled attention credit beats random amplification and "
        f"its own positions, each by {RELEVANT:g} point or more, and the oracle shows headroom."
    ),
    "refutes": (
        "At this scale the results refute a benefit that matters: the oracle shows headroom, and "
        f"coupled attention credit is less than {RELEVANT:g} point better than random "
        "amplification."
    ),
    "inconclusive": (
        "The results are inconclusive: the oracle shows headroom, but the interval of coupled "
        "attention credit against random amplification holds both a relevant benefit and too "
        "little of one."
    ),
}


def conclusion(found: Differences) -> str:
    """Return the verdict in words, with how much of the plan is in."""
    reached = verdict(found)
    words = [_SENTENCES[reached]]
    uniform, others = found.get(CONFIRMATORY[3]), [found.get(one) for one in CONFIRMATORY[:2]]
    beats_uniform = uniform is not None and uniform.low > 0
    if beats_uniform and reached not in ("supports", "void") and all(others):
        words.append(
            "It does beat uniform credit; what helps there is amplification or position, not "
            "attention."
        )
    done = min((one.pairs if one else 0) for one in map(found.get, (HEADROOM, *CONFIRMATORY)))
    if done < PLANNED_PAIRS:
        words.append(
            f"This is provisional: {done} of {PLANNED_PAIRS} planned pairs are in, and the plan "
            "decides when all are."
        )
    return " ".join(words)
