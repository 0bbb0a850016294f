"""The analysis: `python -m benchmarks.credit.analyse` writes the table, the figure and the verdict.

It is right for any number of finished runs, and says how many there are.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

import typer

from benchmarks.credit.arms import ARMS, CORE
from benchmarks.credit.contrasts import Contrast, Difference, accuracy, compare, holm, pairs_of
from benchmarks.credit.curves import draw_comparison
from benchmarks.credit.records import RESULTS, RunRecord, read_runs
from benchmarks.credit.verdict import CONFIRMATORY, HEADROOM, PLANNED_PAIRS, conclusion
from benchmarks.results import write_section

__all__ = ["report"]

FIGURE = RESULTS / "comparison.png"


def report(runs: Sequence[RunRecord]) -> str:
    """Return the section on the experiment."""
    found = {one: compare(runs, one) for one in (HEADROOM, *CONFIRMATORY)}
    pairs = min(one.pairs if one else 0 for one in found.values())
    return "\n\n".join(
        [
            f"**{conclusion(found)}**",
            f"{pairs} of {PLANNED_PAIRS} planned pairs of the arms that decide are in, {len(runs)} "
            "runs of all arms. Accuracy is the share of four samples of each of the 1,436 held-out "
            "prompts that the verifier accepts after the last step; differences are in points, "
            "paired by supervised policy and seed.",
            _contrast_table(found),
            _arm_table(runs),
            f"![Accuracy while training, and differences at the end](credit/results/{FIGURE.name})",
        ]
    )


def _contrast_table(found: dict[Contrast, Difference | None]) -> str:
    corrected = _corrected(found)
    lines = [
        "| contrast | pairs | difference | 95 % interval | sd of pairs | p | Holm |",
        "| --- | --: | --: | --- | --: | --: | --: |",
    ]
    for (first, second), one in found.items():
        if one is None:
            lines.append(f"| {first} - {second} | 0 | | | | | |")
            continue
        adjusted = corrected.get((first, second))
        lines.append(
            f"| {first} - {second} | {one.pairs} | {one.estimate:+.2f} | {_interval(one)} | "
            f"{f'{one.deviation:.2f}' if one.pairs > 1 else ''} | {one.p_value:.4f} | "
            f"{'' if adjusted is None else f'{adjusted:.4f}'} |"
        )
    return "\n".join(lines)


def _corrected(found: dict[Contrast, Difference | None]) -> dict[Contrast, float]:
    """Return Holm's p-values of the confirmatory contrasts that have pairs."""
    tested = [
        (contrast, one.p_value)
        for contrast in CONFIRMATORY
        for one in [found[contrast]]
        if one is not None
    ]
    values = holm([p_value for _, p_value in tested])
    return {contrast: value for (contrast, _), value in zip(tested, values, strict=True)}


def _arm_table(runs: Sequence[RunRecord]) -> str:
    lines = [
        "| arm | what it does | runs | accuracy | sd | minus uniform | 95 % interval | "
        "training accuracy minus uniform | selected | mean weight | s / step |",
        "| --- | --- | --: | --: | --: | --: | --- | --: | --: | --: | --: |",
    ]
    for arm in ARMS.values():
        own = [run for run in runs if run.arm == arm.name and not run.failed]
        if own:
            lines.append(f"| {arm.name} | {arm.title} | {_arm_cells(runs, own)} |")
    return "\n".join(lines)


def _arm_cells(runs: Sequence[RunRecord], own: Sequence[RunRecord]) -> str:
    name = own[0].arm
    scores = [accuracy(run) for run in own]
    spread = f"{stdev(scores):.1f}" if len(scores) > 1 else ""
    against = compare(runs, (name, "uniform")) if name != "uniform" else None
    gain = [100 * (_area(a) - _area(b)) for a, b in pairs_of(runs, (name, "uniform"))]
    cells = [
        f"{len(own)}",
        f"{fmean(scores):.1f} %",
        spread,
        f"{against.estimate:+.2f}" if against else "",
        _interval(against) if against else "",
        f"{fmean(gain):+.2f}" if gain and name != "uniform" else "",
        f"{fmean(fmean(run.curve['selected']) for run in own):.0%}",
        f"{fmean(fmean(run.curve['weight']) for run in own):.2f}",
        f"{fmean(run.seconds for run in own):.1f}",
    ]
    return " | ".join(cells)


def _area(run: RunRecord) -> float:
    """Return the mean accuracy over all training batches: the area under the curve."""
    return fmean(run.curve["reward"])


def _interval(one: Difference) -> str:
    return f"{one.low:+.2f} to {one.high:+.2f}"


def main(
    folder: Annotated[Path, typer.Option(help="Where the results are.")] = RESULTS,
) -> None:
    """Write the section of RESULTS.md and the figure."""
    runs = read_runs(folder)
    draw_comparison(runs, [arm.name for arm in CORE], FIGURE)
    write_section("credit", report(runs))


if __name__ == "__main__":
    typer.run(main)
