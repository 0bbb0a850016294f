"""The error of captures."""

__all__ = ["CaptureError"]


class CaptureError(ValueError):
    """A model, its inputs or a request cannot be captured as asked."""
