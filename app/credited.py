"""`credit_traces`: the token weights that a credit rule gives to captured responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from attnscope.app.credit_request import CreditRequest, rule_of
from attnscope.app.failures import CommandError
from attnscope.credit import (
    RULES,
    AmplifyingRule,
    CatalogedRule,
    Credit,
    HeadCalibration,
    ReadingPlan,
    Readings,
    Rule,
    calibrate_traces,
    load_calibration,
    own_row,
    plan_for,
    trace_readings,
)
from attnscope.traces import Trace, open_trace

__all__ = ["Credited", "CreditedResponse", "credit_traces"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CreditedResponse:
    """What one response was given.

    Attributes:
        path: Its trace file.
        trace: Its trace.
        positions: Where its tokens stand in the whole text.
        tokens: Its tokens: untrusted text.
        weights: The weight of each token.
        classes: The positions of the tokens that were selected, by the role they have.
        numbers: What the rule read of each token, by its name; the advantage of each, if known.
    """

    path: Path
    trace: Trace
    positions: tuple[int, ...]
    tokens: tuple[str, ...]
    weights: tuple[float, ...]
    classes: dict[str, tuple[int, ...]]
    numbers: dict[str, tuple[float, ...]]

    def roles_at(self, position: int) -> list[str]:
        """Return the roles of the token at a position."""
        return [name for name, places in self.classes.items() if position in places]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Credited:
    """What a rule gave to the responses of some traces.

    Attributes:
        entry: The rule's entry in the catalog.
        rule: The rule with the settings that were asked for.
        heads: The heads that were read; None where none were.
        statistics: Mean weight, and share and mean weight of each class, over all responses.
        responses: The responses, one per trace.
    """

    entry: CatalogedRule
    rule: Rule
    heads: HeadCalibration | None
    statistics: dict[str, float]
    responses: tuple[CreditedResponse, ...]


def credit_traces(paths: Sequence[Path], request: CreditRequest) -> Credited:
    """Return what a rule gives to the responses of traces of one model, taken as one batch.

    Raises:
        CommandError: The rule has no such setting, or there are too few or too many advantages.
        CreditError: There is no such rule, or the traces lack what it needs.
        TraceError: A file is no trace.
    """
    traces = [_answered(path) for path in paths]
    rule = rule_of(request, _layers(traces[0]))
    advantage = _advantage(request, rule, len(traces))
    plan = _plan(traces, rule, request)
    readings = trace_readings(traces, plan, advantage=advantage)
    credit = rule.assign(readings)
    responses = [
        _response(pair, number, _numbers(rule, readings, credit), credit)
        for number, pair in enumerate(zip(paths, traces, strict=True))
    ]
    return Credited(
        entry=RULES[request.rule],
        rule=rule,
        heads=plan.calibration,
        statistics=credit.statistics(),
        responses=tuple(responses),
    )


def _answered(path: Path) -> Trace:
    trace = open_trace(path)
    if "response" not in trace.segments:
        raise CommandError(
            f"{path} has no response; its segments are {list(trace.segments.names)}. "
            "`attnscope capture` marks one with --response or --generate"
        )
    return trace


def _layers(trace: Trace) -> list[int]:
    return sorted(site.layer for site in trace.sites if site.stack == trace.main_stack)


def _plan(traces: Sequence[Trace], rule: Rule, request: CreditRequest) -> ReadingPlan:
    """Return the plan of a rule, with the heads named."""
    if request.calibration is not None:
        if request.layers is not None:
            raise CommandError("the calibration names the layers; give --calibration or --layers")
        return plan_for(rule, load_calibration(request.calibration))
    plan = plan_for(rule)
    if not plan.wants_heads:
        return plan
    return replace(plan, calibration=calibrate_traces(traces, plan.preset))


def _advantage(request: CreditRequest, rule: Rule, count: int) -> Tensor | None:
    given = list(request.advantages)
    if not given:
        signed = isinstance(rule, AmplifyingRule) and not rule.preset.rhythm.scales_negative
        if signed or "advantage" in rule.needs:
            raise CommandError(
                f"the rule {request.rule} looks at the sign of the advantage"
                f"{' (preset v1 scales nonnegative ones only)' if signed else ''}; give --advantage"
            )
        return None
    if len(given) not in (1, count):
        raise CommandError(f"{len(given)} advantages for {count} traces; give one, or one for each")
    return torch.tensor(given * count if len(given) == 1 else given, dtype=torch.float32)


def _response(
    pair: tuple[Path, Trace], number: int, numbers: Mapping[str, Tensor], credit: Credit
) -> CreditedResponse:
    path, trace = pair
    inside = credit.mask[number]
    positions = tuple(trace.segments["response"])
    return CreditedResponse(
        path=path,
        trace=trace,
        positions=positions,
        tokens=tuple(trace.tokens[position] for position in positions),
        weights=tuple(credit.weights[number][inside].tolist()),
        classes={
            name: tuple(positions[place] for place in members[number][inside].nonzero().flatten())
            for name, members in credit.classes.items()
        },
        numbers={name: tuple(values[number][inside].tolist()) for name, values in numbers.items()},
    )


def _numbers(rule: Rule, readings: Readings, credit: Credit) -> dict[str, Tensor]:
    """Return what was read of each token; WAAD by the row that speaks for it."""
    rows = rule.preset.rows if isinstance(rule, AmplifyingRule) else own_row
    named = {
        "waad": None if readings.local_waad is None else rows(readings.local_waad),
        "fai": readings.global_fai,
        "receiver_fai": readings.receiver_fai,
        "drawn_from_entropy": None if readings.entropy is None else readings.entropy[:, :-1],
        "log_probability": readings.log_probability,
        "advantage": None if readings.advantage is None else credit.apply(readings.advantage),
    }
    return {name: values for name, values in named.items() if values is not None}
