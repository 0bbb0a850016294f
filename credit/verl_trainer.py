"""verl's PPO trainer with token credit: workers read attention, the trainer weighs advantages.

A registered advantage estimator is not enough: verl hands it rewards, mask and configuration, never
another signal of the tokens. So a trainer is registered that lets verl compute advantages and then
multiplies them. verl is imported when a trainer is made, not before. Written against verl 0.9.1.
"""

import logging
from dataclasses import replace
from functools import cache
from typing import Any

from attnscope.credit.configured_rule import rule_named
from attnscope.credit.errors import CreditError
from attnscope.credit.head_calibration import load_calibration
from attnscope.credit.nested_batches import credited, readings_from
from attnscope.credit.reading_plan import GROUP_OF, ReadingPlan, plan_for
from attnscope.credit.rule import Rule
from attnscope.credit.verl_worker import PREFIX, credit_worker

__all__ = ["VerlCreditTrainer", "require_token_credit", "verl_credit_trainer"]

_FACTS = {
    "entropy": "entropy",
    "log_probability": "old_log_probs",
    "ids": "responses",
}
"""The field of verl's batches that each reading comes from."""

_ENGINES = ("fsdp", "fsdp2")
_SETTINGS = ("rule", "preset", "rows", "numbers", "calibration")


