"""Visual attention sinks: image tokens that soak up attention, and heads that see past them."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.key_sets import mass_on
from attnscope.metrics.rows import precise

__all__ = [
    "find_sink_dimensions",
    "image_attention",
    "image_centric_heads",
    "require_reachable",
    "scaled_tau",
    "sink_dimension_value",
    "sink_tokens",
    "visual_nonsink_ratio",
]


def sink_dimension_value(
    hidden: Float[Tensor, "*batch position width"], dimensions: Sequence[int] | None = None
) -> Float[Tensor, "*batch position"]:
    """Return ``phi(x) = max over d in D of |x_d / RMS(x)|`` of each position's hidden state.

    From 0 to the square root of the width, which is reached where one entry of D holds all. NaN for
    a state of zeros.

    Args:
        hidden: The residual stream that enters a layer, before the layer's norm: the normed state
            gives other values.
        dimensions: D, the sink dimensions of the language model (`find_sink_dimensions`); None for
            all (our option, an upper bound).

    Raises:
        MetricError: There are no dimensions, or one lies outside the width.

    Reference: Kang et al. 2025, arXiv:2503.03321. Its dimensions are {1415, 2533} for
        LLaVA-1.5-7B and {2100, 4743} for Llama-2-13B.

    Example:
        >>> sink_dimension_value(torch.tensor([[0.0, 8.0, 0.0, 0.0], [1.0] * 4]), [1]).tolist()
        [2.0, 1.0]
    """
    states = precise(hidden)
    scaled = states.abs() / states.square().mean(-1, keepdim=True).sqrt()
    if dimensions is None:
        return scaled.amax(-1)
    chosen = list(dimensions)
    if not chosen or not all(0 <= place < hidden.shape[-1] for place in chosen):
        raise MetricError(
            f"sink dimensions {chosen} of a hidden state that goes from 0 to "
            f"{hidden.shape[-1] - 1}; name at least one of them"
        )
    return scaled[..., chosen].amax(-1)


def find_sink_dimensions(
    hidden: Sequence[Float[Tensor, "layer _position width"]], tau: float = 20.0, token: int = 0
) -> tuple[int, ...]:
    """Return the dimensions in which one token is massive in every prompt, the strongest first.

    A dimension counts if ``|x_d / RMS(x)|`` of the token is at least `tau` in some layer of each
    prompt. That is our reading: no recipe for a new model was published. Check what it finds on
    image tokens (`sink_tokens`), and give it prompts that share nothing but their first token.

    Args:
        hidden: The hidden states of each prompt, those that enter its layers.
        tau: Value to reach, at most the square root of the width.
        token: The token that is a sink in every text; by default the first.

    Raises:
        MetricError: There is no prompt, the widths differ, or `tau` cannot be reached.

    Example:
        >>> state = torch.tensor([[[0.0, 8.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]])
        >>> find_sink_dimensions([state, 3 * state], tau=1.5)
        (1,)
    """
    widths = {states.shape[-1] for states in hidden}
    if len(widths) != 1:
        raise MetricError(f"sink dimensions need hidden states of one width; got {sorted(widths)}")
    require_reachable(tau, widths.pop())
    values = []
    for states in hidden:
        state = precise(states[:, token])
        values.append((state.abs() / state.square().mean(-1, keepdim=True).sqrt()).amax(0))
    least = torch.stack(values).amin(0)
    order = least.argsort(descending=True, stable=True)
    return tuple(int(place) for place in order if least[place] >= tau)


def scaled_tau(width: int) -> float:
    """Return the published bound of sinks, 20 at a width of 4,096, for a narrower model.

    A state of width D has values up to the root of D, so the published number is out of reach below
    a width of 400; it shrinks with the root of the width and does not grow beyond (our reading).

    Example:
        >>> scaled_tau(4096), scaled_tau(256), scaled_tau(8192)
        (20.0, 5.0, 20.0)
    """
    return 20.0 * min(1.0, (width / 4096) ** 0.5)


def require_reachable(tau: float, width: int) -> None:
    """Refuse a bound that no hidden state of a width can reach.

    Raises:
        MetricError: `tau` lies above the square root of the width.
    """
    if tau > width**0.5:
        raise MetricError(
            f"no hidden state of width {width} reaches tau={tau}: its value is at most "
            f"{width**0.5:.4g}, the square root of the width"
        )


def sink_tokens(
    value: Float[Tensor, "*batch position"], tau: float = 20.0
) -> Bool[Tensor, "*batch position"]:
    """Return which tokens are attention sinks: those whose `sink_dimension_value` reaches `tau`.

    Those of an image segment are its visual sinks. (The published code takes values above `tau`,
    once, at the prefill.)

    Reference: Kang et al. 2025, arXiv:2503.03321, tau = 20.

    Example:
        >>> sink_tokens(torch.tensor([34.0, 20.0, 3.0])).tolist()
        [True, True, False]
    """
    return value >= tau


def image_attention(
    attention: AttentionOperator, image: Sequence[int]
) -> Float[Tensor, "*batch head query"]:
    """Return what each query gives to the image, ``sum over its tokens of A``.

    0 where it is not read, 1 where nothing else is. NaN for a query that sees no key.

    Raises:
        MetricError: A token of the image lies outside the keys, or entries are not shares.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.25, 0.5, 0.25]]]))
        >>> image_attention(A, [1, 2]).tolist()
        [[0.75]]
    """
    return mass_on(attention, [image], "image_attention")[..., 0]


def visual_nonsink_ratio(
    attention: AttentionOperator, image: Sequence[int], sinks: Bool[Tensor, " key"]
) -> Float[Tensor, "*batch head query"]:
    """Return which part of its attention to the image each query gives to tokens that are no sinks.

    1 for an image without sinks, 0 where sinks take everything. NaN for a query that gives the
    image nothing.

    Args:
        attention: Attention whose rows are distributions, or parts of one.
        image: The positions of the image's tokens.
        sinks: Which keys are sinks, `sink_tokens` of what entered this layer.

    Raises:
        MetricError: A token of the image lies outside the keys, entries are not shares, or there
            is not one verdict per key.

    Reference: Kang et al. 2025, arXiv:2503.03321, visual non-sink ratio.

    Example:
        >>> from attnscope.attention import DenseAttention
        >>> A = DenseAttention(torch.tensor([[[0.3, 0.2, 0.1, 0.1, 0.3]]]))
        >>> sinks = torch.tensor([True, True, False, False, False])
        >>> round(float(visual_nonsink_ratio(A, [1, 2, 3], sinks)), 6)  # 0.2 / 0.4
        0.5
    """
    if sinks.shape != (attention.keys,):
        raise MetricError(f"{tuple(sinks.shape)} sinks for the {attention.keys} keys")
    content = [key for key in image if not bool(sinks[key])]
    seen, whole = mass_on(attention, [content, image], "visual_nonsink_ratio").unbind(-1)
    return torch.where(whole > 0, seen / whole, torch.nan).clamp_max(1.0)


def image_centric_heads(
    mass: Float[Tensor, "*axes"],
    ratio: Float[Tensor, "*axes"],
    *,
    rho: float = 0.8,
    least_mass: float = 0.2,
    by_portion: bool = False,
) -> Bool[Tensor, "*axes"]:
    """Return which heads look at the image, and there at more than its sinks, query by query.

    Those whose `image_attention` reaches `least_mass` and whose `visual_nonsink_ratio` reaches
    `rho`.

    Args:
        mass: `image_attention`.
        ratio: `visual_nonsink_ratio`.
        rho: 0.8 for general tasks, 0.5 against hallucination, 0.9 where all depends on the image.
        least_mass: The least attention to the image.
        by_portion: Take the published code's test in place of the paper's: the share of the sinks
            is at most `rho`, that is ``ratio >= 1 - rho``. Both agree for 0.5 alone. (The code adds
            1e-6 per image token to the denominator, which is left out here.)

    Reference: Kang et al. 2025, arXiv:2503.03321, image-centric heads.

    Example:
        >>> mass, ratio = torch.tensor([0.4, 0.1, 0.4]), torch.tensor([0.5, 0.9, 0.85])
        >>> image_centric_heads(mass, ratio).tolist()
        [False, False, True]
        >>> image_centric_heads(mass, ratio, by_portion=True).tolist()
        [True, False, True]
    """
    sees_past = 1 - ratio <= rho if by_portion else ratio >= rho
    return (mass >= least_mass) & sees_past
