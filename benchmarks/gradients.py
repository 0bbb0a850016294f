"""Gradient-based readings from factors, against maps that keep their gradients.

`python -m benchmarks.gradients` measures every way on one model and the same tokens, each length in
a process of its own. The rows are kept in `gradients.json` and drawn as a table; `--length`
measures some lengths anew and keeps the others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from attnscope.metrics import chefer_relevance, layer_saliency, positive_gradient
from attnscope.probes import Subject, capture
from benchmarks.capture import Ways, measure_lengths, measure_ways, model, table, write_rows
from benchmarks.results import write_section

LENGTHS = (512, 2048, 8192)
_DENSE_LIMIT = 2048
_DATA = Path(__file__).with_name("gradients.json")
_OURS = "attnscope, from factors"


def ways(length: int) -> Ways:
    """Return a plain forward and backward pass, ours, and eager maps where they fit."""
    network = model(length).requires_grad_(False)
    tokens = torch.randint(0, 1000, (1, length), generator=torch.Generator().manual_seed(1))

    def plain() -> None:
        embedded = network.get_input_embeddings()(tokens).requires_grad_()
        output = network(inputs_embeds=embedded, use_cache=False)
        torch.autograd.grad(output.logits[0, -1].max(), embedded)

    found: Ways = {
        "plain forward + backward": plain,
        _OURS: lambda: factored_readings(network, tokens),
    }
    if length <= _DENSE_LIMIT:
        eager = model(length).requires_grad_(False)
        eager.load_state_dict(network.state_dict())
        eager.set_attn_implementation("eager")
        found["eager maps + retain_grad"] = lambda: dense_readings(eager, tokens)
    return found


def factored_readings(network: Any, tokens: Tensor) -> Mapping[str, Tensor]:
    """Return the readings of the logit of the likeliest next token, from a trace of factors.

    They are the saliency of the last row, over the L2 norm of the whole map of head sums; the
    column sums of `(A dL/dA)^+` of every head; and the relevance of every token to the last.
    """
    trace = capture(Subject(network), {"input_ids": tokens}, gradient="logit")
    saliency, columns, influences = [], [], []
    for site in trace.observations:
        factors = site.attention, site.value, site.gradient
        saliency.append(layer_saliency(*factors, queries=[-1], norm="matrix")[0])
        influences.append(positive_gradient(*factors))
        columns.append(influences[-1].column_mass())
    return _readings(saliency, columns, chefer_relevance(influences))


def dense_readings(network: Any, tokens: Tensor) -> Mapping[str, Tensor]:
    """Return the same from an eager model's maps and their gradients."""
    embedded = network.get_input_embeddings()(tokens).requires_grad_()
    output = network(inputs_embeds=embedded, use_cache=False, output_attentions=True)
    for pattern in output.attentions:
        pattern.retain_grad()
    output.logits[0, -1].max().backward()
    saliency, columns = [], []
    relevance = torch.zeros(tokens.shape[1])
    relevance[-1] = 1
    with torch.no_grad():
        for pattern in reversed(output.attentions):
            influence = (pattern * pattern.grad)[0]
            summed = influence.abs().sum(0)
            saliency.append(summed[-1] / summed.norm())
            positive = influence.clamp_min(0)
            columns.append(positive.sum(-2))
            relevance = relevance + relevance @ positive.mean(0)
    return _readings(saliency[::-1], columns[::-1], relevance)


def _readings(
    saliency: list[Tensor], columns: list[Tensor], relevance: Tensor
) -> Mapping[str, Tensor]:
    """Return the readings by name; of relevance what is no token's own 1."""
    return {
        "saliency": torch.stack(saliency),
        "columns": torch.stack(columns),
        "relevance": relevance[:-1],
    }


def main(
    length: Annotated[
        list[int] | None, typer.Option(help="Tokens; all lengths by default.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each way; at most 3 of long ones.")] = 3,
    worker: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, and write the table into RESULTS.md."""
    lengths = length or list(LENGTHS)
    if worker is not None:
        write_rows(worker, measure_ways(ways(lengths[0]), _OURS, lengths[0], repeats))
        return
    rows = measure_lengths("benchmarks.gradients", lengths, repeats, _DATA)
    write_section("gradients", table(rows))


if __name__ == "__main__":
    typer.run(main)
