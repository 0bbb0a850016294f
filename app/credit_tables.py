"""Credit on the screen: what the rule was, the text with its marks, and the heaviest tokens."""

from collections.abc import Iterable, Iterator

from rich.text import Text

from attnscope.app.credit_roles import mark_of
from attnscope.app.credited import Credited, CreditedResponse
from attnscope.app.screen import plain_table, screen, visible, written
from attnscope.credit import AmplifyingRule, HeadCalibration, Preset

__all__ = ["print_credited", "settings_of"]

_STRONG, _WEAK = "bold black on dark_sea_green", "dim"
_HEADINGS = {
    "waad": "WAAD",
    "fai": "FAI",
    "receiver_fai": "receiver FAI",
    "drawn_from_entropy": "entropy",
    "log_probability": "log p",
    "advantage": "advantage",
}


def print_credited(credited: Credited, top: int) -> None:
    """Print what a rule gave.

    Args:
        credited: What it gave.
        top: How many of the heaviest tokens of each response to list.
    """
    console = screen()
    console.print(f"Credit by {credited.entry.name}", style="bold")
    for name, text in settings_of(credited).items():
        console.print(f"{name}: {text}", style="dim")
    _print_summary(credited)
    for response in credited.responses:
        console.print(f"\n{response.path}", style="bold")
        console.print(_drawn(response))
        _print_tokens(response, top)
    named = map(_named, credited.responses[0].classes)
    console.print("; ".join(["shaded: weighs more than 1", *named]), style="dim")


def settings_of(credited: Credited) -> dict[str, str]:
    """Return in words where a rule comes from, its settings, and the heads that were read."""
    entry = credited.entry
    told = {"source": "; ".join(dict.fromkeys((entry.source, entry.evidence)))}
    if isinstance(credited.rule, AmplifyingRule):
        told["settings"] = _preset_in_words(credited.rule.preset)
    if credited.heads is not None:
        told["layers"] = ", ".join(map(str, credited.heads.layers))
        told |= _heads_in_words(credited.heads)
    return told


def _preset_in_words(preset: Preset) -> str:
    rhythm = preset.rhythm
    signs = "advantages of both signs" if rhythm.scales_negative else "nonnegative advantages"
    return (
        f"share {rhythm.share:g}, amplification {preset.amplification:g}, window {rhythm.window}, "
        f"horizon {rhythm.near} to {rhythm.far}, {preset.rows.__name__.replace('_', ' ')}, {signs}"
    )


def _heads_in_words(heads: HeadCalibration) -> dict[str, str]:
    groups = {
        "local heads": heads.local_heads,
        "global heads": heads.global_heads,
        "receiver heads": heads.receiver_heads,
    }
    return {
        name: " ".join(f"L{heads.layers[row]}H{head}" for row, head in members.nonzero().tolist())
        for name, members in groups.items()
        if members is not None
    }


def _print_summary(credited: Credited) -> None:
    table = plain_table("tokens", ">share", ">mean weight")
    numbers = credited.statistics
    table.add_row("all", written(1.0, 3), written(numbers["weight"], 3))
    for role in credited.responses[0].classes:
        share, weight = numbers[f"share/{role}"], numbers[f"weight/{role}"]
        table.add_row(mark_of(role).name, written(share, 3), written(weight, 3))
    screen().print(table)


def _drawn(response: CreditedResponse) -> Text:
    """Return the response with a mark before each selected token, shaded where it weighs more."""
    text = Text()
    gap = "" if any(token.startswith((" ", "\n")) for token in response.tokens) else " "
    for position, token, weight in zip(
        response.positions, response.tokens, response.weights, strict=True
    ):
        marks = "".join(mark_of(role).glyph for role in response.roles_at(position))
        style = _STRONG if weight > 1 else _WEAK if weight < 1 else ""
        text.append(f"{marks}{visible(token)}", style=style)
        text.append(gap)
    return text


def _print_tokens(response: CreditedResponse, top: int) -> None:
    names = list(response.numbers)
    headings = (f">{_HEADINGS[name]}" for name in names)
    table = plain_table(">place", "token", ">weight", "role", *headings)
    for place in _heaviest(response.weights, top):
        position = response.positions[place]
        table.add_row(
            str(position),
            visible(response.tokens[place]),
            written(response.weights[place], 3),
            ", ".join(mark_of(role).name for role in response.roles_at(position)),
            *(written(response.numbers[name][place], 3) for name in names),
        )
    screen().print(table)
    if top < len(response.tokens):
        screen().print(
            f"the {top} heaviest of {len(response.tokens):,} tokens (--top N shows N of them)"
        )


def _heaviest(weights: Iterable[float], top: int) -> Iterator[int]:
    """Yield the places of the largest weights in order of the text; earlier ones among equals."""
    ranked = sorted(enumerate(weights), key=lambda pair: -pair[1])[:top]
    yield from sorted(place for place, _ in ranked)


def _named(role: str) -> str:
    mark = mark_of(role)
    return f"{mark.glyph} {mark.name}"
