"""The error of token credit."""

__all__ = ["CreditError"]


class CreditError(ValueError):
    """Credit cannot be assigned as asked: readings are missing, or a trainer would cancel it."""
