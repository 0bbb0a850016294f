"""The results: a line of JSON per finished run, a file per arm, written whole or not at all."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["RESULTS", "RunKey", "RunRecord", "finished", "read_runs", "record_run"]

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """What names a run; runs that differ in the arm alone are pairs."""

    supervised: int
    seed: int
    arm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What is kept of a run.

    Attributes:
        arm: The arm.
        supervised: Seed of the supervised policy that it started from.
        seed: Seed of its prompts, its responses and its rule.
        solved: How many samples of each held-out prompt are right, a digit each.
        curve: One number per step and statistic; `reward` is the accuracy on the training batch.
        heads: The frozen groups of heads, as places (layer, head), where the rule reads attention.
        seconds: Time of a step, the median.
        failed: Why the run was given up; empty if it was not.
    """

    arm: str
    supervised: int
    seed: int
    solved: str
    curve: dict[str, list[float]]
    heads: dict[str, list[list[int]]]
    seconds: float
    failed: str = ""

    @property
    def key(self) -> RunKey:
        """Return what names the run."""
        return RunKey(self.supervised, self.seed, self.arm)


def record_run(run: RunRecord, folder: Path = RESULTS) -> None:
    """Add a run to its arm's file; a run that is there already is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.arm}.jsonl"
    with _alone(folder):
        runs = {one.key: one for one in _read(path)} | {run.key: run}
        temporary = path.with_suffix(".partial")
        temporary.write_text(
            "".join(json.dumps(asdict(one)) + "\n" for _, one in sorted(runs.items()))
        )
        temporary.replace(path)


def read_runs(folder: Path = RESULTS) -> list[RunRecord]:
    """Return all runs that are finished, in order."""
    runs = [run for path in sorted(folder.glob("*.jsonl")) for run in _read(path)]
    return sorted(runs, key=lambda run: run.key)


def finished(folder: Path = RESULTS) -> set[RunKey]:
    """Return the runs that need not be done again."""
    return {run.key for run in read_runs(folder)}


def _read(path: Path) -> list[RunRecord]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [RunRecord(**json.loads(line)) for line in lines]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing while this one does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
