"""Weights of trained classifiers: one safetensors file for each mechanism."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attnscope.models.subjects.digits.classifier import DigitClassifier

__all__ = ["WEIGHTS", "load_classifier", "save_classifier", "training_facts"]

WEIGHTS = Path(__file__).with_name("weights")
"""The weights that come with the package: the vision transformer and three more mechanisms."""


def save_classifier(model: DigitClassifier, facts: dict[str, Any], folder: Path) -> None:
    """Write a classifier and what is known of its training, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(model.mechanism, folder)
    partial = path.with_suffix(".partial")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, partial, metadata={"training": json.dumps(facts)})
    partial.replace(path)


def load_classifier(mechanism: str = "softmax", folder: Path = WEIGHTS) -> DigitClassifier:
    """Return a trained classifier.

    Raises:
        FileNotFoundError: The folder holds no weights of this mechanism.
    """
    model = DigitClassifier(mechanism)
    model.load_state_dict(load_file(_existing(mechanism, folder)))
    return model.eval()


def training_facts(mechanism: str = "softmax", folder: Path = WEIGHTS) -> dict[str, Any]:
    """Return accuracy, parameters, seconds and settings of a classifier's training.

    Raises:
        FileNotFoundError: The folder holds no weights of this mechanism.
    """
    with safe_open(_existing(mechanism, folder), framework="pt") as file:
        return json.loads(file.metadata()["training"])


def _path(mechanism: str, folder: Path) -> Path:
    return folder / f"{mechanism}.safetensors"


def _existing(mechanism: str, folder: Path) -> Path:
    path = _path(mechanism, folder)
    if not path.exists():
        held = sorted(file.stem for file in folder.glob("*.safetensors"))
        raise FileNotFoundError(
            f"{folder} holds no weights of {mechanism!r}; it holds {', '.join(held) or 'none'}"
        )
    return path
