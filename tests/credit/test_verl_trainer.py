"""The plug-in's trainer on a trainer that stands in for verl's; `tests/verl` has the real one."""

import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

import attnscope.credit.verl_trainer
from attnscope.credit import CreditError, RandomShare, Readings, Uniform, plan_for
from attnscope.credit.verl_trainer import require_token_credit, verl_credit_trainer
from tests.credit.recorded import recorded


class Settings(dict):
    """A nested configuration, read by attribute or by key."""

    def __init__(self, **settings):
        super().__init__(
            {name: Settings(**v) if isinstance(v, dict) else v for name, v in settings.items()}
        )

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


def configuration(credit=None, **changes):
    actor = {"strategy": "fsdp2", "policy_loss": {"loss_mode": "vanilla"}}
    settings = {
        "actor_rollout_ref": {"actor": actor | changes.pop("actor", {})},
        "trainer": {"v1": {"trainer_mode": "credit_sync"}},
        "credit": credit,
    }
    return Settings(**settings | changes)


class Trainer:
    """What the plug-in meets of verl's trainer: advantages that lie in a queue."""

    def __init__(self, config):
        self.config, self.global_steps = config, 7
        self.mode = config.trainer.v1.trainer_mode
        self.told = []

    def _setup(self):
        self.actor_rollout_wg = SimpleNamespace(read_credit=self.told.append)

    def _compute_advantage(self, batch, metrics):
        metrics["critic/score"] = 0.5
        return batch


@pytest.fixture
def queue(monkeypatch):
    """A queue that holds the recorded batch, with the advantages that verl computed itself."""
    batch, _ = recorded()
    fields = batch | {"advantages": batch["returns"]}
    modules = {name: ModuleType(name) for name in ("transfer_queue", "tensordict")}

    def put(keys, partition_id, fields):
        held.update(fields)
        return SimpleNamespace(keys=keys, partition_id=partition_id)

    held = dict(fields)
    modules["transfer_queue"].kv_batch_get = lambda keys, partition_id, select_fields: {
        name: held[name] for name in select_fields
    }
    modules["transfer_queue"].kv_batch_put = put
    modules["tensordict"].TensorDict = lambda fields, batch_size: fields
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return held


class Meta(list):
    """The keys of a batch, as verl hands them around."""

    keys = property(list)
    partition_id = "train"


def run(config, base=Trainer):
    trainer = verl_credit_trainer(base)(config)
    trainer._setup()
    metrics = {}
    batch = trainer._compute_advantage(Meta("abcd"), metrics)
    return trainer, metrics, batch


def test_a_recorded_step_gets_the_advantages_that_verl_had(queue, tmp_path):
    batch, plan = recorded()
    plan.calibration.save(tmp_path / "heads.json")
    credit = {"rule": "coupled", "numbers": {"near": 1, "far": 6}}
    config = configuration(credit | {"calibration": str(tmp_path / "heads.json")})
    trainer, metrics, returned = run(config)
    assert torch.equal(queue["advantages"].values(), batch["advantages"].values())
    assert returned.keys == ["a", "b", "c", "d"]
    assert 1 < metrics["credit/weight"] < 1.5
    assert metrics["critic/score"] == 0.5
    assert trainer.mode == "sync"
    (told,) = trainer.told
    assert told.needs == {"local_waad", "global_fai"}
    assert torch.equal(told.calibration.local_heads, plan.calibration.local_heads)


def test_a_rule_that_reads_nothing_tells_workers_nothing(queue):
    before = queue["advantages"].values().clone()
    trainer, metrics, _ = run(configuration({"rule": "uniform"}))
    assert trainer.told == []
    assert torch.equal(queue["advantages"].values(), before)
    assert metrics["credit/weight"] == 1.0


def test_entropies_are_those_that_verl_computed(queue):
    before = queue["advantages"].values().clone()
    run(configuration({"rule": "entropy", "preset": "v1"}))
    weights = queue["advantages"].values() / before
    own = queue["response_mask"].values() == 1
    entropy = queue["entropy"].unbind()[1]  # of a rewarded response
    row = weights.split(queue["entropy"].offsets().diff().tolist())[1]
    chosen = row > 1.25
    mask = queue["response_mask"].unbind()[1] == 1
    assert entropy[chosen].min() >= entropy[mask & ~chosen].max()
    assert set(weights[own & (before < 0)].tolist()) == {1.0}  # v1 scales no negative ones


