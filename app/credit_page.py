"""`write_credit_page`: credit drawn on the text, as one small HTML file that loads nothing."""

import html
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from attnscope.app.credit_roles import mark_of
from attnscope.app.credit_tables import settings_of
from attnscope.app.credited import Credited, CreditedResponse
from attnscope.app.outputs import make_folder
from attnscope.app.screen import written
from attnscope.figures import TokenRibbon, token_ribbon
from attnscope.metrics import Reading
from attnscope.traces import replacement

__all__ = ["credit_ribbon", "write_credit_page"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  max-width: 1080px; margin: 0 auto; padding: 32px 24px; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.1rem; margin-top: 2em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2em 1.4em; font-size: 0.92rem; }
dt, pre { opacity: 0.75; }
dd { margin: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
th, td { text-align: right; padding: 0.25em 1.2em 0.25em 0; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
pre { white-space: pre-wrap; font: inherit; }
"""


def write_credit_page(credited: Credited, path: Path) -> Path:
    """Write a page with the settings, a table of the roles, and every response tinted by weight.

    It appears complete or not at all, and holds no script.
    """
    title = f"Credit by {html.escape(credited.entry.name)}"
    top = max((weight for own in credited.responses for weight in own.weights), default=1.0)
    low = min((weight for own in credited.responses for weight in own.weights), default=1.0)
    limits = (0.0 if low < 1 else 1.0, max(top, 1.0))
    responses = "".join(_response(response, credited, limits) for response in credited.responses)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}</style></head>
<body><h1>{title}</h1>
{_facts(settings_of(credited))}{_summary(credited)}
{responses}</body></html>
"""
    make_folder(path.parent)
    with replacement(path) as stream:
        stream.write(page.encode("utf-8"))
    return path


def credit_ribbon(
    response: CreditedResponse, credited: Credited, limits: tuple[float, float]
) -> TokenRibbon:
    """Return a response whose tokens are tinted by their weights, with a mark for each role.

    Args:
        response: The response.
        credited: What it was given, by which rule.
        limits: The weights of no tint and of the full tint.
    """
    reading = Reading(
        name="credit",
        title="Weight of each token",
        values=torch.tensor(response.weights),
        axes=("token",),
        unit="times the advantage",
        bounds=(0.0, None),
        paper=credited.entry.source,
        coordinates={"token": response.tokens},
        positions={"token": response.positions},
    )
    marks = {mark_of(role): places for role, places in response.classes.items()}
    return token_ribbon(reading, marks=marks, limits=limits)


def _response(response: CreditedResponse, credited: Credited, limits: tuple[float, float]) -> str:
    before = response.trace.tokens[: response.positions[0]]
    prompt = ""
    if before:
        text = html.escape(" ".join(before))
        prompt = f"<details><summary>What stands before it</summary><pre>{text}</pre></details>"
    ribbon = credit_ribbon(response, credited, limits).html()
    return f"<h2>{html.escape(str(response.path))}</h2>{prompt}{ribbon}"


def _facts(facts: Mapping[str, str]) -> str:
    items = (f"<dt>{html.escape(n)}</dt><dd>{html.escape(text)}</dd>" for n, text in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def _summary(credited: Credited) -> str:
    numbers = credited.statistics
    rows = [("all", 1.0, numbers["weight"])]
    for role in credited.responses[0].classes:
        rows.append((mark_of(role).name, numbers[f"share/{role}"], numbers[f"weight/{role}"]))
    body = "".join(
        _row("td", (name, written(share, 3), written(weight, 3))) for name, share, weight in rows
    )
    return f"<table>{_row('th', ('tokens', 'share', 'mean weight'))}{body}</table>"


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
