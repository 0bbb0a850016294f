"""How much queries give to the system prompt, the image, the question and the answer so far."""

from jaxtyping import Float
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.metrics.errors import MetricError
from attnscope.metrics.key_sets import mass_on
from attnscope.metrics.rows import Rows, chosen_rows, mean_rows
from attnscope.traces import Segments

__all__ = ["attention_to_segments"]


def attention_to_segments(
    attention: AttentionOperator, segments: Segments, queries: Rows | None = None
) -> Float[Tensor, "*batch head segment"]:
    """Return the share of its attention that each head gives to the segments of each name.

    The mean over queries; names stand in the order of `segments.names`, runs of one name together.
    From 0 to 1, and 1 over all names where every key has a role. One product with an indicator
    column per name, whatever the operator.

    Args:
        attention: Attention whose rows are distributions, or parts of one.
        segments: What the keys are.
        queries: Rows to average over, usually the response; by default all.

    Raises:
        MetricError: There is no segment, or entries are not shares.

    Reference: our own measure, of which `image_attention` is the part that Kang et al. 2025,
        arXiv:2503.03321, select heads by.

    Example:
        >>> import torch
        >>> from attnscope.attention import DenseAttention
        >>> from attnscope.traces import Segment
        >>> A = DenseAttention(torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.3, 0.0]]]))
        >>> runs = (Segment(name="image", start=0, stop=2), Segment(name="prompt", start=2, stop=4))
        >>> [round(float(x), 4) for x in attention_to_segments(A, Segments(runs))[0]]
        [0.5, 0.5]
    """
    if not segments.runs:
        raise MetricError("segment attention needs segments; the sequence of the keys has none")
    mass = mass_on(attention, [segments[name] for name in segments.names], "segment_attention")
    rows = chosen_rows(attention, queries).unsqueeze(-2)  # beside the segments, which come last
    return mean_rows(mass.mT, rows)
