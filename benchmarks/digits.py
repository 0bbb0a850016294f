"""The digit classifiers side by side: accuracy, size, and where each mechanism looks.

`python -m benchmarks.digits FOLDER` measures the classifiers that
`python -m attnscope.models.subjects.digits.train FOLDER` wrote: a row for each mechanism and layer
in `digits.csv`, the picture `digits.svg`, and the table.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pandas
import torch
import typer

from attnscope.attention import AttentionOperator, DenseAttention, GateAttention
from attnscope.metrics import (
    attention_entropy,
    negative_share,
    patch_distance,
    received_attention,
    row_sum,
)
from attnscope.models.subjects.digits import (
    MECHANISMS,
    DigitClassifier,
    Pictures,
    heldout,
    load_classifier,
    training_facts,
)
from attnscope.probes import Subject, capture
from benchmarks.results import write_section

_DATA = Path(__file__).with_name("digits.csv")
_FIGURE = Path(__file__).with_name("digits.svg")
_GRID = (8, 8)
_SINK = 0.3


def looks(attention: AttentionOperator) -> dict[str, float]:
    """Return where one layer looks on one picture, as means over heads and queries.

    Distance, entropy and sinks are of rows rescaled to distributions; NaN where rows are signed or
    gates, and a distance where keys are not the patches. A head has a sink if some patch receives
    more than 0.3 of the attention on average (Gu et al. 2024, arXiv:2410.10781, ask it of the first
    token).
    """
    found = {"row_sum": row_sum(attention), "negative_share": negative_share(attention)}
    if attention.signed or isinstance(attention, GateAttention):
        return {name: _mean(values) for name, values in found.items()}
    shares = attention.normalized()
    found["entropy"] = attention_entropy(shares)
    found["sink_rate"] = (received_attention(shares).amax(-1) > _SINK).float()
    if attention.queries == attention.keys == _GRID[0] * _GRID[1]:
        found["distance"] = patch_distance(shares, _GRID)
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: torch.Tensor) -> float:
    return values.nanmean().item()


def rows(mechanism: str, model: DigitClassifier, pictures: Pictures) -> Iterator[dict[str, Any]]:
    """Yield what each layer does on each picture; a layer of several sites gives a row for each."""
    for pixels in pictures.pixels:
        trace = capture(Subject(model), {"pixel_values": pixels[None]})
        for observation in trace.observations:
            yield {
                "mechanism": mechanism,
                "layer": observation.site.layer,
                "site": observation.site.stack.removeprefix("blocks.mechanism.module."),
                "operator": type(observation.attention).__name__,
                **looks(observation.attention),
            }


def table(data: pandas.DataFrame) -> str:
    """Return the table: one line for each mechanism, means over layers and pictures."""
    lines = [
        "| mechanism | accuracy | parameters | distance (patches) | entropy (nats) | sink heads "
        "| row sum | negative share | operators |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --- |",
    ]
    for mechanism, part in data.groupby("mechanism", sort=False):
        means = part[["distance", "entropy", "sink_rate", "row_sum", "negative_share"]].mean()
        kinds = ", ".join(f"`{kind}`" for kind in part["operator"].unique())
        lines.append(
            f"| {mechanism} | {part['accuracy'].iloc[0]:.1%} | {part['parameters'].iloc[0]:,} "
            f"| {_number(means['distance'])} | {_number(means['entropy'])} "
            f"| {_number(means['sink_rate'], '.0%')} | {_number(means['row_sum'])} "
            f"| {_number(means['negative_share'], '.0%')} | {kinds} |"
        )
    return "\n".join(lines)


def _number(value: float, form: str = ".2f") -> str:
    return "-" if value != value else format(value, form)


def draw(data: pandas.DataFrame, path: Path) -> None:
    """Draw accuracy, and the distance of attention by layer."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    accuracy = data.groupby("mechanism", sort=False)["accuracy"].first().sort_values()
    distance = data.pivot_table(index="layer", columns="mechanism", values="distance")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.barh(accuracy.index, accuracy * 100, color="#4477aa")
    left.bar_label(left.containers[0], fmt="%.1f", padding=3)
    left.set(xlabel="held-out accuracy (%)", xlim=(0, 110))
    for mechanism in distance:
        right.plot(distance.index, distance[mechanism], marker="o", markersize=4)
    right.hlines(_uniform(), 0, distance.index.max(), colors="#888888", linestyles=":")
    right.annotate("uniform", (0, _uniform()), va="bottom", fontsize=8, color="#666666")
    _label_ends(right, distance)
    right.set(xlabel="layer", ylabel="mean distance of attention (patches)", xticks=distance.index)
    right.set_xlim(-0.2, distance.index.max() + 1.5)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _uniform() -> float:
    """Return the distance of attention that reads all patches alike."""
    patches = _GRID[0] * _GRID[1]
    pattern = torch.full((1, patches, patches), 1 / patches)
    return patch_distance(DenseAttention(pattern), _GRID).item()


def _label_ends(axes: Any, lines: pandas.DataFrame) -> None:
    """Write each line's name at its end, those that would collide one above the other."""
    ends = lines.iloc[-1].sort_values()
    step = (lines.max().max() - lines.min().min()) * 0.07
    height = -float("inf")
    for name, end in ends.items():
        height = max(end, height + step)
        color = axes.lines[lines.columns.get_loc(name)].get_color()
        axes.annotate(
            str(name), (lines.index.max() + 0.12, height), va="center", fontsize=8, color=color
        )


def main(
    folder: Annotated[Path, typer.Argument(help="Weights that the training script wrote.")],
    count: Annotated[int, typer.Option(help="Held-out pictures to look at.")] = 40,
) -> None:
    """Measure every classifier of a folder."""
    whole = heldout()
    pictures = Pictures(whole.pixels[:count], whole.labels[:count], whole.corners[:count])
    parts = []
    for mechanism in MECHANISMS:
        facts = training_facts(mechanism, folder)
        seen = pandas.DataFrame(rows(mechanism, load_classifier(mechanism, folder), pictures))
        keys = ["mechanism", "layer", "site", "operator"]
        means = seen.groupby(keys, sort=False).mean().reset_index()
        parts.append(means.assign(accuracy=facts["accuracy"], parameters=facts["parameters"]))
    data = pandas.concat(parts, ignore_index=True)
    data.to_csv(_DATA, index=False, float_format="%.6g")
    draw(data, _FIGURE)
    write_section("digits", table(data))


if __name__ == "__main__":
    typer.run(main)
