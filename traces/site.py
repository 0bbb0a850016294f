"""`Site` names one attention computation of a model; `Observation` is what was seen there."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.traces.segments import TokenSequence

__all__ = ["Observation", "Site"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One attention computation: a layer of a stack.

    Attributes:
        stack: The layers that belong together, as a module path without the layer number
            (`model.layers.self_attn`, `encoder.layer.attention`).
        layer: The layer's number in its stack.
        path: The module path (`model.layers.3.self_attn`).
        query_sequence: Name of the sequence that the queries are positions of.
        key_sequence: Name of the sequence that the keys are positions of.
    """

    stack: str
    layer: int
    path: str
    query_sequence: str = "text"
    key_sequence: str = "text"

    def reads_itself(self, sequence: str) -> bool:
        """Return whether queries and keys are the positions of this sequence."""
        return self.query_sequence == self.key_sequence == sequence


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """What is known of one site: the same from a running model and from a stored trace.

    Attributes:
        site: Where this was seen.
        attention: The operator, without a batch axis: head query key.
        queries: The sequence of the queries.
        keys: The sequence of the keys.
        value: The values that the attention reads.
        gradient: dL/dz, the target's gradient by the heads' outputs z (before W_O).
        hidden: The residual stream that entered the layer.
    """

    site: Site
    attention: AttentionOperator
    queries: TokenSequence
    keys: TokenSequence
    value: Float[Tensor, "kv_head key dim"] | None = None
    gradient: Float[Tensor, "head query dim"] | None = None
    hidden: Float[Tensor, "position width"] | None = None
