"""The rhythm of a response on the screen: a table of its heads, and one of its tokens."""

from collections.abc import Mapping, Sequence
from math import isnan

from rich.console import Console

from attnscope.app.screen import plain_table, screen, visible
from attnscope.metrics import Reading, head_groups, readings_of
from attnscope.traces import Trace

__all__ = ["print_heads", "print_tokens", "rhythm_readings"]

_METRICS = (
    "head_span",
    "entropy",
    "sink_mass",
    "local_waad",
    "global_fai",
    "preplan_token",
    "anchor_token",
)
_MARKS = {(True, True): "both", (True, False): "preplan", (False, True): "anchor"}
_ABOUT_HEADS = """\
span         how far back the head looks from the response, in tokens
entropy      how widely it looks from there, in nats
first token  share of its attention from there on the first token
group        local: the 30 % with the shortest span; global: the 30 % with the longest"""
_ABOUT_TOKENS = """\
WAAD     how far back the local heads look from the token, distances over 10 counting as 10
FAI      attention that it gets from the tokens 10 to 50 places later, in the global heads
entropy  how undecided the model was when it wrote the token, in nats
mark     preplan: WAAD is about to change most; anchor: FAI is highest; 40 % of the tokens each"""
_LONGEST_TOKEN = 11
_BLOCK = 49


def rhythm_readings(trace: Trace) -> dict[str, Reading]:
    """Return the readings that the tables show, of the response's tokens.

    Raises:
        TraceError: The trace has no response.
        MetricError: Its attention is not that of a causal model.
    """
    positions = trace.segments["response"]
    readings = readings_of(trace.observe(), _METRICS, {"sink_mass": {"queries": positions}})
    spread = readings["entropy"].select(query=positions).mean("query")
    chosen = {
        name: readings[name].select(**{readings[name].axes[0]: positions}) for name in _METRICS[3:]
    }
    return {**readings, "entropy": spread, **chosen}


def print_heads(readings: Mapping[str, Reading]) -> None:
    """Print a row for each head: span, entropy, first-token mass, and its group."""
    span = readings["head_span"]
    groups = head_groups(span.values)
    rows = []
    for row, layer in enumerate(span.coordinates["layer"]):
        for head in span.coordinates["head"]:
            group = "local" if groups.local_heads[row, head] else ""
            group = "global" if groups.global_heads[row, head] else group
            numbers = [
                _number(float(readings[name].values[row, head]), decimals)
                for name, decimals in zip(_METRICS, (1, 2, 3), strict=False)
            ]
            rows.append([f"L{layer}H{head}", *numbers, group])
    console = screen()
    console.print("\nHeads", style="bold")
    _print_blocks(console, ["head", ">span", ">entropy", ">first token", "group"], rows)
    console.print(_ABOUT_HEADS, style="dim")


def print_tokens(readings: Mapping[str, Reading], trace: Trace) -> None:
    """Print a row for each token of the response, with its marks."""
    waad, fai = readings["local_waad"].values, readings["global_fai"].values
    preplan = (readings["preplan_token"].values == 1).tolist()
    anchor = (readings["anchor_token"].values == 1).tolist()
    rows = []
    for place, position in enumerate(trace.segments["response"]):
        entropy = float("nan") if trace.entropies is None else float(trace.entropies[position])
        rows.append(
            [
                str(position),
                visible(trace.tokens[position])[:_LONGEST_TOKEN],
                _number(float(waad[place]), 2),
                _number(float(fai[place]), 3),
                _number(entropy, 2),
                _MARKS.get((preplan[place], anchor[place]), ""),
            ]
        )
    console = screen()
    console.print("\nTokens of the response", style="bold")
    _print_blocks(console, [">place", "token", ">WAAD", ">FAI", ">entropy", "mark"], rows)
    console.print(_ABOUT_TOKENS, style="dim")


def _number(value: float, decimals: int) -> str:
    return "-" if isnan(value) else f"{value:.{decimals}f}"


def _print_blocks(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in blocks side by side, as many as fit; down the first block, then the next."""
    count = max(1, min(console.width // _BLOCK, 2 if len(rows) > 1 else 1))
    height = -(-len(rows) // count)
    table = plain_table(*columns, *(name for _ in range(count - 1) for name in ("", *columns)))
    table.collapse_padding = True
    for line in range(height):
        cells: list[str] = []
        for block in range(count):
            index = block * height + line
            found = rows[index] if index < len(rows) else [""] * len(columns)
            cells += [*([""] if block else []), *found]
        table.add_row(*cells)
    console.print(table)
