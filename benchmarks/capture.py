"""Streaming statistics beside the fused kernels, against peers that hold the maps.

`python -m benchmarks.capture` measures every way on one model and the same tokens, each length in
a process of its own. The rows are kept in `capture.json` and drawn as a table; `--length` measures
some lengths anew and keeps the others.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from attnscope.probes import Measuring, Subject, capture
from benchmarks.memory import Observed, observed
from benchmarks.peers import blockwise_dense, dense_rhythm, transformer_lens_model
from benchmarks.results import write_section

RHYTHM = ("waad", "fai", "head_span", "sink_mass")
COLUMNS = (*RHYTHM, "entropy", "received_attention")
LENGTHS = (512, 2048, 8192, 32768)
_DENSE_LIMIT, _BLOCKWISE_LIMIT = 2048, 8192
_DATA = Path(__file__).with_name("capture.json")
_PLAIN = "plain forward"
_OURS = "attnscope, rhythm + columns"

Ways = dict[str, Callable[[], Mapping[str, Tensor] | None]]
"""What is compared, each as a call that returns its readings, or None for none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way at one length."""

    length: int
    way: str
    seconds: float
    ratio: float
    peak_mb: float
    peak_ratio: float


def model(length: int) -> Any:
    """Return the model of the benchmark: an 8-layer Qwen2 with random weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=1000,
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            max_position_embeddings=max(length, 4096),
        )
    ).eval()


def ways(length: int) -> Ways:
    """Return the plain forward pass, ours, and the peers that can take this length."""
    network = model(length)
    tokens = torch.randint(0, 1000, (1, length), generator=torch.Generator().manual_seed(1))
    subject = Subject(network)

    def plain() -> None:
        with torch.no_grad():
            network(input_ids=tokens, use_cache=False, logits_to_keep=1)

    def streamed(metrics: tuple[str, ...]) -> Mapping[str, Tensor]:
        readings = capture(subject, {"input_ids": tokens}, into=Measuring(*metrics))
        return {name: reading.values for name, reading in readings.items()}

    found: Ways = {
        _PLAIN: plain,
        "attnscope, rhythm": lambda: streamed(RHYTHM),
        _OURS: lambda: streamed(COLUMNS),
    }
    if length <= _BLOCKWISE_LIMIT:
        for name, columns in (("rhythm", False), ("rhythm + columns", True)):
            found[f"block-wise dense softmax, {name}"] = partial(
                blockwise_dense, network, tokens, columns=columns
            )
    if length <= _DENSE_LIMIT:
        found |= _dense_ways(network, tokens, length)
    return found


def _dense_ways(network: Any, tokens: Tensor, length: int) -> Ways:
    eager = model(length)
    eager.load_state_dict(network.state_dict())
    eager.set_attn_implementation("eager")
    lens = transformer_lens_model(network)

    def output_attentions() -> Mapping[str, Tensor]:
        with torch.no_grad():
            output = eager(
                input_ids=tokens, use_cache=False, output_attentions=True, logits_to_keep=1
            )
        return dense_rhythm([pattern[0] for pattern in output.attentions])

    def run_with_cache() -> Mapping[str, Tensor]:
        with torch.no_grad():
            _, cache = lens.run_with_cache(
                tokens, names_filter=lambda name: name.endswith("hook_pattern")
            )
        return dense_rhythm([cache["pattern", layer][0] for layer in range(8)])

    return {
        "output_attentions": output_attentions,
        "TransformerLens run_with_cache": run_with_cache,
    }


def measure_ways(found: Ways, ours: str, length: int, repeats: int) -> list[Row]:
    """Return the rows of one length; of several runs, each has one of the first way beside it.

    Args:
        found: The ways; the first is what the others are held to.
        ours: The way with whose readings all others have to agree.
        length: Tokens.
        repeats: Runs of each way.
    """
    plain = next(iter(found))
    runs: dict[str, list[Observed]] = {way: [] for way in found}
    for way, call in found.items():
        for _ in range(repeats):
            if repeats > 1:
                runs[plain].append(observed(found[plain]))
            runs[way].append(observed(call))
    for way, measured in runs.items():
        _check_agreement(way, runs[ours][0].result, measured[0].result)
    return [_row(length, way, runs[way], runs[plain]) for way in found]


def _row(length: int, way: str, runs: list[Observed], plain: list[Observed]) -> Row:
    seconds, beside = (min(run.seconds for run in some) for some in (runs, plain))
    # The least peak: later runs stand on memory that earlier ones have not given back.
    peak, baseline = (min(run.peak for run in some) for some in (runs, plain))
    return Row(length, way, seconds, seconds / beside, peak / 2**20, peak / baseline)


def _check_agreement(
    way: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor] | None
) -> None:
    """Compare readings, so that no way wins by computing something else."""
    for name, values in (theirs or {}).items():
        torch.testing.assert_close(
            values,
            ours[name],
            atol=1e-3 * float(ours[name].nan_to_num().abs().max()),
            rtol=1e-3,
            equal_nan=True,
            msg=lambda found, name=name: f"{way}: {name} differs: {found}",
        )


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| tokens | | seconds | times plain | peak MB | times plain |",
        "| --: | --- | --: | --: | --: | --: |",
    ]
    for row in rows:
        memory = f"{row.peak_mb:,.0f} | {row.peak_ratio:.2f}"
        lines.append(
            f"| {row.length:,} | {row.way} | {row.seconds:.2f} | {row.ratio:.2f} | {memory} |"
        )
    return "\n".join(lines)


def main(
    length: Annotated[
        list[int] | None, typer.Option(help="Tokens; all lengths by default.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each way; one at the longest length.")] = 5,
    worker: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, and write the table into RESULTS.md."""
    lengths = length or list(LENGTHS)
    if worker is not None:
        write_rows(worker, measure_ways(ways(lengths[0]), _OURS, lengths[0], repeats))
        return
    rows = measure_lengths("benchmarks.capture", lengths, repeats, _DATA)
    write_section("capture", table(rows))


def measure_lengths(module: str, lengths: list[int], repeats: int, data: Path) -> list[Row]:
    """Have a module measure each length in a process of its own, and return what is kept so far.

    Args:
        module: What is run, with `--length`, `--repeats` and `--worker`.
        lengths: Tokens; rows of other lengths stay as they were measured before.
        repeats: Runs of each way; fewer of long ones, and one beyond 8,192 tokens.
        data: Where rows are kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        for tokens in lengths:
            kept = Path(folder) / f"{tokens}.json"
            runs = 1 if tokens > 8192 else min(repeats, 3) if tokens > 2048 else repeats
            command = ["--length", str(tokens), "--repeats", str(runs), "--worker", str(kept)]
            subprocess.run([sys.executable, "-m", module, *command], check=True)
            _keep(json.loads(kept.read_text()), data)
    return [Row(**row) for row in json.loads(data.read_text())]


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write rows for the process that asked for them."""
    path.write_text(json.dumps([asdict(row) for row in rows]))


def _keep(rows: list[dict[str, Any]], data: Path) -> None:
    """Put the rows of one length in the place of its earlier ones."""
    earlier = json.loads(data.read_text()) if data.exists() else []
    others = [row for row in earlier if row["length"] != rows[0]["length"]]
    merged = sorted([*others, *rows], key=lambda row: row["length"])
    temporary = data.with_suffix(".partial")
    temporary.write_text(json.dumps(merged, indent=1) + "\n")
    temporary.replace(data)


if __name__ == "__main__":
    typer.run(main)
