"""The experiment: `python -m benchmarks.credit.run` does every planned run that is not done yet.

The core arms come first, with all their seeds; seeds go in the outer loop and arms in the inner
one, so that an interrupted experiment is balanced. A killed run is done again from its beginning,
which gives the same numbers. `--part 0 --parts 2` does every other pair of seeds, so that two
processes can share the work.
"""

import statistics
import time
from itertools import chain, islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from attnscope.credit import (
    AmplifyingRule,
    HeadCalibration,
    TokenBatch,
    calibrate,
    completion_batch,
    plan_for,
)
from benchmarks.credit.arms import ARMS, Arm, find_arms
from benchmarks.credit.evaluation import count_solved
from benchmarks.credit.grpo import PROMPTS, RATE, Rollout, roll_out, update
from benchmarks.credit.policy import CHECKPOINTS, load_policy, save_policy
from benchmarks.credit.records import RESULTS, RunKey, RunRecord, finished, record_run
from benchmarks.credit.task import Problem, generator_for, stream_problems

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = ["SEEDS", "STEPS", "SUPERVISED", "calibration_for", "run_arm", "schedule"]

STEPS = 30
SUPERVISED = (0, 1)
SEEDS = tuple(range(101, 109))
KEPT_ARMS = ("uniform", "coupled")
_CALIBRATION_SEED = 77


def kept_policy(key: RunKey) -> Path | None:
    """Return where the policy of a run is kept: two arms of the first seed, for later looks."""
    if key.seed != SEEDS[0] or key.arm not in KEPT_ARMS:
        return None
    return CHECKPOINTS / f"{key.arm}-{key.supervised}.safetensors"


def schedule(arms: tuple[Arm, ...], seeds: tuple[int, ...]) -> list[list[RunKey]]:
    """Return the runs, those of the same seeds together, in the order in which they are done."""
    return [
        [RunKey(supervised, seed, arm.name) for arm in arms]
        for seed, supervised in product(seeds, SUPERVISED)
    ]


def training_problems(seed: int) -> list[list[Problem]]:
    """Return the problems of each step, the same for all arms."""
    stream = stream_problems(generator_for("training", seed), "train")
    return [list(islice(stream, PROMPTS)) for _ in range(STEPS)]


def calibration_rollout(policy: "LlamaForCausalLM") -> Rollout:
    """Return the responses of the supervised policy that heads are ranked by."""
    stream = stream_problems(generator_for("calibration"), "train")
    generator = torch.Generator().manual_seed(_CALIBRATION_SEED)
    return roll_out(policy, list(islice(stream, PROMPTS)), generator)


def calibration_for(
    policy: "LlamaForCausalLM", arm: Arm, rollout: Rollout
) -> HeadCalibration | None:
    """Return the heads of an arm's groups, ranked once; None for rules that read no attention."""
    rule = arm.rule(rollout, 0)
    if not isinstance(rule, AmplifyingRule) or not plan_for(rule).wants_heads:
        return None
    return calibrate(policy, _batch(rollout), rule.preset, micro_batch=len(rollout.mask))


def _batch(rollout: Rollout) -> TokenBatch:
    ones = torch.ones_like(rollout.prompts)
    return completion_batch(rollout.prompts, ones, rollout.responses, rollout.mask)


def run_arm(key: RunKey, *, steps: int = STEPS, keep: Path | None = None) -> RunRecord:
    """Return the record of one run: training from the supervised policy, then the evaluation.

    Args:
        key: The run.
        steps: Number of updates.
        keep: Where to write the policy that comes out; by default it is dropped.
    """
    arm = ARMS[key.arm]
    policy = load_policy(CHECKPOINTS / f"supervised-{key.supervised}.safetensors")
    calibration = calibration_for(policy, arm, calibration_rollout(policy))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(key.seed)
    kept: list[dict[str, float]] = []
    seconds, failed = [], ""
    for step, problems in enumerate(training_problems(key.seed)[:steps]):
        start = time.perf_counter()
        rollout = roll_out(policy, problems, generator)
        part = rollout.uneven_part()
        rule = arm.rule(part, key.seed)
        done = update(policy, optimizer, part, rule, calibration=calibration, draw=step)
        kept.append(_sampled(rollout) | done)
        seconds.append(time.perf_counter() - start)
        if kept[-1]["gradient"] != kept[-1]["gradient"]:
            failed = f"NaN gradient at step {step}"
            break
    if keep is not None:
        save_policy(policy, keep)
    solved = "" if failed else "".join(map(str, count_solved(policy).tolist()))
    return RunRecord(
        arm=key.arm,
        supervised=key.supervised,
        seed=key.seed,
        solved=solved,
        curve={name: [round(one[name], 5) for one in kept] for name in kept[0]},
        heads=_places(calibration),
        seconds=round(statistics.median(seconds), 3),
        failed=failed,
    )


def _sampled(rollout: Rollout) -> dict[str, float]:
    return {
        "reward": float(rollout.rewards.mean()),
        "tokens": rollout.tokens / len(rollout.rewards),
        "even_groups": float(rollout.even.float().mean()),
    }


def _places(calibration: HeadCalibration | None) -> dict[str, list[list[int]]]:
    if calibration is None:
        return {}
    layers = calibration.layers
    return {
        name: [[layers[place], head] for place, head in members.nonzero().tolist()]
        for name in ("local_heads", "global_heads")
        for members in [calibration.group(name)]
    }


def main(
    arms: Annotated[str, typer.Option(help="Names with commas, or a group.")] = "core,secondary",
    seeds: Annotated[int, typer.Option(help="RL seeds per supervised policy.")] = len(SEEDS),
    part: Annotated[int, typer.Option(help="Which share of the seeds to do.")] = 0,
    parts: Annotated[int, typer.Option(help="In how many shares.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = RESULTS,
) -> None:
    """Do the runs that are not done yet, one after the other on one thread, group by group."""
    torch.set_num_threads(1)
    groups = [schedule(find_arms(name), SEEDS[:seeds])[part::parts] for name in arms.split(",")]
    for key in chain.from_iterable(chain.from_iterable(groups)):
        if key not in finished(folder):
            start = time.perf_counter()
            record = run_arm(key, keep=kept_policy(key))
            record_run(record, folder)
            total = sum(map(int, record.solved)) / max(1, 4 * len(record.solved))
            minutes = (time.perf_counter() - start) / 60
            print(f"{key}: {total:.3f} solved, {minutes:.1f} minutes", flush=True)


if __name__ == "__main__":
    typer.run(main)
