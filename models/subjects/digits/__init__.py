"""Small trained classifiers of handwritten digits, alike in all but the mechanism that mixes."""

from attnscope.models.subjects.digits.checkpoint import (
    WEIGHTS,
    load_classifier,
    save_classifier,
    training_facts,
)
from attnscope.models.subjects.digits.classifier import DigitClassifier
from attnscope.models.subjects.digits.images import Pictures, heldout, place
from attnscope.models.subjects.digits.mechanisms import MECHANISMS

__all__ = [
    "MECHANISMS",
    "WEIGHTS",
    "DigitClassifier",
    "Pictures",
    "heldout",
    "load_classifier",
    "place",
    "save_classifier",
    "training_facts",
]
