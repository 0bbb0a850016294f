"""`LensCache`: a trace under the names that users of TransformerLens know."""

import re
from collections.abc import Iterator, Mapping

from jaxtyping import Float
from torch import Tensor

from attnscope.attention import SoftmaxAttention
from attnscope.probes.errors import CaptureError
from attnscope.traces import Observation, Trace

__all__ = ["LensCache"]

_NAME = re.compile(r"blocks\.(\d+)\.(?:attn\.)?hook_(\w+)")


class LensCache(Mapping):
    """Activations of a trace's main stack, made when they are asked for, a batch axis in front.

    | name | shape | what it is |
    | --- | --- | --- |
    | `pattern` | `1 head query key` | after the softmax |
    | `z` | `1 query head dim` | what each head read, before W_O |
    | `v` | `1 key kv_head dim` | values |
    | `rot_q`, `rot_k` | `1 position head dim` | queries, keys as the kernel sees them: rotated |
    | `resid_pre` | `1 position width` | what entered the layer |

    Scores before the softmax are not among them: a trace keeps none. (The base names no types, as
    a type checker at run time would compute an activation to look at it.)

    Args:
        trace: The trace.
        stack: The stack; by default the main one.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> from attnscope.traces import Site, TokenSequence
        >>> text = TokenSequence(name="text", tokens=("to", "be"))
        >>> site = Site(stack="blocks", layer=0, path="blocks.0")
        >>> seen = Observation(
        ...     site=site, attention=DenseAttention(torch.eye(2)[None]), queries=text, keys=text
        ... )
        >>> trace = Trace(observations=[seen], sequences={"text": text}, main_sequence="text")
        >>> cache = LensCache(trace)
        >>> cache["pattern", -1].tolist()
        [[[[1.0, 0.0], [0.0, 1.0]]]]
        >>> list(cache)
        ['blocks.0.attn.hook_pattern']
    """

    def __init__(self, trace: Trace, stack: str | None = None) -> None:
        self._trace = trace.select(stack=stack or trace.main_stack)
        self._places = {site.layer: place for place, site in enumerate(self._trace.sites)}

    def __getitem__(self, name: str | tuple[str, int]) -> Float[Tensor, "1 ..."]:
        """Return an activation by `("pattern", layer)` or by its full name.

        Raises:
            KeyError: The trace does not hold it.
            OperatorError: A pattern is too large to be made.
        """
        short, layer = self._split(name)
        observation = self._trace.observed[self._places[layer]]
        if short not in _known(observation):
            raise KeyError(f"no {short!r} of layer {layer}; there are {_known(observation)}")
        return _activation(observation, short).unsqueeze(0)

    def __iter__(self) -> Iterator[str]:
        """Yield the full names, layer by layer."""
        for layer, observation in zip(self._places, self._trace.observations, strict=True):
            for short in _known(observation):
                inside = "" if short == "resid_pre" else "attn."
                yield f"blocks.{layer}.{inside}hook_{short}"

    def __len__(self) -> int:
        """Return the number of activations."""
        return sum(1 for _ in self)

    def _split(self, name: str | tuple[str, int]) -> tuple[str, int]:
        if isinstance(name, str):
            found = _NAME.fullmatch(name)
            if found is None:
                raise KeyError(f"{name!r} is no name such as 'blocks.0.attn.hook_pattern'")
            name = found[2], int(found[1])
        short, layer = name[0].removeprefix("hook_"), int(name[1])
        layers = sorted(self._places)
        if layer < 0 and -layer <= len(layers):
            layer = layers[layer]
        if layer not in self._places:
            raise KeyError(f"no layer {layer}; there are {layers}")
        return short, layer


def _known(observation: Observation) -> list[str]:
    """Return the names of what an observation holds."""
    there = {
        "rot_q": isinstance(observation.attention, SoftmaxAttention),
        "rot_k": isinstance(observation.attention, SoftmaxAttention),
        "v": observation.value is not None,
        "pattern": True,
        "z": observation.value is not None,
        "resid_pre": observation.hidden is not None,
    }
    return [name for name, held in there.items() if held]


def _activation(observation: Observation, name: str) -> Tensor:
    attention, value, hidden = observation.attention, observation.value, observation.hidden
    if name == "pattern":
        return attention.dense()
    if name == "v" and value is not None:
        return value.transpose(0, 1)
    if name == "z" and value is not None:
        group = attention.heads // len(value)
        return attention.apply(value.repeat_interleave(group, 0)).transpose(0, 1)
    if name == "resid_pre" and hidden is not None:
        return hidden
    if isinstance(attention, SoftmaxAttention) and name in ("rot_q", "rot_k"):
        return (attention.query if name == "rot_q" else attention.key).transpose(0, 1)
    raise CaptureError(f"{observation.site.path} holds no {name}")
