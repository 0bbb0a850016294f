"""attnscope: see, measure and change what attention does."""

__version__ = "0.1.0"
