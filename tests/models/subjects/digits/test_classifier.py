"""Every mechanism fits the backbone and can be captured; training repeats itself; weights read."""

from pathlib import Path

import pytest
import torch

from attnscope.models.subjects.digits import (
    MECHANISMS,
    WEIGHTS,
    DigitClassifier,
    Pictures,
    heldout,
    load_classifier,
    training_facts,
)
from attnscope.models.subjects.digits.train import Settings, accuracy, train
from tests.models.capturing import assert_capture_keeps_the_contract

SHIPPED = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_mechanism_can_be_captured(mechanism: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DigitClassifier(mechanism, width=32, depth=1, heads=2)
    trace = assert_capture_keeps_the_contract(
        model, {"pixel_values": heldout().pixels[:1]}, tmp_path
    )
    assert all(stack.startswith("blocks.mechanism.") for stack in trace.stacks)


@pytest.mark.parametrize("mechanism", ["softmax", "super_token", "large_kernel"])
def test_training_repeats_itself(mechanism: str) -> None:
    settings = Settings(steps=5, batch=4, warmup=2)
    one, other = (train(mechanism, settings) for _ in range(2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_four_classifiers_are_shipped() -> None:
    assert "softmax" in SHIPPED
    assert len(SHIPPED) == 4


@pytest.mark.parametrize("mechanism", SHIPPED)
def test_shipped_weights_read_digits_as_well_as_their_training_said(mechanism: str) -> None:
    facts, model = training_facts(mechanism), load_classifier(mechanism)
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    whole = heldout()
    part = Pictures(whole.pixels[:120], whole.labels[:120], whole.corners[:120])
    assert accuracy(model, part) == pytest.approx(facts["accuracy"], abs=0.08)
    assert accuracy(model, part) > 0.7


def test_unknown_mechanisms_and_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no mechanism 'magic'; there are softmax, neighborhood"):
        DigitClassifier("magic")
    with pytest.raises(FileNotFoundError, match="no weights of 'softmax'; it holds none"):
        load_classifier("softmax", tmp_path)
