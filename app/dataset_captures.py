"""`capture_into_store`: a dataset into a store, with a bar, and what went wrong told at the end."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from attnscope.app.captures import CaptureRequest
from attnscope.app.failures import CommandError, print_error
from attnscope.app.progress import watched
from attnscope.app.screen import screen, visible
from attnscope.app.subjects import ModelChoice, load_model, model_label
from attnscope.probes import Measuring
from attnscope.probes.bulk import (
    Outcome,
    Plan,
    RayEngine,
    Worker,
    capture_dataset,
    read_items,
    run_here,
)

__all__ = ["DatasetRequest", "capture_into_store"]

_TOLD = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRequest:
    """Which dataset is to be captured, and how.

    Attributes:
        dataset: A file, a folder, or the id of a dataset.
        split: Which split of it.
        metrics: Metrics whose readings are kept, and no traces.
        tags: Tags of every item.
        uses_ray: Work on the actors of a Ray cluster.
        workers: How many actors; 0 for as many as there is room for.
    """

    dataset: str
    split: str = ""
    metrics: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    uses_ray: bool = False
    workers: int = 0


def capture_into_store(
    choice: ModelChoice, wanted: DatasetRequest, address: str, request: CaptureRequest
) -> int:
    """Capture what the store does not hold of a dataset, and return the exit code.

    The code is 0 where every item is in the store at the end, 1 where some failed: they are told,
    recorded in the store, and tried again by the next run.

    Args:
        choice: The model.
        wanted: The dataset.
        address: The store.
        request: What to capture of each item.

    Raises:
        CommandError: Options do not go together.
        MetricError: A metric is unknown, or needs all layers at once.
        CaptureError: There is no such dataset or model.
        StoreError: The store is damaged.
    """
    if wanted.metrics and (request.verify or request.hidden):
        raise CommandError("--verify and --hidden go with traces; --metrics keeps none")
    if wanted.metrics:
        Measuring(*wanted.metrics)  # refuses what it cannot stream before a model is loaded
    plan = Plan(
        model=model_label(choice),
        layers=None if request.layers is None else tuple(request.layers),
        gradient=request.gradient,
        hidden=request.hidden,
        metrics=wanted.metrics,
        generate=request.generate,
        tags=wanted.tags,
        verify=request.verify,
    )
    found = replace(choice, name=_absolute(choice.name))
    worker = Worker(load=partial(load_model, found), address=_absolute(address), plan=plan)
    engine = RayEngine(workers=wanted.workers) if wanted.uses_ray else run_here
    run = capture_dataset(worker, read_items(wanted.dataset, wanted.split), engine)
    outcomes = list(watched(run.outcomes, "capturing", total=run.total))
    failed = [one for one in outcomes if one.error]
    told = [(one.name, one.reason) for one in run.bad] + [(one.name, one.error) for one in failed]
    for name, reason in told[:_TOLD]:
        print_error(visible(reason), before=f"item {visible(name)}: ")
    _summarize(outcomes, run.already, len(told), address)
    return 1 if told else 0


def _absolute(name: str) -> str:
    """Return the absolute path of a folder, for workers elsewhere; anything else as it is."""
    is_path = Path(name).exists() or name.startswith((".", "~"))
    return str(Path(name).expanduser().resolve()) if is_path else name


def _summarize(outcomes: list[Outcome], already: int, failed: int, address: str) -> None:
    captured = [one for one in outcomes if not one.error]
    tokens = sum(one.tokens for one in captured)
    parts = [f"{len(captured):,} items captured ({tokens:,} tokens)"]
    if already:
        parts.append(f"{already:,} there before")
    if failed:
        parts.append(f"{failed:,} failed (attnscope store list {address} --errors)")
    screen().print(f"{', '.join(parts)}; store {address}", soft_wrap=True)
