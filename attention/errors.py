"""The one exception of the operators: a question that this operator cannot answer."""

__all__ = ["OperatorError"]


class OperatorError(ValueError):
    """An operator was built from parts that do not fit, or asked for what it cannot give."""
