"""Models with state-space layers (Mamba, Mamba-2, gated delta rule), alone or beside softmax."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from attnscope.probes.adapters.state_space_ear import ScanEar, Seam, scan_of
from attnscope.probes.attention_call import Listener, Riders
from attnscope.probes.module_paths import module_paths

__all__ = ["listening", "names"]


@contextmanager
def listening(model: nn.Module, listener: Listener, riders: Riders) -> Iterator[None]:
    """Hear every recurrence of a model's state-space layers while the context is open.

    A layer's function runs as it would, with the same result; the operator is built from what it
    was given.

    Raises:
        CaptureError: A layer runs its recurrence where it cannot be heard, or over packed sequences
            or from the state of earlier tokens.
    """
    seams = _seams(model)
    if not seams:
        yield
        return
    with ScanEar(seams, listener).open():
        yield


def names(model: nn.Module) -> dict[nn.Module, tuple[str, int]]:
    """Return stack and layer of the state-space layers: one stack, under the layers' true numbers.

    Their heads are not those of a softmax, so that the layers of a hybrid model are two stacks on
    one axis of layers. Where both kinds bear one name (`mixer`), the stack's tells them apart.
    """
    paths = module_paths(model)
    places = {module: _place(paths[module]) for module in _seams(model)}
    softmax = [
        _place(path)
        for module, path in paths.items()
        if places and module not in places and "attention" in type(module).__name__.lower()
    ]
    taken = {place[0] for place in softmax if place is not None}
    return {
        module: (f"{place[0]}.scan" if place[0] in taken else place[0], place[1])
        for module, place in places.items()
        if place is not None
    }


def _place(path: str) -> tuple[str, int] | None:
    """Return the row of layers with a module's own name, and the layer; None outside of a row.

    Example:
        >>> _place("model.layers.3.mamba"), _place("model.layers.5.decoder.mamba")
        (('model.layers.mamba', 3), ('model.layers.mamba', 5))
    """
    parts = path.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    if not numbers:
        return None
    row, name = parts[: numbers[0]], parts[numbers[0] + 1 :][-1:]
    return ".".join([*row, *name]), int(parts[numbers[0]])


def _seams(model: nn.Module) -> dict[nn.Module, Seam]:
    kinds = {kind: scan_of(kind) for kind in {type(module) for module in model.modules()}}
    found = ((module, kinds[type(module)]) for module in model.modules())
    return {module: seam for module, seam in found if seam is not None}
