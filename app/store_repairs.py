"""`repair_and_tell`: a store set right, and on the screen what was found in it."""

from collections.abc import Iterable

import typer

from attnscope.app.failures import print_error
from attnscope.traces import (
    TraceStore,
    adopt_orphans,
    check_store,
    repair_store,
    set_orphans_aside,
)

__all__ = ["repair_and_tell"]


def repair_and_tell(store: TraceStore, *, adopt: bool, move_orphans: bool, check: bool) -> int:
    """Repair a store, tell what was found, and return the exit code.

    Args:
        store: The store.
        adopt: List whole orphans anew.
        move_orphans: Move what no event names to the attic.
        check: Compare every trace with its checksum.

    Raises:
        StoreError: There is no store.
    """
    found = repair_store(store)
    for name, reason in found.damaged.items():
        print_error(f"{reason.partition('; `')[0]}; set aside in attic/{name}")
    for name in found.missing:
        print_error(f"{name} is in the index, and missing or of another length")
    wrong = check_store(store) if check else {}
    for name, reason in wrong.items():
        print_error(f"{name}: {reason}")
    if adopt:
        listed, refused = adopt_orphans(store)
        _tell(listed, "listed anew")
        for name, reason in refused.items():
            typer.echo(f"not listed: {name} ({reason})")
    if move_orphans:
        _tell(set_orphans_aside(store), "moved to the attic")
    elif not adopt:
        _tell(found.orphans, "orphan, which no event names")
        _tell(found.leftovers, "leftover of an item that was deleted or captured before")
    typer.echo(f"{store.index().num_rows:,} items")
    return 1 if found.missing or wrong else 0


def _tell(names: Iterable[str], what: str) -> None:
    for name in names:
        typer.echo(f"{what}: {name}")
