"""Random attention maps and small traces for the tests of metrics, and lists to loop over."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from attnscope.attention import AttentionOperator, DenseAttention, SoftmaxAttention
from attnscope.traces import Observation, Segment, Segments, Site, TokenSequence, Trace

NAN = float("nan")
SHEET = [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.2, 0.3, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4]]
"""The map on which the definitions were worked out by hand."""


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return standard normal numbers, the same for one seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def pattern(seed: int, *shape: int, causal: bool = True, sharpness: float = 2.0) -> Tensor:
    """Return random distributions `(*batch, head, query, key)`, the last query at the last key."""
    scores = sharpness * normal(seed, *shape)
    queries, keys = shape[-2:]
    if causal:
        hidden = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores.softmax(-1)


def sheet(dtype: torch.dtype = torch.float64) -> DenseAttention:
    """Return the operator of the map worked out by hand."""
    return DenseAttention(torch.tensor([SHEET], dtype=dtype))


def random_operator(seed: int, *shape: int, causal: bool = True) -> DenseAttention:
    """Return the operator of a random map."""
    return DenseAttention(pattern(seed, *shape, causal=causal))


@st.composite
def operators(draw: Any, *, causal: bool = True, square: bool = False) -> DenseAttention:
    """Return an operator with or without batch axes, square or of a sequence's last queries."""
    batch = draw(st.sampled_from([(), (2,), (1, 2)]))
    heads, keys = draw(st.integers(1, 3)), draw(st.integers(1, 14))
    queries = keys if square else draw(st.integers(1, keys))
    return random_operator(draw(st.integers(0, 2**31)), *batch, heads, queries, keys, causal=causal)


def lists(values: Tensor) -> Any:
    """Return the values as nested lists of Python numbers."""
    return values.tolist()


def close(actual: Tensor, expected: Any, tolerance: float = 1e-6) -> None:
    """Assert that numbers agree, NaN with NaN."""
    wanted = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


# --- a small trace with everything that a metric may need --------------------------------------

TOKENS = 48
PROMPT, IMAGE, RESPONSE = range(0, 1), range(1, 7), range(12, TOKENS)


def sequence() -> TokenSequence:
    """Return tokens with ids that repeat, an image, a prompt, and a response of short sentences."""
    texts = [f" w{i % 5}" if i % 4 else "." for i in range(TOKENS)]
    runs = (
        Segment(name="image", start=1, stop=7, grid=(2, 3)),
        Segment(name="prompt", start=7, stop=12),
        Segment(name="response", start=12, stop=TOKENS),
    )
    ids = tuple((i * i) % 11 for i in range(TOKENS))
    return TokenSequence(name="text", tokens=tuple(texts), ids=ids, segments=Segments(runs))


def observation(
    layer: int, attention: AttentionOperator | None = None, **changes: Any
) -> Observation:
    """Return what one layer of the small model shows."""
    queries, keys = normal(layer, 4, TOKENS, 8), normal(layer + 50, 2, TOKENS, 8)
    hidden = normal(layer + 100, TOKENS, 6)
    hidden[0, 2] = 5000.0
    facts = {
        "site": Site(stack="layers", layer=layer, path=f"layers.{layer}.attn"),
        "attention": SoftmaxAttention(2 * queries, keys) if attention is None else attention,
        "queries": sequence(),
        "keys": sequence(),
        "hidden": hidden,
    }
    if attention is None or attention.shape == (4, TOKENS, TOKENS):  # what the factors fit
        facts |= {
            "value": normal(layer + 150, 2, TOKENS, 8),
            "gradient": normal(layer + 200, 4, TOKENS, 8),
        }
    return Observation(**(facts | changes))


def small_trace(layers: tuple[int, ...] = (2, 5, 7)) -> Trace:
    """Return a trace of some layers of the small model."""
    return Trace(
        observations=[observation(layer) for layer in layers],
        sequences={"text": sequence()},
        main_sequence="text",
        entropies=normal(7, TOKENS).abs(),
    )
