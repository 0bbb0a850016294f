"""`SiteOperators`: the mapping behind `trace.attention` and `trace.gradient`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attnscope.attention import AttentionOperator
from attnscope.traces.errors import MissingSiteError, TraceError
from attnscope.traces.observations import SiteSummary

__all__ = ["SiteOperators", "layer_numbers", "resolve_layer"]

Key = int | tuple[str, int]


class SiteOperators(Mapping):
    """Operators by `(stack, layer)`, or by the layer alone in the main stack.

    A negative layer counts from the last one that the trace holds. Iterating yields the pairs in
    order of execution and reads no tensor. (The base names no types, as a type checker at run time
    would read an operator to look at it.)
    """

    def __init__(
        self,
        what: str,
        summaries: Sequence[SiteSummary | None],
        main_stack: str | None,
        read: Callable[[int, Sequence[int] | None], AttentionOperator],
    ) -> None:
        self._what, self._main_stack, self._read = what, main_stack, read
        self._summaries = {
            (summary.site.stack, summary.site.layer): (index, summary)
            for index, summary in enumerate(summaries)
            if summary is not None
        }

    def __getitem__(self, key: Key) -> AttentionOperator:
        """Return the operator of a site.

        Raises:
            TraceError: The trace holds no such stack or layer.
        """
        index, _ = self._summaries[self._resolve(key)]
        return self._read(index, None)

    def __contains__(self, key: object) -> bool:
        """Return whether there is such a site, without reading it."""
        try:
            return self._resolve(key) in self._summaries  # pyright: ignore[reportArgumentType]
        except (MissingSiteError, TypeError, ValueError):
            return False

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield `(stack, layer)` of each site, in order of execution."""
        return iter(self._summaries)

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self._summaries)

    def __repr__(self) -> str:
        """Return the layers of each stack."""
        return f"{type(self).__name__}({self._what}: {self._layers() or 'none'})"

    def heads(self, key: Key, heads: int | Sequence[int]) -> AttentionOperator:
        """Return the operator of some heads of a site.

        The same as `self[key].select_heads(heads)`, but of a stored trace only the factors of
        these heads are read and checked.

        Raises:
            TraceError: The trace holds no such stack, layer or head.
        """
        index, summary = self._summaries[self._resolve(key)]
        count = summary.shape[0]
        chosen = [heads] if isinstance(heads, int) else [int(head) for head in heads]
        if not chosen or not all(-count <= head < count for head in chosen):
            raise TraceError(f"heads {chosen}: {summary.site.path} has {count} heads, from 0")
        return self._read(index, [head % count for head in chosen])

    def _layers(self) -> dict[str, list[int]]:
        return layer_numbers(self._summaries)

    def _resolve(self, key: Key) -> tuple[str, int]:
        stack, layer = key if isinstance(key, tuple) else (self._main_stack, key)
        layers = self._layers()
        if not layers:
            raise MissingSiteError(f"this trace holds no {self._what}")
        if stack is None or stack not in layers:
            raise MissingSiteError(
                f"no {self._what} of a stack {stack!r}; this trace has {list(layers)}"
            )
        return stack, resolve_layer(layer, layers[stack], f"{self._what} in stack {stack!r}")


def layer_numbers(sites: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Return the layers of each stack, in order of execution."""
    layers: dict[str, list[int]] = {}
    for stack, layer in sites:
        layers.setdefault(stack, []).append(layer)
    return layers


def resolve_layer(layer: int, layers: Sequence[int], where: str) -> int:
    """Return the number of a layer that may be counted from the end.

    Raises:
        MissingSiteError: There is no such layer.
    """
    if layer in layers:
        return layer
    if -len(layers) <= layer < 0:
        return sorted(layers)[layer]
    raise MissingSiteError(f"no layer {layer} of {where}; there are {list(layers)}")
