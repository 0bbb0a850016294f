"""`RayEngine`: the items of a dataset over the actors of a Ray cluster."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attnscope.probes.bulk.item import Item
from attnscope.probes.bulk.worker import Outcome, Worker
from attnscope.probes.errors import CaptureError

__all__ = ["RayEngine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """Hands batches of items to a pool of actors of Ray Data, each of which holds the model.

    The actors write into the store themselves; only outcomes come back. When an actor or its
    machine dies, Ray starts another one and gives it the batch again; what of that batch was
    committed already is captured twice at most, and counts once. Wherever Ray runs already
    (`RAY_ADDRESS`, or `ray.init`), that cluster is used; else one is started on this machine.

    Attributes:
        workers: Actors; 0 for one per GPU of the cluster, or per two cores where it has none.
        batch: Items of a batch, and of a commit.
        gpus: GPUs of an actor; by default 1 where the cluster has any.
    """

    workers: int = 0
    batch: int = 8
    gpus: float | None = None

    def __call__(self, worker: Worker, items: Sequence[tuple[str, Item]]) -> Iterator[Outcome]:
        """Yield what became of each item, in the order in which batches are done.

        Raises:
            CaptureError: Ray is not installed.
        """
        try:
            import ray
            from ray.data import ActorPoolStrategy, from_items
        except ImportError as error:
            raise CaptureError(
                f"the engine ray needs a library that is not installed ({error}): "
                "pip install attnscope[ray]"
            ) from error
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        resources = ray.cluster_resources()
        gpus = float(bool(resources.get("GPU"))) if self.gpus is None else self.gpus
        count = self.workers or _actors(resources, gpus)
        batches = -(-len(items) // self.batch)
        rows = [{"key": key, "item": item} for key, item in items]
        data = from_items(rows, override_num_blocks=batches).map_batches(
            _Actor,
            fn_constructor_args=(worker,),
            batch_size=self.batch,
            compute=ActorPoolStrategy(size=max(1, min(count, batches))),
            num_gpus=gpus or None,
            num_cpus=None if gpus else 1,
        )
        for row in data.iter_rows():
            yield Outcome(**row)


class _Actor:
    """A worker in a process of its own."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        _ = worker.subject  # once per actor, before its first batch
        store = worker.store
        # An actor that takes the place of a dead one finds here what that one had committed.
        self._done = set(store.index()["item"].to_pylist()) if store.exists else set()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        pairs = list(zip(batch["key"], batch["item"], strict=True))
        fresh = [(str(key), item) for key, item in pairs if key not in self._done]
        outcomes = self._worker(fresh) if fresh else []
        outcomes += [
            Outcome(key=str(key), name=item.name) for key, item in pairs if key in self._done
        ]
        columns: dict[str, list[Any]] = {name: [] for name in asdict(Outcome(key="", name=""))}
        for outcome in outcomes:
            for name, value in asdict(outcome).items():
                columns[name].append(value)
        return columns


def _actors(resources: Mapping[str, float], gpus: float) -> int:
    """Return how many actors a cluster has room for."""
    if gpus:
        return int(resources.get("GPU", 0) / gpus)
    return int(resources.get("CPU", 1)) // 2
