"""`own_attention`: rows of the maps that a model computes itself, slowly, without our seam.

Whatever way a module has of its own is taken: the eager function of a model of transformers, the
weights that torch's multi-head attention returns, the map that a module of timm drops out from;
for modules that only know the fused kernel, and for those that apply operators of ours, the plain
formula over the factors that they hand over.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnscope.attention import AttentionOperator, Mixing, SoftmaxAttention
from attnscope.probes.adapters.transformers_attention import implementations
from attnscope.probes.slow_softmax import slow_rows

__all__ = ["OwnRows", "OwnRowsByModule", "own_attention", "returned_attention"]

_EAGER = "eager_attention_forward"

Choice = Callable[[int], Int[Tensor, " row"]]
"""Which rows of a map of some number of queries are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnRows:
    """Rows of one map that a module computed itself.

    Attributes:
        pattern: The rows.
        output: The heads' outputs of these rows, before W_O; None where the module does not show
            them.
        way: How they were computed.
    """

    pattern: Float[Tensor, "head row key"]
    output: Float[Tensor, "head row dim"] | None
    way: str


@dataclass(slots=True)
class OwnRowsByModule:
    """What was seen, by module, one entry per item of each call, in the order of the calls."""

    choose: Choice
    seen: dict[nn.Module, list[OwnRows]] = field(default_factory=lambda: defaultdict(list))
    empty: set[nn.Module] = field(default_factory=set)

    def note(self, module: nn.Module, pattern: Any, output: Any, way: str) -> None:
        """Keep the chosen rows of a map `(batch, head, query, key)`; the rest is let go."""
        if not isinstance(pattern, Tensor) or pattern.ndim != 4:
            self.empty.add(module)
            return
        rows = self.choose(pattern.shape[-2]).to(pattern.device)
        chosen = pattern.detach().index_select(-2, rows).cpu()
        read = None if output is None else output.detach().index_select(-2, rows).cpu()
        self.keep(module, chosen, read, way)

    def keep(self, module: nn.Module, chosen: Tensor, read: Tensor | None, way: str) -> None:
        """Keep rows that were chosen already, item by item."""
        for item in range(chosen.shape[0]):
            z = None if read is None else read[item]
            self.seen[module].append(OwnRows(pattern=chosen[item], output=z, way=way))


@contextmanager
def own_attention(model: nn.Module, choose: Choice) -> Iterator[OwnRowsByModule]:
    """Note the rows that the modules of a model compute by their own slow ways.

    The model is put back as it was on every exit.
    """
    found = OwnRowsByModule(choose)
    with ExitStack() as stack:
        for listening in (_eager_functions, _multi_head, _dropped_maps, _operators, _fused):
            stack.enter_context(listening(model, found))
        yield found


@contextmanager
def returned_attention(model: nn.Module, choose: Choice) -> Iterator[OwnRowsByModule]:
    """Note the rows of the weights that modules of transformers return when they are asked to.

    For families whose attention goes through no function of the library.
    """
    found = OwnRowsByModule(choose)

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple | list) else ()
        maps = [part for part in parts if isinstance(part, Tensor) and part.ndim == 4]
        # Where a module hands its bias on, too, the weights stand behind it.
        found.note(module, maps[-1] if maps else None, None, "the weights that the module returns")

    with ExitStack() as stack:
        for config in _eager_configs(stack, model):
            before = config.output_attentions
            config.output_attentions = True
            stack.callback(setattr, config, "output_attentions", before)
        for module in model.modules():
            if "attention" in type(module).__name__.lower():
                stack.callback(module.register_forward_hook(hook).remove)
        yield found


def _eager_configs(stack: ExitStack, model: nn.Module) -> list[Any]:
    """Return the configurations inside a model, told to compute eagerly until the stack closes."""
    given = implementations(model)
    for config, implementation in given:
        stack.callback(setattr, config, "_attn_implementation_internal", implementation)
        config._attn_implementation_internal = "eager"
    return [config for config, _ in given]


@contextmanager
def _eager_functions(model: nn.Module, found: OwnRowsByModule) -> Iterator[None]:
    """Hear the eager functions of transformers, which the modules' own source files hold."""

    def keeping(eager: Callable[..., Any]) -> Callable[..., Any]:
        def function(module: nn.Module, *args: Any, **options: Any) -> Any:
            output, pattern = eager(module, *args, **options)
            read = output.transpose(1, 2) if isinstance(output, Tensor) else None
            found.note(module, pattern, read, "the model's eager function")
            return output, pattern

        return function

    sources = {sys.modules.get(type(module).__module__) for module in model.modules()}
    with ExitStack() as stack:
        _eager_configs(stack, model)
        for source in sources:
            eager = getattr(source, _EAGER, None)
            if eager is not None:
                stack.enter_context(patch.object(source, _EAGER, keeping(eager)))
        yield


