"""A store's index on the screen, and SQL over it."""

from typing import Any

from attnscope.app.failures import CommandError
from attnscope.app.screen import plain_table, screen, visible
from attnscope.traces import TraceStore

__all__ = ["chosen_items", "print_failures", "print_items", "print_rows", "queried"]

_SHOWN_CELL = 60


def chosen_items(index: Any, tag: str | None, model: str | None) -> Any:
    """Return the items of an index that have a tag and are of a model, where these are given.

    Args:
        index: A `pyarrow.Table`, as `TraceStore.index` gives it.
        tag: A tag; None for any.
        model: Name of a model; None for any.
    """
    import pyarrow

    facts = zip(index["tags"].to_pylist(), index["model"].to_pylist(), strict=True)
    kept = [tag in (None, *own) and model in (None, name) for own, name in facts]
    return index.filter(pyarrow.array(kept, pyarrow.bool_()))


def print_items(index: Any, limit: int) -> None:
    """Print the last items of an index.

    Args:
        index: A `pyarrow.Table`, as `TraceStore.index` gives it.
        limit: How many.
    """
    from rich.filesize import decimal

    table = plain_table("id", "name", "kind", "model", ">tokens", ">size", "tags")
    for row in index.slice(max(index.num_rows - limit, 0)).to_pylist():
        facts = (row["kind"], visible(row["model"]), f"{row['tokens']:,}")
        size = decimal(row["bytes"]) if row["path"] else "-"
        tags = visible(", ".join(row["tags"]))
        table.add_row(row["id"], visible(row["name"]), *facts, size, tags)
    screen().print(table)
    if index.num_rows > limit:
        screen().print(f"the last {limit:,} of {index.num_rows:,} items; --limit shows more")


def print_failures(failures: Any, limit: int) -> None:
    """Print the items that failed last, with their errors.

    Args:
        failures: A `pyarrow.Table`, as `TraceStore.failures` gives it.
        limit: How many.
    """
    console = screen()
    for row in failures.slice(max(failures.num_rows - limit, 0)).to_pylist():
        console.print(f"{visible(row['name'])}: {visible(row['error'])}", soft_wrap=True)
    console.print(f"{failures.num_rows:,} items failed")


def queried(store: TraceStore, sql: str) -> Any:
    """Return what DuckDB answers, as a `pyarrow.Table`.

    The tables are `items`, `failures`, `events` and `readings`; `readings` holds a row per item,
    layer and head.

    Raises:
        CommandError: DuckDB is not installed, or cannot answer.
        StoreError: There is no store, or it is damaged.
    """
    try:
        import duckdb
    except ImportError as error:
        raise CommandError("queries need DuckDB: pip install duckdb") from error
    with duckdb.connect() as session:
        session.register("items", store.index())
        session.register("failures", store.failures())
        session.register("events", store.log())
        if "readings" in sql:
            session.register("readings", store.readings())
        try:
            return session.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise CommandError(f"DuckDB cannot answer: {error}") from error


def print_rows(rows: Any, limit: int) -> None:
    """Print the first rows of a table, long values cut.

    Args:
        rows: A `pyarrow.Table`.
        limit: How many.
    """
    table = plain_table(*rows.column_names)
    for row in rows.slice(0, limit).to_pylist():
        cells = (visible(str(value)) for value in row.values())
        table.add_row(*(c if len(c) <= _SHOWN_CELL else f"{c[:_SHOWN_CELL]}..." for c in cells))
    screen().print(table)
    if rows.num_rows > limit:
        screen().print(f"the first {limit:,} of {rows.num_rows:,} rows; --limit shows more")
