"""`as_text`: untrusted text for places that read markdown."""

__all__ = ["as_text"]

_MEANT = frozenset("\\`*_{}[]()#+-.!|<>$:~^=&\"'@/")


def as_text(text: str) -> str:
    r"""Return text that markdown shows as it is: no emphasis, link, picture, formula or icon.

    Example:
        >>> as_text("a*b")
        'a\\*b'
    """
    return "".join(f"\\{letter}" if letter in _MEANT else letter for letter in text)
