"""The error of interventions."""

__all__ = ["InterventionError"]


class InterventionError(ValueError):
    """A model, its inputs or a request cannot be intervened on as asked."""
