"""Which earlier tokens count as outputs before a token: the J of the saliency of a candidate."""

from attnscope.metrics.errors import MetricError
from attnscope.traces import Segments

__all__ = ["after_image_keys", "previous_token_keys", "response_keys"]


def response_keys(segments: Segments, token: int) -> list[int]:
    """Return the positions of the response before a token; none before the first one.

    Raises:
        MetricError: There is no response segment.

    Example:
        >>> from attnscope.traces import Segment
        >>> spans = [("image", 0, 2), ("prompt", 2, 4), ("response", 4, 8)]
        >>> runs = Segments(tuple(Segment(name=n, start=a, stop=b) for n, a, b in spans))
        >>> response_keys(runs, 7), response_keys(runs, 4)
        ([4, 5, 6], [])
    """
    return [key for key in _named(segments, "response") if key < token]


def after_image_keys(segments: Segments, token: int) -> list[int]:
    """Return the positions between the last image before a token and the token.

    The paper's own choice (arXiv:2601.20279, equation 6); the question counts as output.

    Raises:
        MetricError: There is no image segment before the token.

    Example:
        >>> from attnscope.traces import Segment
        >>> spans = [("image", 0, 2), ("prompt", 2, 4), ("response", 4, 8)]
        >>> runs = Segments(tuple(Segment(name=n, start=a, stop=b) for n, a, b in spans))
        >>> after_image_keys(runs, 7)
        [2, 3, 4, 5, 6]
    """
    before = [key for key in _named(segments, "image") if key < token]
    if not before:
        raise MetricError(f"no image stands before token {token}")
    return list(range(max(before) + 1, token))


def previous_token_keys(segments: Segments, token: int) -> list[int]:
    """Return the token before, where it is of the response: the paper's table 4 measures it.

    Raises:
        MetricError: There is no response segment.

    Example:
        >>> from attnscope.traces import Segment
        >>> runs = Segments((Segment(name="response", start=4, stop=8),))
        >>> previous_token_keys(runs, 7), previous_token_keys(runs, 4)
        ([6], [])
    """
    return [key for key in _named(segments, "response") if key == token - 1]


def _named(segments: Segments, name: str) -> list[int]:
    if name not in segments:
        raise MetricError(f"no {name} segment; this sequence has {list(segments.names)}")
    return segments[name]
