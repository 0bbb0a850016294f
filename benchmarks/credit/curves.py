"""The figure: accuracy of the core arms while training, and their differences from uniform."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.credit.contrasts import compare
from benchmarks.credit.records import RunRecord

__all__ = ["draw_comparison"]

_SMOOTH = 5


def draw_comparison(runs: Sequence[RunRecord], arms: Sequence[str], path: Path) -> None:
    """Write the figure as a picture; arms without runs are left out.

    Curves are means over the seeds that all these arms have, so that none had easier problems.
    """
    from matplotlib.figure import Figure

    done = [run for run in runs if not run.failed]
    present = [arm for arm in arms if any(run.arm == arm for run in done)]
    figure = Figure(figsize=(10, 4), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    colors = {arm: "black" if arm == "uniform" else f"C{n}" for n, arm in enumerate(arms)}
    shared = _shared_seeds(done, present)
    for arm in present if shared else ():
        own = [run for run in done if run.arm == arm and (run.supervised, run.seed) in shared]
        curve = _mean_curve(own)
        left.plot(range(1, len(curve) + 1), curve, color=colors[arm], label=arm)
        left.legend(frameon=False, fontsize=8)
    left.set(xlabel="step", ylabel="accuracy on training batches (%)")
    left.set_title(f"mean of {len(shared)} seeds and {_SMOOTH} steps", fontsize=9)
    others = [arm for arm in present if arm != "uniform"]
    for row, arm in enumerate(others):
        one = compare(runs, (arm, "uniform"))
        if one is not None:
            right.plot([one.low, one.high], [row, row], color=colors[arm])
            right.plot(one.estimate, row, "o", color=colors[arm])
    right.axvline(0, color="0.6", linewidth=0.8)
    right.set_yticks(range(len(others)), others)
    right.invert_yaxis()
    right.set_xlabel("accuracy at the end minus uniform (points, 95 % interval)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _shared_seeds(runs: Sequence[RunRecord], arms: Sequence[str]) -> set[tuple[int, int]]:
    """Return the seeds that every arm has a run of."""
    seeds = [{(run.supervised, run.seed) for run in runs if run.arm == arm} for arm in arms]
    return set.intersection(*seeds) if seeds else set()


def _mean_curve(runs: Sequence[RunRecord]) -> list[float]:
    """Return the mean accuracy over runs, each step's with those right before it."""
    steps = range(min(len(run.curve["reward"]) for run in runs))
    mean = [100 * fmean(run.curve["reward"][step] for run in runs) for step in steps]
    return [fmean(mean[max(0, step + 1 - _SMOOTH) : step + 1]) for step in steps]