@contextmanager
def _multi_head(model: nn.Module, found: OwnRowsByModule) -> Iterator[None]:
    """Ask torch's multi-head attention for its weights beside each of its calls."""

    def asking(module: nn.Module, args: Any, options: Any) -> None:
        asked = options | {"need_weights": True, "average_attn_weights": False}
        given = [one[None] if isinstance(one, Tensor) and one.ndim == 2 else one for one in args]
        plain: Any = nn.MultiheadAttention.forward
        found.note(module, plain(module, *given, **asked)[1], None, "weights that torch returns")

    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention):
                handle = module.register_forward_pre_hook(asking, with_kwargs=True)
                stack.callback(handle.remove)
        yield


@contextmanager
def _dropped_maps(model: nn.Module, found: OwnRowsByModule) -> Iterator[None]:
    """Hear the map on its way into the dropout of modules that can do without the fused kernel."""
    with ExitStack() as stack:
        for module in model.modules():
            drop = getattr(module, "attn_drop", None)
            if isinstance(drop, nn.Module) and getattr(module, "fused_attn", None) is not None:
                stack.callback(setattr, module, "fused_attn", module.fused_attn)
                module.fused_attn = False  # pyright: ignore[reportArgumentType]
                stack.callback(drop.register_forward_pre_hook(_dropping(module, found)).remove)
        yield


def _dropping(module: nn.Module, found: OwnRowsByModule) -> Callable[[nn.Module, Any], None]:
    def hook(drop: nn.Module, args: Any) -> None:
        found.note(module, args[0], None, "the module's own softmax")

    return hook


@contextmanager
def _operators(model: nn.Module, found: OwnRowsByModule) -> Iterator[None]:
    """Hear the operators that modules of ours apply, and compute their rows by the formula."""

    def hook(module: nn.Module, args: Any, options: Any, output: Tensor) -> None:
        attention = options.get("attention", args[0] if args else None)
        rows = found.choose(attention.queries).to(output.device)
        pattern, way = _formula(attention, rows)
        found.keep(module, pattern.cpu(), output.detach().index_select(-2, rows).cpu(), way)

    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, Mixing):
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _formula(attention: AttentionOperator, rows: Tensor) -> tuple[Tensor, str]:
    if not isinstance(attention, SoftmaxAttention):
        return attention.rows(rows).detach(), f"the module's {type(attention).__name__}, by rows"
    keys = torch.arange(attention.keys, device=attention.device)
    hidden = ~attention.mask.tile(rows, keys)
    bias = None if attention.bias is None else attention.bias.at(rows[:, None], keys[None, :])
    pattern = slow_rows(
        attention.query.detach(),
        attention.key.detach(),
        rows,
        scale=attention.scale,
        hidden=hidden.reshape(-1, 1, *hidden.shape[-2:]),
        added=None if bias is None else bias.reshape(-1, *bias.shape[-3:]).detach(),
        softcap=attention.softcap,
        sinks=None if attention.sinks is None else attention.sinks.detach(),
    )
    return pattern, "the plain formula over the module's factors"


@contextmanager
def _fused(model: nn.Module, found: OwnRowsByModule) -> Iterator[None]:
    """Hear fused calls, and compute their rows by the formula."""
    callers: list[nn.Module] = []
    with ExitStack() as stack:
        for module in model.modules():
            enter = module.register_forward_pre_hook(lambda one, args: callers.append(one))
            leave = module.register_forward_hook(_leaving(callers), always_call=True)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(_FusedCalls(callers, found))
        yield


def _leaving(callers: list[nn.Module]) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if callers and callers[-1] is module:  # not where an earlier hook failed
            callers.pop()

    return hook


class _FusedCalls(TorchFunctionMode):
    def __init__(self, callers: list[nn.Module], found: OwnRowsByModule) -> None:
        super().__init__()
        self._callers, self._found = callers, found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        fused = func is functional.scaled_dot_product_attention
        caller = self._callers[-1] if self._callers else None
        if fused and caller is not None and args[0].ndim >= 3:
            self._note(caller, result, *args, **(kwargs or {}))
        return result

    def _note(  # noqa: PLR0913 - the kernel's own signature
        self,
        caller: nn.Module,
        result: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        del value, dropout_p, enable_gqa
        query, key, result = (one.reshape(-1, *one.shape[-3:]) for one in (query, key, result))
        queries, keys = query.shape[-2], key.shape[-2]
        rows = self._found.choose(queries).to(query.device)
        hidden, added = None, None
        if is_causal:
            hidden = torch.arange(keys, device=query.device) > rows[:, None]
            hidden = hidden[None, None]
        elif attn_mask is not None:
            mask = attn_mask.reshape(*[1] * max(0, 4 - attn_mask.ndim), *attn_mask.shape)
            mask = mask.reshape(-1, *mask.shape[-3:]).expand(-1, -1, queries, keys)[:, :, rows]
            hidden, added = (~mask, None) if mask.dtype == torch.bool else (None, mask)
        pattern = slow_rows(
            query.detach(),
            key.detach(),
            rows,
            scale=query.shape[-1] ** -0.5 if scale is None else scale,
            hidden=hidden,
            added=added,
        )
        read = result.detach().index_select(-2, rows).cpu()
        self._found.keep(caller, pattern.cpu(), read, "the plain formula over the module's factors")
