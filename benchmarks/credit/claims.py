"""The paper's analyses on a model of ours, or on any other.

`python -m benchmarks.credit.claims` reads the countdown reasoner, and with `MODEL --prompts FILE` a
model of transformers by its id or folder, on the prompts of a file, one per line. The table has
claims, the paper's figures, ours, intervals.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
import typer

import attnscope
from attnscope.metrics import (
    Coupling,
    RhythmCoupling,
    coupling_of,
    rhythm_coupling,
    sentence_spans,
)
from attnscope.models.subjects.countdown import WEIGHTS, prompt_chat, sample_problems
from attnscope.probes import Encoded, Measuring
from attnscope.traces import Trace
from benchmarks.credit.perturbation import Perturbation, perturb, response_of
from benchmarks.credit.records import RESULTS
from benchmarks.credit.stability import Stability, mean_of, over_texts, over_training
from benchmarks.results import write_section

__all__ = ["Row", "bootstrap", "coupling_rows", "perturbation_rows", "table"]

_RESAMPLES, _SEED = 2000, 0
_SENTENCES = 8
"""Twice the distance at which sentences count for receiver heads."""
_COUPLINGS = {
    "entropy_at_waad_peaks": ("entropy at WAAD peaks, lift", "+51.97 %"),
    "receiver_peaks_on_fai_peaks": ("receiver heads' FAI peaks on FAI peaks, lift", "+171.49 %"),
    "fai_peaks_after_waad_peaks": ("FAI peaks at or right after WAAD peaks, lift", "+42.47 %"),
}

Row = tuple[str, str, str, str]
"""Claim, the paper's figure, ours, its 95 % interval."""

Prompts = Sequence[list[dict[str, str]]]


def bootstrap(statistic: Callable[[Sequence[int]], float], count: int) -> tuple[float, float]:
    """Return the 95 % interval of a statistic of some responses, by their numbers."""
    generator = torch.Generator().manual_seed(_SEED)
    draws = torch.randint(count, (_RESAMPLES, count), generator=generator).tolist()
    values = torch.tensor([statistic(draw) for draw in draws], dtype=torch.float64)
    low, high = values.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def coupling_rows(found: Sequence[RhythmCoupling]) -> list[Row]:
    """Return the three lifts of the paper's table."""
    return [
        lift_row(claim, paper, [getattr(coupling, name) for coupling in found])
        for name, (claim, paper) in _COUPLINGS.items()
    ]


def lift_row(claim: str, paper: str, found: Sequence[Coupling]) -> Row:
    """Return a lift: mean observed over mean chance, less 1, where both are defined."""
    pairs = [
        (one.observed, one.chance)
        for one in found
        if one.observed == one.observed and one.chance == one.chance
    ]

    def lift(chosen: Sequence[int]) -> float:
        chance = fmean(pairs[number][1] for number in chosen)
        observed = fmean(pairs[number][0] for number in chosen)
        return 100 * (observed - chance) / chance if chance else float("nan")

    low, high = bootstrap(lift, len(pairs))
    base = fmean(chance for _, chance in pairs)
    ours = f"{lift(range(len(pairs))):+.1f} %"
    return (f"{claim} (chance {base:.3f})", paper, ours, f"{low:+.1f} to {high:+.1f}")


def perturbation_rows(found: Sequence[Perturbation]) -> list[Row]:
    """Return the overlaps at high and low FAI, and how often high FAI changes more."""

    def cells(
        claim: str, paper: str, value: Callable[[Perturbation], float], unit: str = ""
    ) -> Row:
        def mean(chosen: Sequence[int]) -> float:
            return fmean(value(found[number]) for number in chosen)

        low, high = bootstrap(mean, len(found))
        ours = f"{mean(range(len(found))):.3g}{unit}"
        return (claim, paper, ours, f"{low:.3g} to {high:.3g}")

    return [
        cells("overlap after forcing a token at high FAI", "0.534", lambda one: one.high),
        cells("overlap after forcing a token at low FAI", "0.631", lambda one: one.low),
        cells(
            "responses in which high FAI changes more",
            "87.14 %",
            lambda one: 100.0 * (one.high < one.low) + 50.0 * (one.high == one.low),
            " %",
        ),
        cells("place of the high positions (0 to 1)", "not given", lambda one: one.high_place),
        cells("place of the low positions (0 to 1)", "not given", lambda one: one.low_place),
    ]


