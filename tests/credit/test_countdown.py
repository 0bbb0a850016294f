"""Credit on the shipped reasoner, which really searches for its answers."""

import pytest
import torch

from attnscope.credit import Coupled, credit_aware, credit_riding
from attnscope.models.subjects.countdown import (
    Problem,
    load_subject,
    prompt_text,
    sample_problems,
    verify,
)
from tests.credit.training import made, same, trained

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def solved(completions, numbers, target, **_):
    problems = [
        Problem(numbers=tuple(own), target=goal) for own, goal in zip(numbers, target, strict=True)
    ]
    return [float(verify(*pair)) for pair in zip(problems, completions, strict=True)]


def test_both_ways_of_reading_train_the_reasoner_alike(tmp_path):
    from datasets import Dataset
    from trl import GRPOTrainer

    problems = sample_problems(2, seed=0)
    data = Dataset.from_list(
        [
            {"prompt": prompt_text(own), "numbers": list(own.numbers), "target": own.target}
            for own in problems
        ]
    )
    settings = {"max_completion_length": 110, "learning_rate": 1e-4}
    runs = []
    for kind in (credit_aware(GRPOTrainer), credit_riding(GRPOTrainer)):
        model, tokenizer = load_subject()
        trainer = made(
            kind,
            tmp_path,
            steps=1,
            policy=model,
            settings=settings,
            train_dataset=data,
            processing_class=tokenizer,
            reward_funcs=solved,
            credit=Coupled(),
        )
        runs.append(trained(trainer))
    (aware, logged), (riding, _) = runs
    assert same(aware, riding)
    assert not same(aware, dict(load_subject()[0].named_parameters()))
    assert logged[0]["credit/share/dominated"] > 0
    assert not any(value.isnan().any() for value in aware.values())


def test_the_preset_reads_the_middle_third():
    model, _ = load_subject()
    assert Coupled().preset.layers_among(tuple(range(model.config.num_hidden_layers))) == (2, 3, 4)
    assert model.dtype == torch.float32
