"""Values carried along a sequence by states that fade, without the matrix that this stands for."""

from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["fading", "groups_of", "per_head", "scan_product"]

_CHUNK = 64
"""Rows whose triangle is built where a head has one rate."""

_NUMBERS_AT_ONCE = 2**15
"""Numbers of a step through the states that are worth a call: more fall out of the cache."""


def scan_product(
    read: Float[Tensor, "*batch group position state"],
    write: Float[Tensor, "*batch group position state"],
    steps: Float[Tensor, "*batch head position"],
    decay: Float[Tensor, "head #state"],
    values: Float[Tensor, "*batch #head position dim"],
) -> Float[Tensor, "*batch head position dim"]:
    """Return `o_t = read_t . h_t` of the states `h_t = exp(decay steps_t) h_(t-1) + write_t v_t`.

    With one rate per head, chunks of 64 rows build their triangle and hand a state on: time
    O(T dim (64 + state)). With a rate per entry of the state, positions are stepped
    through, up to sqrt(T) pieces of the sequence side by side: time O(T state dim), memory that of
    sqrt(T) states.

    Example:
        >>> ones, half = torch.ones(1, 3, 1), torch.full((1, 1), 0.5).log()
        >>> scan_product(ones, ones, ones[..., 0], half, ones).flatten().tolist()
        [1.0, 1.5, 1.75]
    """
    heads = steps.shape[-2]
    read, write = per_head(read, heads), per_head(write, heads)
    if decay.shape[-1] == 1:
        return _by_triangles(read, write, steps * decay, values)
    return _by_steps(read, write, (steps, decay), values)


def per_head(factor: Tensor, heads: int) -> Tensor:
    """Return a factor that groups of heads share, once per head (a single one is broadcast)."""
    groups = factor.shape[-3]
    return factor if groups == 1 else factor.repeat_interleave(heads // groups, dim=-3)


def groups_of(factor: Tensor, chosen: Tensor, heads: int) -> Tensor:
    """Return what chosen heads read of a factor: a group each, or the one that all share."""
    groups = factor.shape[-3]
    return factor if groups == 1 else factor.index_select(-3, chosen // (heads // groups))


def fading(
    logs: Float[Tensor, "*batch position"],
) -> tuple[Float[Tensor, "*batch position position"], Float[Tensor, "*batch position"]]:
    """Return what is left at row i of what was written at j, 0 above the diagonal, and from before.

    Sums of logarithms are subtracted in float64: late in a long run they are large, and what
    counts is a small difference.

    Example:
        >>> left, first = fading(torch.tensor([0.5, 0.25]).log())
        >>> left.tolist(), first.tolist()
        ([[1.0, 0.0], [0.25, 1.0]], [0.5, 0.125])
    """
    sums = logs.double().cumsum(-1)
    between = sums.unsqueeze(-1) - sums.unsqueeze(-2)
    hidden = torch.ones(between.shape[-2:], dtype=torch.bool, device=logs.device).triu(1)
    left = between.masked_fill(hidden, -torch.inf).to(logs.dtype).exp()
    return left, sums.to(logs.dtype).exp()


def _by_triangles(read: Tensor, write: Tensor, logs: Tensor, values: Tensor) -> Tensor:
    state, results = values.new_zeros(()), []
    for start in range(0, logs.shape[-1], _CHUNK):
        rows = slice(start, start + _CHUNK)
        queries, keys, chunk = (factor[..., rows, :] for factor in (read, write, values))
        left, first = fading(logs[..., rows])
        own = (queries @ keys.mT * left) @ chunk
        results.append(own if start == 0 else own + first.unsqueeze(-1) * (queries @ state))
        last = left[..., -1, :].unsqueeze(-1) * keys
        state = first[..., -1, None, None] * state + last.mT @ chunk
    return torch.cat(results, dim=-2)


def _by_steps(read: Tensor, write: Tensor, rates: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    steps, decay = rates
    length = steps.shape[-1]
    numbers = torch.Size(steps.shape[:-1]).numel() * read.shape[-1] * values.shape[-1]
    pieces = min(isqrt(length), max(1, _NUMBERS_AT_ONCE // max(1, numbers)))
    size = -(-length // max(1, pieces))
    tail = -length % max(1, size)

    def in_time(factor: Tensor, axis: int) -> Tensor:
        """Return a factor as `(place in the piece, ..., piece, number)`."""
        below = (0, 0) * (-1 - axis)
        return pad(factor, (*below, 0, tail)).unflatten(axis, (-1, size)).movedim(axis, 0)

    faded = in_time(steps, -1).contiguous()
    read, write, values = (in_time(factor, -2).contiguous() for factor in (read, write, values))
    decay = decay.unsqueeze(-2)  # the same in every piece

    def advanced(states: Tensor, place: int) -> Tensor:
        left = (faded[place].unsqueeze(-1) * decay).exp().unsqueeze(-2)
        return states * left + values[place].unsqueeze(-1) * write[place].unsqueeze(-2)

    states = values.new_zeros(*faded.shape[1:], values.shape[-1], read.shape[-1])
    if states.shape[-3] > 1:
        for place in range(size):  # what each piece adds by itself
            states = advanced(states, place)
        whole = (faded.sum(0).unsqueeze(-1) * decay).exp().unsqueeze(-2)
        begun = [torch.zeros_like(states[..., 0, :, :])]
        for piece in range(states.shape[-3] - 1):
            begun.append(begun[-1] * whole[..., piece, :, :] + states[..., piece, :, :])
        states = torch.stack(begun, dim=-3)
    results = []
    for place in range(size):
        states = advanced(states, place)
        results.append((read[place].unsqueeze(-2) * states).sum(-1))
    return torch.stack(results, dim=-2).flatten(-3, -2)[..., :length, :]
