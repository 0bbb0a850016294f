"""The paths of a model's modules, as they are without the wrappers of compiling."""

import re

from torch import nn

__all__ = ["module_paths"]

_COMPILED = re.compile(r"(^|\.)_orig_mod(?=\.|$)")


def module_paths(model: nn.Module) -> dict[nn.Module, str]:
    """Return every module's path; a compiled module has that of the module within.

    Example:
        >>> compiled = nn.Module()
        >>> compiled._orig_mod = nn.Sequential(nn.Identity())
        >>> list(module_paths(nn.Sequential(compiled)).values())
        ['', '0', '0', '0.0']
    """
    return {
        module: _COMPILED.sub("", path).removeprefix(".") for path, module in model.named_modules()
    }
