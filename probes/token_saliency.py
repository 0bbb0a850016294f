"""`saliency_maps` and `response_saliency`: what each token of a response owes to what it read.

Each token has a target of its own, and with it gradients of its own: one forward pass, and one
backward pass per token. A single pass for the sum of all losses is another quantity, because the
row that predicts a token also matters to every later one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.attention import KeyFunction
from attnscope.metrics import Reading, candidate_saliency, layer_saliency, response_keys
from attnscope.metrics.saliency import NormScope
from attnscope.probes.collector import Run
from attnscope.probes.errors import CaptureError
from attnscope.probes.recorder import capture
from attnscope.probes.subject import Inputs, Subject
from attnscope.probes.targets import Target
from attnscope.probes.token_targets import TokenLosses, response_tokens
from attnscope.traces import Observation, Segments

__all__ = ["response_saliency", "saliency_maps"]

Keys = Callable[[Segments, int], list[int]]
"""Which earlier positions count as outputs before a token."""

Targets = Callable[[tuple[int, ...]], Target]
"""Makes a target of one number per token: `TokenLosses`, `TokenLogits`."""

_PAPER = "Zhang et al. 2026, arXiv:2601.20279"


def saliency_maps(
    subject: Subject,
    inputs: Inputs,
    layers: Sequence[int] | None = None,
    norm: NormScope = "row",
    target: Targets = TokenLosses,
) -> Reading:
    """Return the saliency of every key for every token of the response, by layer.

    The reading has the axes layer, token and key: `layer_saliency` of the row that predicts the
    token, under the token's own target. NaN where that row's gradient is 0.

    Args:
        subject: The model.
        inputs: What was read and said, with a segment `response`.
        layers: Layers to record; by default all.
        norm: What the head sum is divided by the L2 norm of: its row, the whole map, or None.
        target: `TokenLosses`, or `TokenLogits` for the logit of each token.

    Raises:
        CaptureError: There is no response, or the inputs do not fit the model.

    Reference: Zhang et al. 2026, arXiv:2601.20279, equations 2 to 5.
    """
    return _saliency(subject, inputs, layers, norm, target)[0]


def response_saliency(
    subject: Subject,
    inputs: Inputs,
    layers: Sequence[int] | None = None,
    keys: Keys = response_keys,
    norm: NormScope = "row",
    target: Targets = TokenLosses,
) -> Reading:
    """Return the mean saliency of the outputs before each token of the response, by layer.

    The reading has the axes layer and token; its mean over layers is `candidate_saliency`, the
    score of the token. Low where a token does not depend on what was said before it. NaN where
    nothing was said before it, as for the first one.

    Args:
        subject: The model.
        inputs: What was read and said, with a segment `response`.
        layers: Layers to record; by default all. The published code takes 6, 7 and 8 of 32.
        keys: Which earlier positions count: `response_keys`, `after_image_keys` (the paper's), or
            `previous_token_keys` (its table 4).
        norm: What the head sum is divided by the L2 norm of: its row, the whole map, or None.
        target: `TokenLosses`, or `TokenLogits` for the logit of each token.

    Raises:
        CaptureError: There is no response, or the inputs do not fit the model.
        MetricError: There is no segment that `keys` asks for.

    Reference: Zhang et al. 2026, arXiv:2601.20279, equation 6.
    """
    maps, segments = _saliency(subject, inputs, layers, norm, target)
    columns = [
        candidate_saliency(maps.values[:, number, None], keys(segments, token))
        for number, token in enumerate(maps.positions["token"])
    ]
    kept = {axis: maps.coordinates[axis] for axis in ("layer", "token")}
    return replace(
        maps,
        name="response_saliency",
        title="Saliency of earlier outputs",
        values=torch.stack(columns, dim=-1),
        axes=("layer", "token"),
        coordinates=kept,
        paper=f"{_PAPER}, equation 6",
        options={**maps.options, "keys": getattr(keys, "__name__", repr(keys))},
    )


def _saliency(
    subject: Subject,
    inputs: Inputs,
    layers: Sequence[int] | None,
    norm: NormScope,
    target: Targets,
) -> tuple[Reading, Segments]:
    encoded = subject.encode(inputs)
    if encoded.main_sequence not in encoded.sequences:
        raise CaptureError("saliency of a response needs tokens; these inputs have none")
    sequence = encoded.sequences[encoded.main_sequence]
    tokens = response_tokens(sequence)
    wanted = target(tokens)
    stack, rows = capture(subject, encoded, layers, gradient=wanted, into=_Rows(tokens, norm))
    reading = Reading(
        name="saliency",
        title="Saliency",
        values=torch.stack(list(rows.values())),
        axes=("layer", "token", "key"),
        bounds=(0.0, None if norm is None else 1.0),
        paper=f"{_PAPER}, equation 5",
        coordinates={
            "layer": tuple(rows),
            "token": tuple(sequence.tokens[token] for token in tokens),
            "key": sequence.tokens,
        },
        positions={"token": tokens},
        stack=stack,
        options={"norm": norm, "target": wanted.name},
    )
    return reading, sequence.segments


class _Rows:
    """Keeps the row of each token that predicts it, from the gradients of that token's target."""

    def __init__(self, tokens: tuple[int, ...], norm: NormScope) -> None:
        self.needs = frozenset({"gradients", "logits"})
        self.riders: tuple[KeyFunction, ...] = ()
        self._tokens, self._norm = tokens, norm
        self.start()

    def start(self) -> None:
        self._rows: dict[tuple[str, int], list[Tensor]] = {}

    def record(self, observation: Observation) -> None:
        value, gradient, site = observation.value, observation.gradient, observation.site
        if value is None or gradient is None:
            raise CaptureError(f"{site.path} gives no values, so that its saliency is unknown")
        rows = self._rows.setdefault((site.stack, site.layer), [])
        query = self._tokens[len(rows)] - 1  # the last position of the prefix
        with torch.no_grad():
            row = layer_saliency(observation.attention, value, gradient, [query], self._norm)
        rows.append(row[0].cpu())

    def finish(self, run: Run) -> tuple[str, dict[int, Float[Tensor, "token key"]]]:
        """Return the first stack of the main sequence and the rows of its layers."""
        if not self._rows:
            raise CaptureError(f"no layer reads {run.main_sequence!r} from itself")
        stack = next(iter(self._rows))[0]
        return stack, {
            layer: torch.stack(rows) for (name, layer), rows in self._rows.items() if name == stack
        }
