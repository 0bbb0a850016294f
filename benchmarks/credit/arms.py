"""The arms of the experiment: credit rules with settings scaled to this task, and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.credit import (
    REV,
    Coupled,
    Credit,
    Entropy,
    Global,
    Local,
    PositionMatched,
    RandomShare,
    Readings,
    Rule,
    ShuffledHeads,
    Uniform,
    bottom_share,
    emitting_row,
    prefix_value_advantages,
)
from attnscope.metrics import HeadGroups
from benchmarks.credit.grpo import GROUP, Rollout
from benchmarks.credit.task import LONGEST, STEP

__all__ = ["ARMS", "CORE", "EXPLORATORY", "SCALED", "SECONDARY", "Arm", "Marked", "find_arms"]

SCALED = REV.changed(window=STEP, near=STEP, far=LONGEST)
"""The paper's settings by the rule: one step of the trace, one step, the longest response."""

_BLAMELESS = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marked:
    """Weighs tokens as they were marked by somebody who knows: the reader of no attention.

    Attributes:
        weights: The weight of each token.
        members: The tokens that count as selected.
    """

    weights: Float[Tensor, "batch response"]
    members: Bool[Tensor, "batch response"]

    @property
    def needs(self) -> frozenset[str]:
        """Return nothing: it reads nothing."""
        return frozenset()

    def assign(self, readings: Readings) -> Credit:
        """Return the weights."""
        return Credit(
            weights=torch.where(readings.mask, self.weights, 0.0),
            mask=readings.mask,
            classes={"marked": self.members & readings.mask},
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixValues:
    """The values of shared prefixes (TEMPO), as weights: its advantages over the plain ones."""

    rewards: Float[Tensor, " batch"]

    @property
    def needs(self) -> frozenset[str]:
        """Return the ids and the plain advantages."""
        return frozenset({"ids", "advantage"})

    def assign(self, readings: Readings) -> Credit:
        """Return the weights; 1 where a group's rewards are equal and nothing is learned."""
        ids, plain = readings.require("ids", self), readings.token_advantage(self)
        valued = prefix_value_advantages(ids, readings.mask, self.rewards, GROUP)
        weights = torch.where(plain == 0, 1.0, valued / plain)
        mask = readings.mask
        return Credit(
            weights=torch.where(mask, weights, 0.0),
            mask=mask,
            classes={"branch": mask & ((weights - 1).abs() > 1e-4)},
        )


def _deserving(rollout: Rollout) -> Bool[Tensor, "batch response"]:
    """Return the tokens that deserve the response's advantage.

    A choice that gives the target away deserves blame, and so does the token that breaks a rule; a
    choice that keeps the target within reach deserves praise. One made when all was lost deserves
    neither.
    """
    labels, solved = rollout.labels, rollout.labels.solved.unsqueeze(1)
    blame = labels.fatal | labels.broken
    praise = labels.hopeful & ~labels.fatal & ~labels.broken
    return torch.where(solved, praise, blame)


def _oracle(rollout: Rollout, undeserving: float) -> Rule:
    """Return the oracle: other choices than the deserving ones get the weight given."""
    members = _deserving(rollout)
    others = torch.where(rollout.labels.decision, undeserving, 1.0)
    return Marked(weights=torch.where(members, SCALED.amplification, others), members=members)


def _choices(rollout: Rollout) -> Rule:
    members = rollout.labels.decision
    return Marked(weights=torch.where(members, SCALED.amplification, 1.0), members=members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way of giving credit.

    Attributes:
        name: Its name on the command line and in the results.
        title: What it does, for tables.
        rule: Returns the rule for a batch and the run's seed.
    """

    name: str
    title: str
    rule: Callable[[Rollout, int], Rule]


def _fixed(name: str, title: str, rule: Rule) -> Arm:
    return Arm(name=name, title=title, rule=lambda rollout, seed: rule)


def _coupled(name: str, title: str, **changes: object) -> Arm:
    return _fixed(name, f"coupled, {title}", Coupled(preset=SCALED.changed(**changes)))


def _every_head(spans: Float[Tensor, "layer head"], quantile: float) -> HeadGroups:
    """Return both groups with every head in them."""
    everyone = torch.ones_like(spans, dtype=torch.bool)
    return HeadGroups(local_heads=everyone, global_heads=everyone)


_C = Coupled(preset=SCALED)

CORE = (
    Arm(
        name="oracle",
        title="oracle: deserving choices 1.5, other choices 0",
        rule=lambda rollout, seed: _oracle(rollout, _BLAMELESS),
    ),
    _fixed("uniform", "uniform (GRPO)", Uniform()),
    _fixed("coupled", "coupled (FAI and WAAD)", _C),
    Arm(
        name="random",
        title="random 40 %",
        rule=lambda rollout, seed: RandomShare(preset=SCALED, seed=seed),
    ),
    Arm(
        name="position",
        title="coupled, moved to another response",
        rule=lambda rollout, seed: PositionMatched(rule=_C, seed=seed),
    ),
    _fixed("entropy", "entropy, top 40 %", Entropy(preset=SCALED)),
    _fixed("bottom", "FAI, bottom 40 %", Global(preset=SCALED.changed(select=bottom_share))),
)
"""The arms of the confirmatory comparison; 16 paired runs each."""

SECONDARY = (
    _fixed("scaled", "uniform x 1.2 (harness check)", Uniform(factor=1.2)),
    Arm(
        name="oracle_share",
        title="oracle at the paper's strength: deserving choices 1.5",
        rule=lambda rollout, seed: _oracle(rollout, 1.0),
    ),
    Arm(name="choices", title="all choice tokens", rule=lambda rollout, seed: _choices(rollout)),
    _fixed("local", "WAAD change, top 40 %", Local(preset=SCALED)),
    _fixed("global", "FAI, top 40 %", Global(preset=SCALED)),
    Arm(
        name="tempo",
        title="values of shared prefixes",
        rule=lambda rollout, seed: PrefixValues(rewards=rollout.rewards),
    ),
)
"""Arms that explain the core ones."""

EXPLORATORY = (
    _coupled("share_20", "top 20 %", share=0.2),
    _coupled("share_60", "top 60 %", share=0.6),
    _coupled("share_100", "all tokens", share=1.0),
    _coupled("window_4", "half the window", window=4),
    _coupled("window_19", "twice the window", window=19),
    _coupled("near_0", "horizon from 0", near=0),
    _coupled("far_19", "horizon of one attempt", far=19),
    _coupled("bottom_layers", "layers 0 and 1", layers=(0, 1)),
    _coupled("top_layers", "layers 4 and 5", layers=(4, 5)),
    _coupled("all_heads", "all heads in both groups", grouping=_every_head),
    _coupled("praise_only", "positive advantages only", scales_negative=False),
    _coupled("emitting_row", "the row that a token was drawn from", rows=emitting_row),
    _coupled("strong", "amplification 3", amplification=3.0),
    _fixed("shuffled_heads", "coupled, heads grouped at random", ShuffledHeads(rule=_C)),
)
"""Ablations: fewer seeds, no claim rests on them."""

ARMS: Mapping[str, Arm] = MappingProxyType(
    {arm.name: arm for arm in (*CORE, *SECONDARY, *EXPLORATORY)}
)


def find_arms(names: str) -> tuple[Arm, ...]:
    """Return the arms of a list with commas, in which the groups have names too.

    Raises:
        ValueError: There is no such arm.
    """
    groups = {"core": CORE, "secondary": SECONDARY, "exploratory": EXPLORATORY}
    found: dict[str, Arm] = {}
    for name in names.split(","):
        if name not in groups and name not in ARMS:
            raise ValueError(f"no arm {name!r}; there are {[*groups, *ARMS]}")
        found |= {arm.name: arm for arm in groups.get(name) or (ARMS[name],)}
    return tuple(found.values())
