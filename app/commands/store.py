"""`attnscope store`: what a store of traces holds, and how it is kept in order."""

from pathlib import Path
from typing import Annotated

import typer

from attnscope.app.failures import CommandError

__all__ = ["commands"]

_STORE = "A folder, or an address as s3://bucket/runs."
_IDS = "Ids of items, as `attnscope store list` shows them."
_SQL = "SQL over the tables items, failures, events and readings."
_ADOPT = "List whole traces anew that no event names."
_MOVE = "Move traces that no event names to the store's attic; only when no writer is at work."
_CHECK = "Read every trace and compare it with its checksum, too."

commands = typer.Typer(
    name="store", no_args_is_help=True, help="List, query and keep in order a store of traces."
)

Address = Annotated[str, typer.Argument(metavar="STORE", help=_STORE, show_default=False)]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help=_IDS, show_default=False)]
Limit = Annotated[int, typer.Option(min=1, help="How many rows to show.")]


@commands.command("list")
def list_items(
    address: Address,
    tag: Annotated[str | None, typer.Option(help="Items of this tag only.")] = None,
    model: Annotated[str | None, typer.Option(help="Items of this model only.")] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="List what failed, with its errors.")
    ] = False,
    limit: Limit = 50,
) -> None:
    """List the items of a store, the last ones; or those that failed."""
    from attnscope.app.store_tables import chosen_items, print_failures, print_items
    from attnscope.traces import TraceStore

    store = TraceStore(address)
    if errors:
        print_failures(store.failures(), limit)
        return
    print_items(chosen_items(store.index(), tag, model), limit)


@commands.command()
def query(
    address: Address,
    sql: Annotated[str, typer.Argument(help=_SQL, show_default=False)],
    csv: Annotated[Path | None, typer.Option(help="Write every row to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite this file.")] = False,
    limit: Limit = 50,
) -> None:
    """Ask a store in SQL; DuckDB answers."""
    from attnscope.app.outputs import check_free, make_folder
    from attnscope.app.store_tables import print_rows, queried
    from attnscope.traces import TraceStore, replacement

    if csv is not None:
        check_free([csv], force=force)
    rows = queried(TraceStore(address), sql)
    print_rows(rows, limit)
    if csv is not None:
        make_folder(csv.parent)
        with replacement(csv) as stream:
            stream.write(rows.to_pandas().to_csv(index=False).encode())


@commands.command()
def compact(address: Address) -> None:
    """Merge the small files of a store's index and readings; others may write meanwhile."""
    from attnscope.traces import TraceStore

    for name, fold in TraceStore(address).compact().items():
        typer.echo(f"{name}: {fold.taken:,} files became {fold.written:,} ({fold.rows:,} rows)")


@commands.command()
def repair(
    address: Address,
    adopt: Annotated[bool, typer.Option("--adopt", help=_ADOPT)] = False,
    move_orphans: Annotated[bool, typer.Option("--move-orphans", help=_MOVE)] = False,
    check: Annotated[bool, typer.Option("--check", help=_CHECK)] = False,
) -> None:
    """Set damaged index files aside, and tell what is missing and what no event names.

    Nothing is deleted. The exit code is 1 where a trace of the index is missing or damaged.
    """
    from attnscope.app.store_repairs import repair_and_tell
    from attnscope.traces import TraceStore

    raise typer.Exit(
        repair_and_tell(TraceStore(address), adopt=adopt, move_orphans=move_orphans, check=check)
    )


@commands.command()
def tag(
    address: Address,
    ids: Ids,
    add: Annotated[list[str] | None, typer.Option(help="A tag to give; may be repeated.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option(help="A tag to take away; may be repeated.")
    ] = None,
) -> None:
    """Give items tags, and take tags away."""
    from attnscope.traces import TraceStore

    if not add and not remove:
        raise CommandError("say which tags: --add TAG, --remove TAG")
    TraceStore(address).tag(ids, add or (), remove or ())


@commands.command()
def delete(
    address: Address,
    ids: Ids,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete items and their traces for good."""
    from attnscope.traces import TraceStore

    if not yes:
        typer.confirm(f"delete {len(ids)} items of {address} for good?", abort=True)
    TraceStore(address).delete(ids)
