"""The sections of a report; what could not be measured is said, with the reason."""

import html

from attnscope.figures.palette import ANCHOR, PREPLAN, Mark
from attnscope.figures.quantity import label_of
from attnscope.figures.report_page import Section, embedded
from attnscope.figures.report_tables import TABLE_ROWS, fact_list, head_table, token_table
from attnscope.figures.report_words import EXPLANATIONS, WORDS_ON_UNCERTAINTY, unit_and_range
from attnscope.figures.scale import short_number
from attnscope.figures.token_text import plain, separator
from attnscope.figures.trace_pictures import HeadName, TracePictures
from attnscope.traces import Trace

__all__ = ["provenance_facts", "report_sections"]


def provenance_facts(trace: Trace) -> str:
    """Return where a trace comes from, as markup."""
    origin = trace.provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    pairs = [
        ("model", origin.model or "not named"),
        ("revision", origin.revision or ""),
        ("computed in", origin.dtype or ""),
        ("gradients of", origin.gradient_target or ""),
        ("versions", versions),
        *origin.notes.items(),
        ("card", "; ".join(trace.card.lines())),
    ]
    return fact_list((name, html.escape(text)) for name, text in pairs if text)


def report_sections(pictures: TracePictures) -> list[Section]:
    """Return the sections in reading order, without those that would be empty."""
    sections = [
        ("overview", "Overview", _overview(pictures)),
        ("text", "The text", _text(pictures)),
        ("rhythm", "Rhythm", _rhythm(pictures)),
        ("heads", "Heads", _heads(pictures)),
        ("maps", "Maps", _maps(pictures)),
        ("numbers", "What the numbers mean", _words(pictures)),
    ]
    return [section for section in sections if section[2]]


def _overview(pictures: TracePictures) -> str:
    shown, total = len(pictures.positions), len(pictures.queries.tokens)
    kind = f"{pictures.queries.axis}s"
    facts = [
        (kind, f"{total:,}<small>{shown:,} of them shown here</small>"),
        (
            "layers and heads",
            f"{pictures.layers} and {pictures.heads}<small>{html.escape(pictures.stack)}</small>",
        ),
    ]
    if pictures.distance:
        ranked = pictures.heads_by(pictures.distance)
        unit = pictures.readings[pictures.distance].unit
        for name, (head, span) in zip(
            ("most local head", "most global head"), ranked[:: len(ranked) - 1 or 1], strict=False
        ):
            facts.append(
                (name, f"{head}<small>{short_number(span)} {unit} away on average</small>")
            )
    if pictures.has_rhythm:
        facts.append(("strongest preplan token", _strongest(pictures, "preplan")))
        facts.append(("strongest anchor token", _strongest(pictures, "global_fai")))
    return fact_list(facts, "strong")


def _strongest(pictures: TracePictures, name: str) -> str:
    reading = pictures.readings[name]
    if bool(reading.values.isnan().all()):
        return "none<small>the text is too short</small>"
    axis, place = reading.axes[0], int(reading.values.nan_to_num(-1.0).argmax())
    token = plain(str(reading.coordinates[axis][place])).strip() or "a space"
    return f"{html.escape(token)}<small>at position {reading.positions[axis][place]}</small>"


def _text(pictures: TracePictures) -> str:
    ribbons = pictures.ribbons()
    if not ribbons:
        return ""
    return (
        f"{_what_stands_before(pictures)}"
        "<p>Every token twice. First tinted by how far back the local heads look from it; "
        f"{_glyph(PREPLAN)} marks preplan tokens{_share(pictures, 'preplan_token')}. Then by how "
        f"much later tokens read it; {_glyph(ANCHOR)} marks anchor "
        f"tokens{_share(pictures, 'anchor_token')}. Point at a token for its number.</p>"
        + "".join(ribbon.markup() for ribbon in ribbons.values())
    )


def _what_stands_before(pictures: TracePictures) -> str:
    tokens = pictures.queries.tokens
    before = tokens[: pictures.positions[0]]
    if not before:
        return ""
    text = html.escape(separator(tokens).join(before))
    return (
        f"<details><summary>What stands before it ({len(before):,} tokens)</summary>"
        f'<pre class="prompt">{text}</pre></details>'
    )


