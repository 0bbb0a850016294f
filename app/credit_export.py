"""Credit as files: a long table of tokens, or everything that there is to know as JSON."""

import json
from math import isnan
from pathlib import Path
from typing import Any

import pandas

from attnscope.app.credit_tables import settings_of
from attnscope.app.credited import Credited, CreditedResponse
from attnscope.app.outputs import make_folder
from attnscope.traces import replacement

__all__ = ["export_credit_csv", "export_credit_json", "token_table"]


def export_credit_csv(credited: Credited, path: Path) -> None:
    """Write one row per token: trace, position, text, weight, roles, and what the rule read."""
    tables = [token_table(response) for response in credited.responses]
    for table, response in zip(tables, credited.responses, strict=True):
        table.insert(0, "trace", str(response.path))
    table = pandas.concat(tables)
    make_folder(path.parent)
    with replacement(path) as stream:
        stream.write(table.to_csv(index=False).encode("utf-8"))


def export_credit_json(credited: Credited, path: Path) -> None:
    """Write rule, settings, heads and statistics, and the same tokens; NaN becomes null."""
    heads = credited.heads
    content = {
        "rule": credited.entry.name,
        **settings_of(credited),
        "spans": None if heads is None else _known(heads.spans.tolist()),
        "statistics": _known(credited.statistics),
        "responses": [
            {
                "trace": str(response.path),
                "positions": response.positions,
                "tokens": response.tokens,
                "weights": response.weights,
                "classes": response.classes,
                **_known(response.numbers),
            }
            for response in credited.responses
        ],
    }
    make_folder(path.parent)
    with replacement(path) as stream:
        stream.write(json.dumps(content, ensure_ascii=False).encode("utf-8"))


def token_table(response: CreditedResponse) -> pandas.DataFrame:
    """Return a row per token: its weight, its roles, and what the rule read of it."""
    return pandas.DataFrame(
        {
            "position": response.positions,
            "token": response.tokens,
            "weight": response.weights,
            "role": [" ".join(response.roles_at(place)) for place in response.positions],
            **response.numbers,
        }
    )


def _known(value: Any) -> Any:
    """Return numbers, or collections of them, with None where there is none."""
    if isinstance(value, dict):
        return {name: _known(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_known(entry) for entry in value]
    return None if isinstance(value, float) and isnan(value) else value
