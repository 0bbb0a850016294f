"""The errors of figures."""

__all__ = ["FigureError", "MissingLibraryError"]


class FigureError(ValueError):
    """A picture was asked for from numbers that it cannot show."""


class MissingLibraryError(ImportError):
    """A drawing library that is an optional extra is not installed."""

    def __init__(self, library: str) -> None:
        super().__init__(
            f"drawing this needs {library}, which is not installed: pip install attnscope[figures]"
        )
