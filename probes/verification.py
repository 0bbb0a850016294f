"""`verify`: hold a trace against the model's own slow attention, run again."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attnscope.attention import OperatorError
from attnscope.probes.adapters import ADAPTERS
from attnscope.probes.encoding import Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.forward import forward
from attnscope.probes.origin_checks import origin_checks, token_checks
from attnscope.probes.own_attention import (
    OwnRows,
    OwnRowsByModule,
    own_attention,
    returned_attention,
)
from attnscope.probes.recorded_inputs import recorded_inputs
from attnscope.probes.site_comparison import compared
from attnscope.probes.sites import split_path
from attnscope.probes.subject import Inputs, Subject
from attnscope.traces import Check, Site, Trace, Verification

__all__ = ["verified", "verify"]


def verify(  # noqa: PLR0913 - the public door
    trace: Trace,
    subject: Subject,
    inputs: Inputs | None = None,
    *,
    layers: int | Sequence[int] | None = None,
    rows: int = 16,
    seed: int = 0,
    images: Sequence[Any] = (),
) -> Verification:
    """Run the model again by its own slow attention, and compare sampled rows with the trace.

    Every head of every chosen site is compared: its weights, what its rows sum to, and what it
    reads of the values. So are tokens and segments, the order of the layers, and the fingerprint
    of the weights. Largest errors are absolute for weights and relative to the largest output for
    outputs; they may reach `1e-8` where the model computes in float64, `5e-5` in float32, `1e-2` in
    float16 and `5e-2` in bfloat16, whose eager attention rounds scores that our kernels do not.

    The eager way holds one whole map per layer for a moment: `head query key` numbers.

    Args:
        trace: What is to be proved.
        subject: The model that it is said to be of.
        inputs: What the model read; by default the token ids that the trace holds.
        layers: Layers to compare, of each stack that has them; all by default.
        rows: Rows of each map; the first, the middle and the last are among them.
        seed: Draws the others.
        images: The pictures that the model saw, which no trace holds.

    Raises:
        CaptureError: The inputs cannot be had from the trace, or do not fit the model.
        TraceError: The trace has no such layer.
    """
    chosen = trace if layers is None or not trace.sites else trace.select(layers)
    encoded = recorded_inputs(trace, subject, inputs, images)
    checks = [*origin_checks(trace, subject), *token_checks(trace, encoded, inputs is not None)]
    if not trace.sites:
        nothing = "the trace holds no attention at all: an empty tuple proves nothing"
        checks.append(Check(what="sites", where="the trace", passed=False, note=nothing))
    else:
        found = _own_rows(subject, encoded, chosen, _choice(rows, seed))
        checks += _site_checks(chosen, subject.model, found)
    return Verification(checks=tuple(checks), rows=rows, seed=seed, against=_name(subject))


def verified(trace: object, subject: Subject, inputs: Inputs | None = None) -> Trace:
    """Return a trace on whose card stands how far it is from the model's own slow attention.

    Raises:
        CaptureError: What was captured is no trace.
    """
    if not isinstance(trace, Trace):
        raise CaptureError(
            f"only a trace can be verified, and the recorder made a {type(trace).__name__}; "
            "capture without into=, or verify the trace of a Collector"
        )
    card = replace(trace.card, verification=verify(trace, subject, inputs))
    return replace(trace, card=card)


def _own_rows(
    subject: Subject, encoded: Encoded, trace: Trace, choose: Any
) -> list[OwnRowsByModule]:
    """Return what the model computes by itself, asking for returned weights only where needed."""
    model = subject.model
    wanted = {_module(model, site) for site in trace.sites}
    passes = []
    for listening in (own_attention, returned_attention):
        with ExitStack() as stack, torch.no_grad():
            stack.callback(model.train, model.training)
            model.eval()
            found = stack.enter_context(listening(model, choose))
            forward(subject, encoded, keep_logits=False)
        passes.append(found)
        wanted -= set(found.seen)
        if not wanted or not hasattr(getattr(model, "config", None), "output_attentions"):
            break
    return passes


def _choice(count: int, seed: int) -> Any:
    if count < 1:
        raise CaptureError(f"rows is {count}; a comparison needs one row at least")

    def choose(queries: int) -> Int[Tensor, " row"]:
        """Return the first, the middle and the last row, and others at random."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(queries, generator=generator).tolist()
        fixed = [queries - 1, 0, queries // 2]
        return torch.tensor(sorted(list(dict.fromkeys([*fixed, *drawn]))[:count]))

    return choose


def _site_checks(trace: Trace, model: nn.Module, passes: list[OwnRowsByModule]) -> Iterator[Check]:
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    names = {module: name for one in ADAPTERS for module, name in one.names(model).items()}
    for site, observation in zip(trace.sites, trace.observations, strict=True):
        module = _module(model, site)
        if module is None:
            note = f"{type(model).__name__} has no module {_path(site)!r}"
            yield Check(what="weights", where=site.path, passed=False, note=note)
            continue
        rows, fault = _rows_of(site, module, names, passes)
        if rows is None:
            yield Check(what="weights", where=site.path, passed=False, note=fault)
            continue
        card = trace.card.sites.get((site.stack, site.layer))
        choose = passes[0].choose
        try:
            yield from compared(
                observation, rows, choose, dtype, None if card is None else card.heads
            )
        except OperatorError as error:
            yield Check(what="weights", where=site.path, passed=False, note=str(error))
    yield _order(trace, model, passes)


def _rows_of(
    site: Site,
    module: nn.Module,
    names: dict[nn.Module, tuple[str, int]],
    passes: list[OwnRowsByModule],
) -> tuple[OwnRows | None, str]:
    """Return what a module computed at the call that a site is of, or why there is nothing."""
    found = next((one.seen[module] for one in passes if module in one.seen), None)
    if not found:
        empty = any(module in one.empty for one in passes)
        why = "was asked for its weights and returned none" if empty else "shows no map of its own"
        return None, f"nothing to compare with: {type(module).__name__} {why}"
    number = site.path.removeprefix(_path(site)).strip("[]")
    first = (names.get(module) or split_path(_path(site)))[1]
    call = int(number) if number else site.layer - first
    if not 0 <= call < len(found) or (number and site.layer < first):
        return None, (
            f"the trace calls it layer {site.layer}; its module is layer {first} and ran "
            f"{len(found)} times"
        )
    return found[call], ""


def _order(trace: Trace, model: nn.Module, passes: list[OwnRowsByModule]) -> Check:
    """Return whether layers stand in the order in which the model runs them."""
    ran = {module: place for one in passes for place, module in enumerate(one.seen)}
    wrong = []
    for stack in trace.stacks:
        sites = sorted((s for s in trace.sites if s.stack == stack), key=lambda site: site.layer)
        places = [ran.get(module, -1) for s in sites if (module := _module(model, s)) is not None]
        if places != sorted(places):
            wrong.append(stack)
    note = f"layers of {', '.join(wrong)} are not in the order of execution" if wrong else ""
    return Check(what="layer order", where="the trace", passed=not wrong, note=note)


def _path(site: Site) -> str:
    return site.path.partition("[")[0]


def _module(model: nn.Module, site: Site) -> nn.Module | None:
    try:
        return model.get_submodule(_path(site))
    except AttributeError:
        return None


def _name(subject: Subject) -> str:
    parameter = next(subject.model.parameters(), None)
    kind = "" if parameter is None else f" ({str(parameter.dtype).removeprefix('torch.')})"
    return f"{subject.name or type(subject.model).__name__}{kind}"
