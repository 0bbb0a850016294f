"""Readings and traces to draw; one token is an attack on whoever does not escape."""

import pytest
import torch

from attnscope.attention import SoftmaxAttention
from attnscope.metrics import Reading
from attnscope.traces import (
    Observation,
    Provenance,
    Segment,
    Segments,
    Site,
    TokenSequence,
    Trace,
)

ATTACK = "<script>alert(1)</script>"


@pytest.fixture
def attack() -> str:
    return ATTACK


@pytest.fixture
def token_reading() -> Reading:
    return Reading(
        name="waad",
        title="Look back",
        unit="tokens",
        axes=("query",),
        values=torch.tensor([0.5, 2.0, torch.nan, 1.0]),
        bounds=(0.0, 10.0),
        paper="A. Author 2025, definition 1",
        coordinates={"query": ("The", ATTACK, " cat\n", "$x$")},
        positions={"query": (7, 8, 9, 10)},
    )


@pytest.fixture
def share_reading() -> Reading:
    return Reading(
        name="fai",
        title="Influence",
        axes=("key",),
        values=torch.tensor([0.1, 0.3, 0.2, torch.nan]),
        bounds=(0.0, 1.0),
        coordinates={"key": ("The", ATTACK, " cat\n", "$x$")},
        positions={"key": (7, 8, 9, 10)},
    )


@pytest.fixture
def head_reading() -> Reading:
    return Reading(
        name="head_span",
        title="Head span",
        unit="tokens",
        axes=("layer", "head"),
        values=torch.tensor([[1.0, 8.5, torch.nan], [0.25, 40.0, 3.0]]),
        bounds=(0.0, None),
        paper="B. Author 2025, equation 7",
        coordinates={"layer": (4, 9), "head": (0, 1, 2)},
    )


@pytest.fixture(scope="session")
def trace() -> Trace:
    generator = torch.Generator().manual_seed(0)
    words = ["Add", "two", "<b>", "=", ATTACK, "and", "then", "."]
    tokens = tuple(words[i % len(words)] for i in range(32))
    text = TokenSequence(
        name="text",
        tokens=tokens,
        segments=Segments(
            (
                Segment(name="prompt", start=0, stop=8),
                Segment(name="response", start=8, stop=32),
            )
        ),
    )
    return Trace(
        observations=[
            Observation(
                site=Site(stack="model.layers", layer=layer, path=f"model.layers.{layer}"),
                attention=SoftmaxAttention(
                    2 * torch.randn(4, 32, 8, generator=generator),
                    torch.randn(2, 32, 8, generator=generator),
                ),
                queries=text,
                keys=text,
            )
            for layer in range(3)
        ],
        sequences={"text": text},
        main_sequence="text",
        entropies=torch.cat([torch.tensor([torch.nan]), torch.rand(31, generator=generator)]),
        provenance=Provenance(
            model='tiny "<model>"', dtype="float32", versions={"torch": "2"}, notes={"why": "<why>"}
        ),
    )
