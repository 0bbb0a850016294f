"""The gate before any reinforcement learning: does a score find the choices that matter?

`python -m benchmarks.credit.gate` ranks the tokens of sampled responses of the supervised policies
by each score, at both row alignments, and writes the table and its numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

import attnscope
from attnscope.credit import (
    ReadingPlan,
    Readings,
    calibrate,
    completion_batch,
    emitting_row,
    own_row,
    read_responses,
)
from attnscope.metrics import receiver_score, sentence_attention, vertical_scores, waad_change
from benchmarks.credit.arms import SCALED
from benchmarks.credit.auroc import Area, areas
from benchmarks.credit.evaluation import held_out_prompts, problem_numbers
from benchmarks.credit.policy import CHECKPOINTS, load_policy
from benchmarks.credit.records import RESULTS
from benchmarks.credit.replay import Labels, label_batch
from benchmarks.credit.sampling import respond
from benchmarks.credit.task import LONGEST, PAD, PROMPT, VOCABULARY, prompt_ids
from benchmarks.results import write_section

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = ["LABELS", "findings", "measure", "table", "token_scores"]

RESPONSES, _SEED = 512, 42
_PROXIMITY, _RECEIVERS = 2, 4
LABELS = {
    "choice": "choices among all tokens",
    "fatal": "fatal choices among all tokens",
    "fatal_choice": "fatal choices among choices that still had hope",
}
BASELINE = "position, earlier first"


def measure(policy: "LlamaForCausalLM", count: int = RESPONSES) -> dict[str, dict[str, Area]]:
    """Return the area of each score for each label, on one response to each of some problems."""
    prompts = torch.randperm(len(held_out_prompts()), generator=_generator())[:count]
    problems = [held_out_prompts()[number] for number in prompts.tolist()]
    ids = torch.tensor([prompt_ids(problem) for problem in problems])
    responses = respond(policy, ids, torch.rand(count, LONGEST, generator=_generator()))
    mask = responses != PAD
    labels = label_batch(problems, responses)
    problem = problem_numbers()[prompts].unsqueeze(1).expand(mask.shape)
    scores = token_scores(policy, ids, responses)
    return {
        name: areas(
            {key: values[tokens] for key, values in scores.items()},
            marked[tokens],
            problem[tokens],
            BASELINE,
        )
        for name, (marked, tokens) in _tasks(labels, mask).items()
    }


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


def _tasks(labels: Labels, mask: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return for each label the tokens that are marked, and those that they are among."""
    return {
        "choice": (labels.decision, mask),
        "fatal": (labels.fatal, mask),
        "fatal_choice": (labels.fatal, labels.hopeful & mask),
    }


def token_scores(
    policy: "LlamaForCausalLM",
    prompts: Int[Tensor, "batch prompt"],
    responses: Int[Tensor, "batch response"],
) -> dict[str, Float[Tensor, "batch response"]]:
    """Return every score of every response token, by name; row metrics at both alignments."""
    mask = responses != PAD
    batch = completion_batch(prompts, torch.ones_like(prompts), responses, mask)
    heads = calibrate(policy, batch, SCALED, micro_batch=len(mask))
    receivers, received = _by_columns(policy, prompts, responses, heads.layers)
    plan = ReadingPlan(
        needs=frozenset({"local_waad", "global_fai", "receiver_fai", "entropy", "log_probability"}),
        preset=SCALED,
        calibration=heads.with_receivers(receivers, _RECEIVERS),
    )
    readings = read_responses(policy, batch, plan, micro_batch=len(mask))
    place = torch.arange(mask.shape[1]).expand(mask.shape)
    return {
        **_row_scores(readings),
        "FAI of the global heads": readings.require("global_fai", measure),
        "FAI of the receiver heads": readings.require("receiver_fai", measure),
        "attention received in all": received,
        "surprise, - log p": -readings.require("log_probability", measure),
        BASELINE: -place.float(),
    }


def _row_scores(readings: Readings) -> dict[str, Tensor]:
    entropy = readings.require("entropy", measure)
    change = waad_change(readings.require("local_waad", measure))
    rows = {"emitting row": emitting_row, "own row": own_row}
    return {
        f"{metric}, {name}": align(values)
        for metric, values in (("entropy", entropy), ("WAAD change", change))
        for name, align in rows.items()
    }


