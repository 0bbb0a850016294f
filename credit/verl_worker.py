"""verl's actor worker with an ear: readings from the pass that computes the old log-probabilities.

verl is imported when a worker class is made, not before. Written against verl 0.9.1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from attnscope.credit.errors import CreditError
from attnscope.credit.nested_batches import model_batch, nested_readings
from attnscope.credit.reading_plan import ReadingPlan
from attnscope.credit.ride import riding

__all__ = ["PREFIX", "CreditWorker", "credit_worker", "overheard_engine"]

PREFIX = "credit_"
"""What the names of readings begin with among the fields of a batch."""


class CreditWorker:
    """What an actor worker adds that reads attention; `credit_worker` puts it in front of one."""

    _credit_plan: ReadingPlan | None = None

    def read_credit(self: Any, plan: ReadingPlan) -> None:
        """Read what a plan asks for whenever the policy's log-probabilities are computed."""
        if self.actor.engine.ulysses_sequence_parallel_size > 1:
            raise CreditError(
                "ulysses_sequence_parallel_size is above 1: each worker holds a slice of every "
                "sequence, and credit reads whole ones"
            )
        self._credit_plan = plan

    def compute_log_prob(self: Any, data: Any) -> Any:
        """Return what the worker computes, with the readings beside it."""
        run = super().compute_log_prob  # type: ignore[misc]
        without_adapter = "no_lora_adapter" in data and data["no_lora_adapter"]
        if self._credit_plan is None or without_adapter:  # without it, it is the reference model
            return run(data)
        with overheard_engine(self.actor.engine, self._credit_plan):
            return run(data)


@contextmanager
def overheard_engine(engine: Any, plan: ReadingPlan) -> Iterator[None]:
    """Let an engine's forward steps return readings beside their outputs while it is open.

    Args:
        engine: An FSDP engine of verl with a language model.
        plan: What to read, of which heads.
    """
    forward_step = engine.forward_step

    def overheard(micro_batch: Any, loss_function: Any, forward_only: bool) -> tuple[Any, Any]:
        inputs, _ = engine.prepare_model_inputs(micro_batch=micro_batch)
        lengths = micro_batch["input_ids"].offsets().diff().tolist()
        mask = micro_batch["response_mask"]
        batch = model_batch(inputs["input_ids"], mask, inputs["attention_mask"], lengths)
        with riding(engine.module, batch, plan) as ride:
            loss, output = forward_step(micro_batch, loss_function, forward_only)
        found = nested_readings(ride.readings(), batch, plan.attention, lengths)
        read = {f"{PREFIX}{name}": values for name, values in found.items()}
        return loss, output | {"model_output": output["model_output"] | read}

    engine.forward_step = overheard
    try:
        yield
    finally:
        del engine.forward_step


@cache
def credit_worker(worker: type) -> type:
    """Return an actor worker class of verl that reads attention once it was told what.

    Args:
        worker: `ActorRolloutRefWorker`, or a subclass.
    """
    from verl.single_controller.base.decorator import (  # pyright: ignore[reportMissingImports]
        Dispatch,
        make_nd_compute_dataproto_dispatch_fn,
        register,
    )

    by_actor = make_nd_compute_dataproto_dispatch_fn(mesh_name="actor")
    own = type(f"Credit{worker.__name__}", (CreditWorker, worker), {"__module__": __name__})
    for name, mode in (("read_credit", Dispatch.ONE_TO_ALL), ("compute_log_prob", by_actor)):
        setattr(own, name, register(dispatch_mode=mode)(getattr(CreditWorker, name)))
    return own


def __getattr__(name: str) -> Any:
    """Return the class made of verl's own worker, so that Ray finds it by its name.

    A class that Ray cannot find is sent by value, with copies of what verl keeps in its modules.
    """
    if name != "CreditActorRolloutRefWorker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from verl.workers.engine_workers import (  # pyright: ignore[reportMissingImports]
        ActorRolloutRefWorker,
    )

    return credit_worker(ActorRolloutRefWorker)