def stability_rows(title: str, found: Sequence[Stability]) -> list[Row]:
    """Return the agreement of head groups; the interval is of the comparisons themselves."""
    mean = mean_of(found)
    rows = []
    for label, name in (("local heads", "local"), ("global heads", "global_")):
        values = sorted(getattr(one, name) for one in found)
        reach = f"{values[len(values) // 40]:.2f} to {values[-1 - len(values) // 40]:.2f}"
        ours = f"{getattr(mean, name):.2f} (spans correlate {mean.correlation:.2f})"
        rows.append((f"{label} shared {title}", "not given", ours, reach))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    head = ["| claim | the paper | ours | 95 % interval |", "| --- | --: | --: | --- |"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def _prompts(model: str, path: Path | None, count: int) -> Prompts:
    if path is None and model != str(WEIGHTS):
        raise typer.BadParameter(f"{model} needs --prompts FILE, with a prompt on each line")
    if path is None:
        return [prompt_chat(problem) for problem in sample_problems(count, seed=0)]
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    return [[{"role": "user", "content": line}] for line in lines[:count]]


def _answers(
    subject: attnscope.Subject, prompts: Prompts, longest: int, **options: Any
) -> list[Encoded]:
    return [subject.generate(chat, max_new_tokens=longest, **options) for chat in prompts]


def _couplings(
    subject: attnscope.Subject, answers: Sequence[Encoded]
) -> tuple[list[RhythmCoupling], list[Coupling]]:
    """Return the couplings of the responses that are long enough for receiver heads.

    A tenth of the heads are receivers, but 20 at most as in the paper. The second list is of the
    entropy that a WAAD peak's own row predicts with, one position later than the paper's.
    """
    found, own_rows = [], []
    for answer in answers:
        trace = attnscope.capture(subject, answer)
        response = response_of(trace.segments)
        spans = sentence_spans(trace.tokens, min(response, default=0), max(response, default=0) + 1)
        if len(spans) >= _SENTENCES:
            heads = sum(trace.attention[layer].shape[-3] for layer in trace.attention)
            found.append(coupling_of(trace, heads=min(20, max(1, heads // 10))))
            own_rows.append(_own_row_coupling(trace, response))
    return found, own_rows


def _own_row_coupling(trace: Trace, response: Sequence[int]) -> Coupling:
    """Return entropy at WAAD peaks, each token's being that of what its own row predicts."""
    places = torch.tensor(list(response))[:-1]
    waad = attnscope.measure(trace, "local_waad").values[places]
    entropy = require_entropies(trace)[places + 1]
    return rhythm_coupling(waad, waad, waad, entropy).entropy_at_waad_peaks


def require_entropies(trace: Trace) -> torch.Tensor:
    """Return the entropies of a trace.

    Raises:
        ValueError: It was captured without.
    """
    if trace.entropies is None:
        raise ValueError("the couplings need token entropies; this model gives no logits")
    return trace.entropies


def _spans(subject: attnscope.Subject, answers: Sequence[Encoded]) -> torch.Tensor:
    readings = [
        attnscope.capture(subject, answer, into=Measuring("head_span")) for answer in answers
    ]
    return torch.stack([reading["head_span"].values for reading in readings])


def main(
    model: Annotated[str, typer.Argument(help="Folder or id of a model.")] = str(WEIGHTS),
    prompts: Annotated[Path | None, typer.Option(help="A file with a prompt per line.")] = None,
    count: Annotated[int, typer.Option(help="Number of prompts.")] = 70,
    longest: Annotated[int, typer.Option(help="Most tokens of a response.")] = 200,
) -> None:
    """Measure a model, keep the numbers, and write the table; for another model print it alone."""
    torch.set_num_threads(1)
    torch.manual_seed(_SEED)
    chats = _prompts(model, prompts, count)
    subject = attnscope.load(model)
    sampled = _answers(subject, chats, longest, do_sample=True, temperature=0.7)
    couplings, own_rows = _couplings(subject, sampled)
    greedy = _answers(subject, chats, longest)
    tried = [perturb(subject, answer, longest) for answer in greedy]
    perturbations = [one for one in tried if one is not None]
    texts = over_texts(_spans(subject, sampled))
    rows = [
        *coupling_rows(couplings),
        lift_row("the first lift, by the row's own prediction", "not given", own_rows),
        *perturbation_rows(perturbations),
        *stability_rows("by two halves of the texts", texts),
    ]
    if model != str(WEIGHTS):
        print(table(rows))
        return
    trained = over_training()
    if trained:
        rows += stability_rows("before and after training", list(trained.values()))
    _keep(
        {
            "couplings": couplings,
            "own_rows": own_rows,
            "perturbations": perturbations,
            "over_texts": [mean_of(texts)],
            "over_training": list(trained.values()),
        }
    )
    write_section("claims", table(rows))


def _keep(found: Mapping[str, Sequence[Any]]) -> None:
    """Write the numbers behind the table, whole or not at all."""
    content = {name: [asdict(one) for one in values] for name, values in found.items()}
    path = RESULTS / "claims.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(content) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    typer.run(main)
