"""`LargestStorage`: what an O(T) claim is held against, the largest thing that was ever made."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["LargestStorage"]


class LargestStorage(TorchDispatchMode):
    """Remembers how many elements the largest storage holds that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and look at what it made."""
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, Tensor):
                held = made.untyped_storage().nbytes() // made.element_size()
                self.elements = max(self.elements, held)
        return result