def _share(pictures: TracePictures, name: str) -> str:
    share = pictures.readings[name].options.get("share")
    return f" (the top {share:.0%})" if isinstance(share, float) else ""


def _rhythm(pictures: TracePictures) -> str:
    plot = pictures.rhythm()
    if plot is None:
        found = (pictures.reasons.get(name, "") for name in ("local_waad", "global_fai"))
        return "".join(_note("Not shown", reason) for reason in dict.fromkeys(found) if reason)
    tables = token_table("Top preplan tokens", pictures.readings["preplan"], "change of WAAD")
    tables += token_table("Top anchor tokens", pictures.readings["global_fai"], "FAI")
    return (
        "<p>The same numbers as curves. A text that is planned in phrases shows a saw-tooth: the "
        "look back rises where a phrase opens and falls while it is filled in. Drag to zoom in, "
        f"double-click to return.</p><figure>{embedded(plot.plotly())}</figure>"
        f'<div class="columns">{tables}</div>'
    )


def _heads(pictures: TracePictures) -> str:
    parts = []
    for name, grid in pictures.grids().items():
        label = html.escape(label_of(pictures.readings[name]))
        words = html.escape(EXPLANATIONS.get(name, ""))
        parts.append(
            _figure(f'{label}. <span class="soft">{words}</span>', embedded(grid.plotly()))
        )
    scatter = pictures.scatter()
    if scatter is not None:
        caption = (
            "Spread against distance, one point per head. Local heads stand on the left, global "
            "heads on the right; those low on the right look far at few tokens, often at a sink."
        )
        parts.append(_figure(caption, embedded(scatter.plotly())))
    name = pictures.distance or "entropy"
    if name in pictures.readings:
        ranked = [head for head, _ in pictures.heads_by(name)]
        title = pictures.readings[name].title.lower()
        parts.append(f'<div class="columns">{_head_tables(pictures, ranked, title)}</div>')
    return "".join(parts)


def _head_tables(pictures: TracePictures, ranked: list[HeadName], title: str) -> str:
    count = len(ranked) // 2
    if count < TABLE_ROWS:
        return head_table(pictures, f"Heads by {title}", ranked, 2 * TABLE_ROWS)
    lowest = head_table(pictures, f"Lowest {title}", ranked)
    return lowest + head_table(pictures, f"Highest {title}", ranked[::-1])


def _maps(pictures: TracePictures) -> str:
    maps, gray = [], ""
    for word, head, shown in pictures.maps():
        caption = (
            f'The {word} head, {head} <small class="soft">{html.escape(shown.caption)}</small>'
        )
        maps.append(_figure(caption, embedded(shown.plotly())))
        if bool(shown.values.isnan().any()):
            gray = " What is gray cannot be: no token reads what comes after it."
    if pictures.is_gated:
        words = (
            "<p>How much of itself each position keeps. A gate has no map from position to "
            "position: none reads another, and what needs such a map is not measured here.</p>"
        )
        return words + "".join(maps)
    words = (
        "<p>Who looks at whom: each row is a token that reads, each column a token that is read; "
        "the brighter, the larger the share of the row. Colors go by powers of ten, so that what "
        f"lies between a sink and nothing can be seen.{gray}</p>"
    )
    return words + "".join(maps) if maps else ""


def _words(pictures: TracePictures) -> str:
    items = [
        f"<dt>{html.escape(reading.title)} <small>({html.escape(unit_and_range(reading))})</small>"
        f'</dt><dd>{html.escape(EXPLANATIONS[name])}</dd><dd class="paper">'
        f"{html.escape(reading.paper)}</dd>"
        for name, reading in pictures.readings.items()
        if name in EXPLANATIONS
    ]
    if pictures.has_token_entropy:
        items.append(f"<dt>Entropy <small>(nats)</small></dt><dd>{WORDS_ON_UNCERTAINTY}</dd>")
    reasons = dict.fromkeys(pictures.reasons.values())
    missing = "".join(_note("Not measured", reason) for reason in reasons)
    return f'<dl class="words">{"".join(items)}</dl>{missing}'


def _note(what: str, reason: str) -> str:
    return f'<p class="note">{what}. {html.escape(reason)}.</p>'


def _figure(caption: str, content: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{content}</figure>"


def _glyph(mark: Mark) -> str:
    return f'<b style="color:{mark.color}">{mark.glyph}</b>'
