"""`FusedEar`: hears every fused attention that torch is asked for while a model runs."""

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.flex_attention import flex_attention
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnscope.attention import SoftmaxAttention
from attnscope.probes.adapters.flex_rules import FlexFunctions, FlexRules
from attnscope.probes.adapters.torch_masks import mask_and_bias
from attnscope.probes.attention_call import AttentionCall, Listener, Riders
from attnscope.probes.errors import CaptureError

__all__ = ["FusedEar"]

_MULTI_HEAD = inspect.signature(functional.multi_head_attention_forward)
_CALL = nn.Module._call_impl.__code__


class FusedEar(TorchFunctionMode):
    """Hears `scaled_dot_product_attention`, `multi_head_attention_forward` and `flex_attention`.

    Which module is computing is read from the call stack at each attention call, so that modules
    need no hooks. A call from outside the model is none of ours and goes on as it is.

    Args:
        paths: The path of each module of the model.
        listener: Takes each call and returns the output that the model goes on with.
        riders: Moments that ride on a module's own fused call.
    """

    def __init__(self, paths: Mapping[nn.Module, str], listener: Listener, riders: Riders) -> None:
        super().__init__()
        self._paths, self._listener, self._riders = paths, listener, riders
        self._fused = functional.scaled_dot_product_attention
        self._masks: dict[tuple[Any, ...], tuple[tuple[Any, ...], FlexRules]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        """Hear a torch function if it is attention."""
        kwargs = kwargs or {}
        if func is self._fused:
            return self._heard(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return self._multi_head(_MULTI_HEAD.bind(*args, **kwargs).arguments)
        if func is flex_attention:
            return self._flexible(*args, **kwargs)
        return func(*args, **kwargs)

    def _multi_head(self, given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the module's output by way of the fused call, and the map if it is asked for."""
        reads_itself = _is_one(given["query"], given["key"])
        wanted = given.get("need_weights", True)
        if wanted:  # the hint replaces the mask only where no weights are wanted
            given = given | {"need_weights": False, "is_causal": False}
        maps: list[Tensor] = []

        def fused(*args: Any, **kwargs: Any) -> Tensor:
            keep = maps.append if wanted else None
            return self._heard(*args, reads_itself=reads_itself, keep=keep, **kwargs)

        # This function of torch is closed to the ear while the ear handles it.
        with _replaced(functional, "scaled_dot_product_attention", fused):
            output, _ = functional.multi_head_attention_forward(**given)
        if not wanted or not maps:
            return output, None
        pattern = maps[0].to(given["query"].dtype)
        pattern = pattern.mean(1) if given.get("average_attn_weights", True) else pattern
        return output, pattern if given["query"].ndim == 3 else pattern[0]

    def _heard(  # noqa: PLR0913 - the kernel's own signature
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        *,
        reads_itself: bool | None = None,
        keep: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        module = self._caller()
        grouped = enable_gqa or query.ndim < 3 or key.shape[-3] in (1, query.shape[-3])
        if module is None or (attn_mask is not None and is_causal) or not grouped:
            options = {"scale": scale, "enable_gqa": enable_gqa}
            return self._fused(query, key, value, attn_mask, dropout_p, is_causal, **options)
        self._require_readable(module, query, dropout_p)
        kind = query.device.type
        query, key, value = (_as_autocast(part, kind) for part in (query, key, value))
        with torch.autocast(kind, enabled=False):
            shape = query.shape[:-1]
            query, key, value = _four_axes(query, key, value)
            mask, bias = mask_and_bias(
                attn_mask, torch.Size((*query.shape[:-1], key.shape[2])), causal=is_causal
            )
            # Lengths that differ speak for themselves, and so does a triangle over one sequence.
            alike = query.shape[2] == key.shape[2] and not mask.is_causal
            crosses = reads_itself is False and alike
            attention = SoftmaxAttention(
                query,
                key,
                scale,
                mask=mask,
                bias=bias,
                key_axis="memory" if crosses else "token",
            )
            output = self._attended(module, attention, value, laid_out=crosses)
            if keep is not None:
                keep(attention.dense(limit=math.prod(attention.shape)))
        return output.reshape(*shape, value.shape[-1])

    def _flexible(  # noqa: PLR0913 - the kernel's own signature
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        score: Callable[..., Tensor],
        block_mask: tuple[Any, ...],
        scale: float,
        options: dict[str, Any],
        *buffers: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return output, log normalizer to the base 2 and nothing for the largest scores."""
        module = self._caller()
        if module is None:
            return flex_attention(query, key, value, score, block_mask, scale, options, *buffers)
        if options.get("OUTPUT_MAX"):
            raise CaptureError(
                f"{self._called(module)} asks flex attention for its largest scores, which a "
                "capture does not compute; ask for the output and its log normalizer alone"
            )
        rules = self._rules(query, key, score, block_mask)
        attention = SoftmaxAttention(
            query,
            key,
            scale * rules.factor,
            mask=rules.mask,
            bias=rules.bias,
            softcap=rules.softcap,
        )
        output = self._attended(module, attention, value)
        return output, attention.log_normalizer() / math.log(2), query.new_empty(0)

    def _rules(
        self, query: Tensor, key: Tensor, score: Callable[..., Tensor], block_mask: tuple[Any, ...]
    ) -> FlexRules:
        """Return the rules of flex attention's functions; of a mask that layers share, once.

        A block mask is made before the layers run, and cannot change; a score function can.
        """
        functions = FlexFunctions.of_call(query, key, score, block_mask)
        if functions.score is not None:
            return functions.rules()
        asked = functions.shape, *map(id, block_mask)
        if asked not in self._masks:  # with the mask itself, so that no other takes its place
            self._masks[asked] = block_mask, functions.rules()
        return self._masks[asked][1]

    def _attended(
        self,
        module: nn.Module,
        attention: SoftmaxAttention,
        value: Tensor,
        *,
        laid_out: bool = False,
    ) -> Tensor:
        """Return the output that the model goes on with."""
        return self._listener(
            AttentionCall(
                module=module,
                attention=attention,
                value=value,
                output=attention.attend(value, self._riders(module)),
                laid_out=laid_out,
                library=type(module).__module__.partition(".")[0],
                computation="fused kernels",
            )
        )

    def _caller(self) -> nn.Module | None:
        """Return the innermost module of the model that is being called."""
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code is _CALL and frame.f_locals["self"] in self._paths:
                return frame.f_locals["self"]
            frame = frame.f_back
        return None

    def _called(self, module: nn.Module) -> str:
        return f"{self._paths[module]} ({type(module).__name__})"

    def _require_readable(self, module: nn.Module, query: Tensor, dropout: float) -> None:
        where = self._called(module)
        if dropout > 0:
            raise CaptureError(
                f"{where} drops {dropout:.0%} of its attention in evaluation mode too: it asks for "
                "dropout whatever its mode; a capture would show what no other run does"
            )
        if query.is_nested:
            raise CaptureError(
                f"{where} reads nested tensors; give it one sequence as a plain tensor"
            )


@contextmanager
def _replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _is_one(query: Tensor, key: Tensor) -> bool:
    """Return whether two tensors are one, or the same view of one memory."""
    places = [(part.data_ptr(), part.shape, part.stride()) for part in (query, key)]
    return places[0] == places[1]


def _as_autocast(part: Tensor, kind: str) -> Tensor:
    """Return a factor in the type that the kernel would get under the autocast at hand."""
    if not torch.is_autocast_enabled(kind) or part.dtype == torch.float64:
        return part
    return part.to(torch.get_autocast_dtype(kind))


def _four_axes(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return factors with the axes batch, head, position and width.

    Axes before the heads are items of a batch; where heads are counted as items, they are heads.
    """
    lead = torch.broadcast_shapes(*(part.shape[:-3] for part in (query, key, value)))
    batch = math.prod(lead)

    def shaped(part: Tensor) -> Tensor:
        part = part.reshape(*[1] * (3 - part.ndim), *part.shape)
        return part.expand(*lead, *part.shape[-3:]).reshape(batch, *part.shape[-3:])

    return shaped(query), shaped(key), shaped(value)