class VerlCreditTrainer:
    """What a credit-aware trainer adds; `verl_credit_trainer` puts it in front of a trainer.

    The section `credit` of the configuration says which credit to give: `rule`, `preset`, `rows`
    and `numbers` as `rule_named` takes them, and `calibration`, the file of the heads, which rules
    that read attention need. What was selected is logged as `credit/...`.
    """

    credit_mode = "sync"
    """The trainer mode that verl takes it for."""

    def __init__(self: Any, config: Any) -> None:
        self.credit = self.credit_rule(config)
        self.credit_plan = _plan(self.credit, config)
        require_token_credit(config, self.credit_plan)
        config.trainer.v1.trainer_mode = self.credit_mode  # verl branches on the names it knows
        super().__init__(config)  # pyright: ignore[reportCallIssue] - the trainer's own

    def credit_rule(self, config: Any) -> Rule:
        """Return the rule that the configuration names; override it for a rule of your own.

        Raises:
            CreditError: The configuration names none, or has a setting that there is not.
        """
        settings = dict(config.get("credit") or {})
        if "rule" not in settings or set(settings) - set(_SETTINGS):
            raise CreditError(
                f"the configuration's section credit holds {sorted(settings)}; it needs a rule (as "
                f"in +credit.rule=coupled) and may hold {list(_SETTINGS)}"
            )
        return rule_named(
            settings["rule"],
            preset=settings.get("preset"),
            rows=settings.get("rows"),
            numbers=settings.get("numbers"),
        )

    def _init_resource_pool_mgr(self: Any) -> None:
        """Let the actor's workers be such that can read attention."""
        super()._init_resource_pool_mgr()  # type: ignore[misc]
        if not self.credit_plan.wants_heads:
            return
        import ray  # pyright: ignore[reportMissingImports]
        from verl.trainer.ppo.utils import Role  # pyright: ignore[reportMissingImports]

        for role in (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                worker = self.role_worker_mapping[role].__ray_actor_class__
                self.role_worker_mapping[role] = ray.remote(credit_worker(worker))

    def _setup(self: Any) -> None:
        """Set the workers up, and tell them what to read."""
        super()._setup()  # type: ignore[misc]
        if self.credit_plan.wants_heads:
            needs = frozenset(self.credit_plan.attention)  # verl itself has entropies and the rest
            self.actor_rollout_wg.read_credit(replace(self.credit_plan, needs=needs))

    def _compute_advantage(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        """Compute the advantages as verl does, then give each token its own."""
        import transfer_queue as queue  # pyright: ignore[reportMissingImports]
        from tensordict import TensorDict  # pyright: ignore[reportMissingImports]

        batch = super()._compute_advantage(batch, metrics=metrics)  # type: ignore[misc]
        read = [f"{PREFIX}{name}" for name in self.credit_plan.attention]
        facts = {name: field for name, field in _FACTS.items() if name in self.credit.needs}
        fields = ["advantages", "response_mask", *read, *facts.values()]
        data = queue.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=fields
        )
        readings = readings_from(
            {name: data[f"{PREFIX}{name}"] for name in self.credit_plan.attention},
            {"advantage": data["advantages"]} | {name: data[own] for name, own in facts.items()},
            data["response_mask"],
            draw=self.global_steps,
        )
        credit = self.credit.assign(readings)
        advantages = credited(credit, data["advantages"])
        metrics.update({f"credit/{name}": value for name, value in credit.statistics().items()})
        return queue.kv_batch_put(
            keys=batch.keys,
            partition_id=batch.partition_id,
            fields=TensorDict({"advantages": advantages}, batch_size=len(batch)),
        )


@cache
def verl_credit_trainer(trainer: type, mode: str = "sync") -> type:
    """Return a trainer class of verl that gives token credit.

    Args:
        trainer: `PPOTrainerSync`, or another of verl's V1 trainers.
        mode: The name that verl knows it by.

    Example:
        `register_trainer("credit_sync")(verl_credit_trainer(PPOTrainerSync))`, which the plug-in
        does; a run chooses it by `trainer.v1.trainer_mode=credit_sync +credit.rule=coupled`.
    """
    return type(f"Credit{trainer.__name__}", (VerlCreditTrainer, trainer), {"credit_mode": mode})


def require_token_credit(config: Any, plan: ReadingPlan) -> None:
    """Refuse configurations under which credit cannot be read, or silently has no effect.

    Raises:
        CreditError: There is something in the way, and the message says what.
    """
    actor = config.actor_rollout_ref.actor
    loss = _at(actor, "policy_loss.loss_mode", "vanilla")
    if loss == "geo_mean":
        raise CreditError(
            'policy_loss.loss_mode="geo_mean" averages the advantages of a response before they '
            "meet its tokens, so that token weights act by their mean alone; use another loss_mode"
        )
    distills = _at(config, "distillation.enabled", False)
    if distills and not _at(config, "distillation.distillation_loss.use_task_rewards", True):
        raise CreditError(
            "distillation_loss.use_task_rewards=false leaves the advantages out of the loss, and "
            "token credit with them"
        )
    if not plan.wants_nothing and _at(config, "algorithm.rollout_correction.bypass_mode", False):
        raise CreditError(
            "rollout_correction.bypass_mode leaves out the pass that computes the policy's "
            "log-probabilities, which credit reads attention and entropies from"
        )
    strategy = _at(actor, "strategy", "fsdp")
    if plan.wants_heads and strategy not in _ENGINES:
        raise CreditError(
            f"actor.strategy={strategy!r} does not run a model of transformers; credit from "
            f"attention needs one of {list(_ENGINES)}"
        )


def _plan(rule: Rule, config: Any) -> ReadingPlan:
    unknown = sorted(rule.needs - {*_FACTS, *GROUP_OF, "advantage"})
    if unknown:
        raise CreditError(f"{type(rule).__name__} needs {unknown}, which verl's batches lack")
    path = (config.get("credit") or {}).get("calibration")
    plan = plan_for(rule, None if path is None else load_calibration(path))
    if plan.wants_heads and plan.calibration is None:
        raise CreditError(
            f"{type(rule).__name__} reads attention, and verl's workers see a few sequences at a "
            "time, too few to rank heads by; name them: calibrate(policy, batch, rule.preset)"
            ".save(...) and +credit.calibration=..."
        )
    return plan


def _at(config: Any, path: str, default: Any) -> Any:
    """Return what a nested configuration holds at a path, or else the default."""
    for name in path.split("."):
        config = None if config is None else config.get(name)
    return default if config is None else config


def _register() -> None:
    """Add the trainer mode `credit_sync` to verl."""
    from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer  # pyright: ignore[reportMissingImports]

    register_trainer("credit_sync")(verl_credit_trainer(PPOTrainerSync))


def __getattr__(name: str) -> Any:
    """Register with verl when its plug-in loader looks up the name in our entry point.

    verl loads an entry point and calls nothing; it keeps to itself what goes wrong there, so that
    we have to say it.
    """
    if name != "plugin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        _register()
    except Exception as error:
        logging.getLogger(__name__).error("no token credit in verl: %s", error)
        raise
    return _register
