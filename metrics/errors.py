"""The one exception of the metrics: a measurement that makes no sense on what was given."""

__all__ = ["MetricError"]


class MetricError(ValueError):
    """A metric is unknown, its options do not fit, or what it needs was not captured."""