def _by_columns(
    policy: "LlamaForCausalLM", prompts: Tensor, responses: Tensor, layers: Sequence[int]
) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "batch response"]]:
    """Return the receiver score of each head, and the attention that each token receives.

    Receiver scores are averaged over the responses, whose sentences are their steps; attention
    received is the mean over all heads that are read of what later response tokens give.
    """
    subject = attnscope.Subject(policy)
    received = torch.full(responses.shape, torch.nan)
    scores = []
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        own = response[response != PAD]
        ids = torch.cat([prompt, own])[None]
        trace = attnscope.capture(subject, {"input_ids": ids}, layers=list(layers))
        later = torch.zeros(policy.config.num_attention_heads, ids.shape[1], 1)
        later[:, PROMPT:] = 1.0
        sums = [trace.attention[layer].apply_transpose(later) for layer in layers]
        own_mass = [trace.attention[layer].band(1).squeeze(-1) for layer in layers]
        mass = torch.stack(sums).squeeze(-1) - torch.stack(own_mass)
        received[row, : len(own)] = mass.mean((0, 1))[PROMPT:]
        scores.append(_receiver_scores(trace, layers, own))
    return torch.stack(scores).nanmean(0), received


def _receiver_scores(
    trace: "attnscope.Trace", layers: Sequence[int], response: Int[Tensor, " token"]
) -> Float[Tensor, "layer head"]:
    ends = (response == VOCABULARY[";"]).nonzero().flatten() + PROMPT + 1
    starts = [PROMPT, *ends.tolist()]
    spans = list(pairwise(starts))
    if len(spans) < _PROXIMITY + 2:
        return torch.full((len(layers), trace.attention[layers[0]].shape[-3]), torch.nan)
    averaged = torch.stack([sentence_attention(trace.attention[one], spans) for one in layers])
    return receiver_score(vertical_scores(averaged, _PROXIMITY))


def findings(found: dict[str, dict[str, dict[str, Area]]]) -> str:
    """Return which scores lead over position in every policy, with intervals above 0."""
    lines = ["Better than position in every policy, by the whole interval:", ""]
    for label, title in LABELS.items():
        scores = next(iter(found.values()))[label]
        leading = [
            score
            for score in scores
            if all(areas[label][score].lead_low > 0 for areas in found.values())
        ]
        lines.append(f"- {title}: {'; '.join(leading) if leading else 'none'}.")
    return "\n".join(lines)


def table(found: dict[str, dict[str, dict[str, Area]]]) -> str:
    """Return the table of all policies, labels and scores."""
    lines = []
    for label, title in LABELS.items():
        lines += ["", f"{title[0].upper()}{title[1:]}:", "", _head(list(found)), _rule(len(found))]
        for score in next(iter(found.values()))[label]:
            cells = [_cell(found[policy][label][score]) for policy in found]
            lines.append(f"| {score} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def _head(policies: list[str]) -> str:
    titles = [f"policy {name}: area | lead over position" for name in policies]
    return f"| score | {' | '.join(titles)} |"


def _rule(policies: int) -> str:
    return "| --- |" + " --- | --- |" * policies


def _cell(one: Area) -> str:
    return (
        f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f}) | "
        f"{one.lead:+.2f} ({one.lead_low:+.2f} to {one.lead_high:+.2f})"
    )


def main() -> None:
    """Measure the supervised policies, keep the numbers, and write the table."""
    torch.set_num_threads(1)
    found = {
        path.stem.removeprefix("supervised-"): measure(load_policy(path))
        for path in sorted(CHECKPOINTS.glob("supervised-*.safetensors"))
    }
    _keep(found, RESULTS / "gate.json")
    write_section("credit gate", f"{findings(found)}\n\n{table(found)}")


def _keep(found: dict[str, dict[str, dict[str, Area]]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {
        policy: {
            label: {score: asdict(one) for score, one in scores.items()}
            for label, scores in labels.items()
        }
        for policy, labels in found.items()
    }
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(plain, indent=1) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    main()
