"""The ear in verl's engine, on an engine that stands in for it; `tests/verl` has the real one."""

import pytest
import torch

from attnscope.credit import CreditError
from attnscope.credit.verl_worker import CreditWorker, overheard_engine
from tests.credit.recorded import lengths_of, recorded
from tests.verl import samples


class Engine:
    """Runs a policy on packed sequences, as verl's engine for language models does."""

    ulysses_sequence_parallel_size = 1

    def __init__(self):
        self.module = samples.policy()

    def prepare_model_inputs(self, micro_batch):
        lengths = lengths_of(micro_batch["input_ids"])
        inputs = {
            "input_ids": micro_batch["input_ids"].values()[None],
            "attention_mask": None,
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        }
        return inputs, {}

    def forward_step(self, micro_batch, loss_function, forward_only):
        inputs, _ = self.prepare_model_inputs(micro_batch)
        with torch.no_grad():
            logits = self.module(**inputs, use_cache=False).logits
        return torch.tensor(1.0), {"model_output": {"logits": logits}, "loss": 1.0, "metrics": {}}

    def infer(self, batch):
        return self.forward_step(batch, None, forward_only=True)[1]["model_output"]


def test_a_step_returns_readings_beside_what_it_returned():
    batch, plan = recorded()
    engine = Engine()
    alone = engine.infer(batch)
    with overheard_engine(engine, plan):
        heard = engine.infer(batch)
    assert torch.equal(heard["logits"], alone["logits"])
    assert set(heard) == {"logits", "credit_local_waad", "credit_global_fai"}
    for name in ("credit_local_waad", "credit_global_fai"):
        torch.testing.assert_close(
            heard[name].values(), batch[name].values(), atol=1e-5, rtol=1e-5, equal_nan=True
        )
    assert set(engine.infer(batch)) == {"logits"}


def test_the_engine_is_let_go_after_an_error():
    batch, plan = recorded()
    engine = Engine()
    with pytest.raises(KeyError), overheard_engine(engine, plan):
        engine.infer({"input_ids": batch["input_ids"]})
    assert "forward_step" not in vars(engine)


class Actor:
    """The worker that verl's own is, as far as the ear is concerned."""

    def __init__(self):
        self.actor = self
        self.engine = Engine()

    def compute_log_prob(self, data):
        return self.engine.infer(data)


class Listening(CreditWorker, Actor):
    pass


def test_a_worker_reads_once_it_was_told_what_and_never_the_reference_model():
    batch, plan = recorded()
    worker = Listening()
    assert set(worker.compute_log_prob(batch)) == {"logits"}
    worker.read_credit(plan)
    assert "credit_global_fai" in worker.compute_log_prob(batch)
    assert set(worker.compute_log_prob(batch | {"no_lora_adapter": True})) == {"logits"}
    assert "credit_global_fai" in worker.compute_log_prob(batch | {"no_lora_adapter": False})


def test_sliced_sequences_are_refused():
    worker = Listening()
    worker.engine.ulysses_sequence_parallel_size = 2
    with pytest.raises(CreditError, match="a slice of every sequence"):
        worker.read_credit(recorded()[1])
