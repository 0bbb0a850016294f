"""`weight_sensitivity`: whether an explanation changes when the model's weights are destroyed."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnscope.probes.errors import CaptureError

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["cascaded_layers", "weight_sensitivity"]


def weight_sensitivity(
    model: nn.Module,
    explain: Callable[[], Float[Tensor, " token"]],
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
) -> "DataFrame":
    """Return how alike an explanation stays while layers lose their weights, the last ones first.

    The layers are destroyed one after the other and stay so, from the output to the input: each
    parameter's entries are shuffled, which keeps their distribution. After each layer the credit
    is taken anew and its ranks are correlated with those before. An explanation of what the model
    learned falls towards 0; one that stays near 1 shows the input and not the model. The model has
    its own weights again afterwards, bit by bit.

    Args:
        model: The model.
        explain: The credit of each token by the model as it is now; its target has to be fixed.
        layers: Names of modules in the order in which they are destroyed; by default the layers of
            the model's longest stack, last first.
        seed: Seed of the shuffling.

    Returns:
        One row per layer: `layer`, `correlation` (of ranks), `absolute` (of the ranks of sizes).

    Raises:
        CaptureError: A layer does not exist, or there is none.

    Reference: Adebayo et al. 2018, arXiv:1810.03292, section 3.1 (cascading randomization); the
        paper draws weights anew, shuffling them is our reading.

    Example:
        >>> model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2)])})
        >>> blind = weight_sensitivity(model, lambda: torch.arange(3.0))
        >>> blind.layer.tolist(), round(float(blind.correlation[0]), 6)
        (['layers.0'], 1.0)
    """
    import pandas

    names = cascaded_layers(model) if layers is None else list(layers)
    modules = dict(model.named_modules())
    unknown = [name for name in names if name not in modules]
    if unknown or not names:
        raise CaptureError(f"no layer {unknown or 'to destroy'} in {type(model).__name__}")
    generator = torch.Generator().manual_seed(seed)
    rows = []
    with _restored([modules[name] for name in names]):
        before = explain()
        for name in names:
            _shuffle(modules[name], generator)
            after = explain()
            rows.append(
                {
                    "layer": name,
                    "correlation": _rank_correlation(before, after),
                    "absolute": _rank_correlation(before.abs(), after.abs()),
                }
            )
    return pandas.DataFrame(rows)


def cascaded_layers(model: nn.Module) -> list[str]:
    """Return the names of the layers of a model's longest stack, the last one first.

    Example:
        >>> stack = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
        >>> cascaded_layers(nn.ModuleDict({"layers": stack}))
        ['layers.1', 'layers.0']
    """
    stacks: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        found = re.fullmatch(r"(.*?)\.?(\d+)", name)
        if found and any(True for _ in module.parameters()):
            stacks.setdefault(found[1], []).append(name)
    if not stacks:
        raise CaptureError(f"{type(model).__name__} has no numbered layers; name them in layers=")
    return max(stacks.values(), key=len)[::-1]


@contextmanager
def _restored(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Give the parameters of modules their values back at the end."""
    parameters = {id(p): p for module in modules for p in module.parameters()}
    saved = {key: parameter.detach().clone() for key, parameter in parameters.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for key, parameter in parameters.items():
                parameter.copy_(saved[key])


def _shuffle(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            flat = parameter.reshape(-1)[order.to(parameter.device)]
            parameter.copy_(flat.reshape(parameter.shape))


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    import pandas

    pair = {
        "one": one.detach().float().cpu().numpy(),
        "other": other.detach().float().cpu().numpy(),
    }
    return float(pandas.DataFrame(pair).dropna().rank().corr().loc["one", "other"])