def test_random_numbers_follow_the_step(queue):
    run(configuration({"rule": "random_share"}))
    batch, _ = recorded()
    masks = [mask.bool() for mask in batch["response_mask"].unbind()]
    padded = torch.nn.utils.rnn.pad_sequence(masks, batch_first=True)
    weights = RandomShare().assign(Readings(mask=padded, draw=7)).weights[padded]
    own = batch["response_mask"].values() == 1
    expected = batch["returns"].values()[own] * weights
    assert torch.equal(queue["advantages"].values()[own], expected)


def test_a_rule_of_ones_own_takes_the_place_of_the_configuration(queue):
    class Own(verl_credit_trainer(Trainer)):
        def credit_rule(self, config):
            return Uniform(factor=2.0)

    before = queue["advantages"].values().clone()
    trainer = Own(configuration())
    trainer._setup()
    trainer._compute_advantage(Meta("abcd"), {})
    own = queue["response_mask"].values() == 1
    assert torch.equal(queue["advantages"].values()[own], 2 * before[own])


@pytest.mark.parametrize(
    ("credit", "told"),
    [
        (None, r"holds \[\]; it needs a rule"),
        ({"preset": "v1"}, r"holds \['preset'\]; it needs a rule"),
        ({"rule": "uniform", "gamma": 2}, r"it needs a rule .* and may hold \['rule', 'preset'"),
        ({"rule": "none"}, "no credit rule 'none'"),
        ({"rule": "coupled", "preset": "v2"}, r"no preset 'v2'; there are \['rev', 'v1'\]"),
        ({"rule": "coupled"}, "name them: calibrate"),
        ({"rule": "redistributed"}, r"needs \['received'\], which verl's batches lack"),
    ],
)
def test_what_the_section_cannot_hold_is_told(credit, told):
    with pytest.raises(CreditError, match=told):
        verl_credit_trainer(Trainer)(configuration(credit))


NOTHING, ATTENTION = plan_for(Uniform()), recorded()[1]


@pytest.mark.parametrize(
    ("plan", "changes", "told"),
    [
        (NOTHING, {"actor": {"policy_loss": {"loss_mode": "geo_mean"}}}, "geo_mean.* their mean"),
        (
            NOTHING,
            {
                "distillation": {
                    "enabled": True,
                    "distillation_loss": {"use_task_rewards": False},
                }
            },
            "leaves the advantages out of the loss",
        ),
        (ATTENTION, {"actor": {"strategy": "megatron"}}, "actor.strategy='megatron' does not run"),
        (
            ATTENTION,
            {"algorithm": {"rollout_correction": {"bypass_mode": True}}},
            "leaves out the pass",
        ),
    ],
)
def test_configurations_that_cancel_token_credit_are_refused(plan, changes, told):
    with pytest.raises(CreditError, match=told):
        require_token_credit(configuration({"rule": "uniform"}, **changes), plan)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"actor": {"policy_loss": {"loss_mode": "gspo"}}},
        {"actor": {"strategy": "megatron"}},
        {"algorithm": {"rollout_correction": {"bypass_mode": True}}},
        {"distillation": {"enabled": True, "distillation_loss": {"use_task_rewards": True}}},
    ],
)
def test_what_does_not_stand_in_the_way_is_let_pass(changes):
    require_token_credit(configuration({"rule": "uniform"}, **changes), NOTHING)


def test_the_entry_point_registers_and_says_what_goes_wrong(monkeypatch, caplog):
    registered = {}
    module = ModuleType("verl.trainer.ppo.v1")
    module.PPOTrainerSync = Trainer
    module.register_trainer = lambda name: lambda trainer: registered.setdefault(name, trainer)
    for name in ("verl", "verl.trainer", "verl.trainer.ppo"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert attnscope.credit.verl_trainer.plugin is not None
    assert registered == {"credit_sync": verl_credit_trainer(Trainer)}
    monkeypatch.delattr(module, "register_trainer")
    with caplog.at_level(logging.ERROR), pytest.raises(ImportError):
        attnscope.credit.verl_trainer.plugin  # noqa: B018
    assert "no token credit in verl: cannot import name 'register_trainer'" in caplog.text
    with pytest.raises(AttributeError, match="has no attribute 'plugins'"):
        attnscope.credit.verl_trainer.plugins  # noqa: B018
