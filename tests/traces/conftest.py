"""Traces to test with, and files that are made byte by byte."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnscope.attention import (
    AlibiBias,
    AttentionOperator,
    ConvolutionAttention,
    DeltaRuleAttention,
    DenseAttention,
    GateAttention,
    GroupedAttention,
    HadamardAttention,
    IndexedAttention,
    KernelAttention,
    Mask,
    OuterAttention,
    PositiveAttention,
    ScaledAttention,
    ScanAttention,
    SoftmaxAttention,
    SumAttention,
    TruncatedAttention,
    WindowedAttention,
)
from attnscope.traces import (
    Observation,
    Provenance,
    Segment,
    Segments,
    Site,
    TokenSequence,
    Trace,
)

HEADS, LENGTH, WIDTH = 4, 64, 16  # a head's factor fills one checksum's worth of bytes


def dense(length: int) -> DenseAttention:
    return DenseAttention(torch.randn(HEADS, length, length).tril().exp().tril())


def outer(length: int) -> OuterAttention:
    return OuterAttention(torch.randn(HEADS, length, WIDTH), torch.randn(2, length, WIDTH))


def softmax(length: int) -> SoftmaxAttention:
    return SoftmaxAttention(torch.randn(HEADS, length, WIDTH), torch.randn(2, length, WIDTH))


def masked_softmax(length: int) -> SoftmaxAttention:
    positions = torch.arange(length)
    return SoftmaxAttention(
        torch.randn(HEADS, length, WIDTH).bfloat16(),
        torch.randn(2, length, WIDTH).bfloat16(),
        0.3,
        mask=Mask(
            before=5,
            after=0,
            key_valid=positions > 0,
            query_segment=positions // 3,
            key_segment=positions // 3,
        ),
        bias=AlibiBias(torch.rand(HEADS)),
        softcap=20.0,
        sinks=torch.randn(HEADS),
    )


def mixture(length: int) -> SumAttention:
    share = torch.rand(HEADS)
    content = ScaledAttention(softmax(length), share)
    position = ScaledAttention(dense(length).normalized(), 1 - share)
    return SumAttention([content, position], stochastic=True)


def convolution(length: int) -> ConvolutionAttention:
    return ConvolutionAttention(torch.randn(HEADS, 5), (length,))


def gate(length: int) -> GateAttention:
    return GateAttention(torch.randn(HEADS, length))


def grouped(length: int) -> GroupedAttention:
    read = SoftmaxAttention(
        torch.randn(1, length, WIDTH), torch.randn(1, 8, WIDTH), causal=False, key_axis="group"
    )
    owner = torch.arange(length) * 8 // length == torch.arange(8)[:, None]
    spread = DenseAttention(owner[None] * (8 / length), query_axis="group")
    groups = torch.randn(2, HEADS, 8, WIDTH)
    return GroupedAttention(read, spread, SoftmaxAttention(*groups, causal=False))


def indexed(length: int) -> IndexedAttention:
    index = (torch.arange(length)[:, None] - torch.arange(5)).clamp_min(-1)
    weights = torch.rand(HEADS, length, 5).masked_fill(index < 0, 0)
    return IndexedAttention(weights, index, length, offset=0)


def kernel(length: int) -> KernelAttention:
    query, key = torch.rand(HEADS, length, WIDTH), torch.rand(HEADS, length, WIDTH)
    return KernelAttention(query, key, causal=True)


def hadamard(length: int) -> HadamardAttention:
    left, right = torch.randn(HEADS, length, WIDTH), torch.randn(HEADS, length, WIDTH)
    return HadamardAttention(softmax(length), left, right)


def windowed(length: int) -> WindowedAttention:
    windows = torch.arange(length).reshape(-1, 8)
    factors = torch.randn(2, len(windows), HEADS, 8, WIDTH)
    return WindowedAttention(
        SoftmaxAttention(*factors, causal=False), windows, windows, length, length, offset=0
    )


def scan(length: int) -> ScanAttention:
    query, key = torch.randn(1, length, WIDTH), torch.randn(1, length, WIDTH)
    delta, decay = torch.rand(HEADS, length), -torch.rand(HEADS, WIDTH)
    return ScanAttention(query, key, delta, decay, skip=torch.randn(HEADS))


def delta_rule(length: int) -> DeltaRuleAttention:
    key = torch.nn.functional.normalize(torch.randn(2, length, WIDTH), dim=-1)
    beta, log_decay = torch.rand(HEADS, length), -torch.rand(HEADS, length)
    return DeltaRuleAttention(torch.randn(2, length, WIDTH), key, beta, log_decay)


BUILDERS: dict[str, Callable[[int], AttentionOperator]] = {
    "ConvolutionAttention": convolution,
    "DeltaRuleAttention": delta_rule,
    "DenseAttention": dense,
    "GateAttention": gate,
    "GroupedAttention": grouped,
    "IndexedAttention": indexed,
    "HadamardAttention": hadamard,
    "KernelAttention": kernel,
    "OuterAttention": outer,
    "PositiveAttention": lambda length: PositiveAttention(outer(length)),
    "ProductAttention": lambda length: softmax(length) @ dense(length),
    "RowScaledAttention": lambda length: dense(length).normalized(),
    "ScaledAttention": lambda length: 0.5 * softmax(length),
    "ScanAttention": scan,
    "SoftmaxAttention": softmax,
    "SoftmaxAttention with everything": masked_softmax,
    "SumAttention of shares": mixture,
    "TransposedAttention": lambda length: softmax(length).T,
    "TruncatedAttention": lambda length: TruncatedAttention.of(softmax(length), 5),
    "WindowedAttention": windowed,
}


@pytest.fixture(scope="session")
def builders() -> dict[str, Callable[[int], AttentionOperator]]:
    """Return a maker of each kind of operator, by kind (and what is special about it)."""
    return BUILDERS


@pytest.fixture(params=BUILDERS)
def build(request: pytest.FixtureRequest) -> Callable[[int], AttentionOperator]:
    """Return the maker of one kind of operator, each in turn."""
    return BUILDERS[request.param]


def sequence(length: int, name: str = "text") -> TokenSequence:
    prompt = Segment(name="prompt", start=1, stop=length - 1)
    return TokenSequence(
        name=name,
        tokens=tuple(f"{name}{position}" for position in range(length)),
        ids=tuple(range(length)),
        segments=Segments((prompt,)),
    )


def observation(
    text: TokenSequence,
    layer: int = 0,
    attention: AttentionOperator | None = None,
    stack: str = "model.layers.self_attn",
    gradient: bool = True,
) -> Observation:
    length = len(text)
    return Observation(
        site=Site(
            stack=stack,
            layer=layer,
            path=stack.replace("layers", f"layers.{layer}"),
            query_sequence=text.name,
            key_sequence=text.name,
        ),
        attention=softmax(length) if attention is None else attention,
        queries=text,
        keys=text,
        value=torch.randn(2, length, WIDTH) if gradient else None,
        gradient=torch.randn(HEADS, length, WIDTH) if gradient else None,
        hidden=torch.randn(length, 5, dtype=torch.float64) if gradient else None,
    )


@pytest.fixture(scope="session")
def make_sequence() -> Callable[..., TokenSequence]:
    return sequence


@pytest.fixture(scope="session")
def make_observation() -> Callable[..., Observation]:
    return observation


@pytest.fixture(scope="session")
def make_trace() -> Callable[..., Trace]:
    """Return a maker of traces of `layers` layers over `length` tokens."""

    def make(
        build: Callable[[int], AttentionOperator] = softmax,
        layers: int = 2,
        length: int = LENGTH,
        seed: int = 0,
    ) -> Trace:
        torch.manual_seed(seed)
        text = sequence(length)
        log_probabilities = -torch.rand(length)
        log_probabilities[0] = torch.nan
        return Trace(
            observations=[observation(text, layer, build(length)) for layer in range(layers)],
            sequences={"text": text},
            main_sequence="text",
            log_probabilities=log_probabilities,
            entropies=torch.rand(length, dtype=torch.float64),
            provenance=Provenance(model="tiny", dtype="float32", notes={"seed": str(seed)}),
        )

    return make


@pytest.fixture
def stored(tmp_path: Path, make_trace: Callable[..., Trace]) -> Path:
    """Return a file that holds a trace of two layers."""
    path = tmp_path / "stored.safetensors"
    make_trace().save(path)
    return path


@pytest.fixture(scope="session")
def place_of() -> Callable[[Path, str], tuple[int, int]]:
    """Return a function that finds the bytes of a tensor in a file."""

    def place(path: Path, tensor: str) -> tuple[int, int]:
        content = path.read_bytes()
        origin = 8 + int.from_bytes(content[:8], "little")
        start, stop = json.loads(content[8:origin])[tensor]["data_offsets"]
        return origin + start, origin + stop

    return place


@pytest.fixture(scope="session")
def flip() -> Callable[[Path, int, int], None]:
    """Return a function that turns one bit of a file."""

    def turn(path: Path, position: int, bit: int = 0) -> None:
        with path.open("r+b") as stream:
            stream.seek(position)
            byte = stream.read(1)[0]
            stream.seek(position)
            stream.write(bytes([byte ^ 1 << bit]))

    return turn
