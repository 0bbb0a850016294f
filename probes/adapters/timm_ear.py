"""`Ear`: hears the attention of timm's modules in the torch functions that they call.

A module that calls the fused kernel is heard by its factors; one that makes its own map is heard
where the map meets the values. Either way the model goes on with what the listener returns.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import EinopsError, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnscope.attention import (
    AttentionOperator,
    DenseAttention,
    DenseBias,
    SoftmaxAttention,
    WindowedAttention,
)
from attnscope.probes.adapters.timm_families import Family
from attnscope.probes.adapters.timm_layouts import Grid, Placement, Scene, on_picture
from attnscope.probes.adapters.timm_outlook import outlook_operator
from attnscope.probes.attention_call import AttentionCall, Listener, Riders
from attnscope.probes.errors import CaptureError

__all__ = ["Ear", "Frame"]

_SLOTS = "batch window head slot dim"
_PRODUCTS = frozenset({"matmul", "__matmul__", "bmm"})
_UNFOLD = inspect.signature(functional.unfold)


@dataclass(slots=True)
class Frame:
    """One module that is computing its attention.

    Attributes:
        path: Path of the module.
        module: The module.
        family: How it is read.
        arguments: What it was called with.
        entered: Shape of the first tensor that entered each module above.
        pattern: The last softmax that was heard, until it meets the values.
        source: Values before they were cut into overlapping windows, and how they were cut.
        calls: How many times its attention was heard.
    """

    path: str
    module: nn.Module
    family: Family
    arguments: tuple[Any, ...]
    entered: Mapping[str, tuple[int, ...]]
    pattern: Tensor | None = None
    source: tuple[Tensor, dict[str, int]] | None = None
    calls: int = 0


class Ear(TorchFunctionMode):
    """Hears what the modules on its stack compute, and hands it to a listener.

    Args:
        modules: All modules of the model, by path.
        listener: Takes each call and returns the output that the model goes on with.
        riders: Moments that ride on a module's own fused call.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], listener: Listener, riders: Riders
    ) -> None:
        super().__init__()
        self._modules, self._listener, self._riders = modules, listener, riders
        self.frames: list[Frame] = []
        self.batch = 1
        self.picture: Grid | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        """Hear a torch function if a module is computing its attention."""
        kwargs = kwargs or {}
        if not self.frames:
            return func(*args, **kwargs)
        frame, name = self.frames[-1], getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            return self._fused(frame, *args, **kwargs)
        result = func(*args, **kwargs)
        if name == "softmax":
            frame.pattern = result
        elif func is functional.unfold:
            frame.source = args[0], _cut(*args, **kwargs)
        elif func is functional.fold and frame.source is not None:
            return self._outlook(frame, frame.source, result)
        elif name in _PRODUCTS and frame.pattern is not None and frame.source is None:
            return self._product(frame, args[0], args[1], result)
        return result

    # --- the three ways in which a map meets the values -------------------------------------

    def _fused(  # noqa: PLR0913 - the kernel's own signature
        self,
        frame: Frame,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        del dropout_p, enable_gqa  # a capture runs in eval mode; operators share keys by themselves
        placed = self._placed(frame, query.shape[-2], key.shape[-2])
        bias = None
        if attn_mask is not None:
            shape = torch.Size((*query.shape[:-1], key.shape[-2]))
            bias = DenseBias(self._local_bias(attn_mask, shape, placed, query.dtype))
        inner = SoftmaxAttention(
            self._local(query, placed),
            self._local(key, placed),
            scale,
            causal=is_causal,
            bias=bias,
            query_axis=placed.query_axis,
            key_axis=placed.key_axis,
        )
        local = self._local(value, placed)
        riders = self._riders(frame.module) if placed.query_table is None else ()
        output = inner.attend(local, riders)
        # Channels are fewer than patches: their map is smaller than its factors, and has no places.
        heard = _map(inner.dense(), placed) if placed.query_axis == "channel" else inner
        return self._heard(frame, placed, heard, local, output)

    def _product(self, frame: Frame, left: Tensor, right: Tensor, result: Tensor) -> Tensor:
        """Hear a product if one side of it is the map: on the left, or transposed on the right."""
        memory = None if frame.pattern is None else frame.pattern.untyped_storage().data_ptr()
        on_right = right.untyped_storage().data_ptr() == memory
        on_left = left.untyped_storage().data_ptr() == memory or frame.family.reworked
        if on_right == on_left:
            return result
        pattern, value = (left, right) if on_left else (right.mT, left.mT)
        output = result if on_left else result.mT
        placed = self._placed(frame, pattern.shape[-2], pattern.shape[-1])
        if frame.family.operator is not None:
            inner = frame.family.operator(frame.module, frame.arguments[0])
        else:
            inner = _map(self._local(pattern, placed, "query key"), placed)
        value, output = self._local(value, placed), self._local(output, placed)
        output = self._heard(frame, placed, inner, value, output)
        return output if on_left else output.mT

    def _outlook(
        self, frame: Frame, source: tuple[Tensor, dict[str, int]], result: Tensor
    ) -> Tensor:
        """Hear overlapping windows once they are added up."""
        value, window = source
        if frame.pattern is None:
            raise CaptureError(_unread(frame, "its windows were folded before any softmax"))
        grid = (value.shape[2], value.shape[3])
        axes = "batch (head dim) row column -> batch head (row column) dim"
        value, output = (
            rearrange(side, axes, head=frame.pattern.shape[1]) for side in (value, result)
        )
        placed = Placement(grid=grid, key_grid=grid)
        operator = outlook_operator(frame.pattern, grid, window)
        output = self._called(frame, placed, operator, value, output)
        back = "batch head (row column) dim -> batch (head dim) row column"
        return rearrange(output, back, row=grid[0])

    # --- from the module's layout to the picture and back -----------------------------------

    def _placed(self, frame: Frame, queries: int, keys: int) -> Placement:
        scene = Scene(
            path=frame.path,
            modules=self._modules,
            entered=frame.entered,
            arguments=frame.arguments,
            picture=self.picture,
            queries=queries,
            keys=keys,
        )
        return frame.family.place(scene)

    def _local(self, tensor: Tensor, placed: Placement, last: str = "slot dim") -> Tensor:
        """Return a tensor with the axes batch, head and its own last two, windows in between."""
        before = placed.axes.replace("slot dim", last)
        after = _SLOTS.replace("slot dim", last)
        sizes = {"batch": self.batch, "window": placed.window_count}
        try:
            local = rearrange(tensor, f"{before} -> {after}", **sizes)
            return local[:, 0] if placed.query_table is None else local
        except EinopsError as error:
            raise CaptureError(
                f"the attention of {self.frames[-1].path} ({type(self.frames[-1].module).__name__})"
                f" mixes tensors of shape {tuple(tensor.shape)}; "
                f"{self.batch} pictures in {placed.window_count} windows were expected"
            ) from error

    def _local_bias(
        self, mask: Tensor, shape: torch.Size, placed: Placement, dtype: torch.dtype
    ) -> Tensor:
        """Return a mask as numbers to add; one that all windows share is kept once."""
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
                ~mask, -torch.inf
            )
        mask = mask.reshape(*[1] * (len(shape) - mask.ndim), *mask.shape)
        if mask.shape[:-3].numel() == 1 and placed.axes.split()[-3] == "head":
            return mask.reshape(mask.shape[-3:])
        return self._local(mask.expand(shape), placed, "query key")

    def _heard(
        self,
        frame: Frame,
        placed: Placement,
        inner: AttentionOperator,
        value: Float[Tensor, "batch *window kv_head key dim"],
        output: Float[Tensor, "batch *window head query value_dim"],
    ) -> Tensor:
        """Hand on what was heard, windows put together, and return the module's own layout."""
        query_table, key_table = placed.query_table, placed.key_table
        if query_table is None or key_table is None:
            site = self._called(frame, placed, inner, value, output)
            return rearrange(site.unsqueeze(1), f"{_SLOTS} -> {placed.axes}")
        query_table, key_table = query_table.to(value.device), key_table.to(value.device)
        _require_empty(frame, value, key_table)
        lengths = int(query_table.max()) + 1, int(key_table.max()) + 1
        attention = WindowedAttention(
            inner,
            query_table,
            key_table,
            *lengths,
            offset=0 if placed.sees_itself and lengths[0] == lengths[1] else None,
            query_axis=placed.query_axis,
            key_axis=placed.key_axis,
        )
        values, outputs = on_picture(value, key_table), on_picture(output, query_table)
        outputs = self._called(frame, placed, attention, values, outputs)
        windows = outputs[:, :, query_table].transpose(1, 2)
        return rearrange(windows, f"{_SLOTS} -> {placed.axes}")

    def _called(
        self,
        frame: Frame,
        placed: Placement,
        attention: AttentionOperator,
        value: Float[Tensor, "batch kv_head key dim"],
        output: Float[Tensor, "batch head query value_dim"],
    ) -> Float[Tensor, "batch head query value_dim"]:
        """Hand a call to the listener; the map is done with."""
        fused, frame.pattern, frame.calls = frame.pattern is None, None, frame.calls + 1
        return self._listener(
            AttentionCall(
                module=frame.module,
                attention=attention,
                value=value,
                output=output,
                laid_out=True,
                grid=placed.grid,
                key_grid=placed.key_grid,
                library="timm",
                computation="fused kernels" if fused else "the model itself",
            )
        )


def _map(pattern: Tensor, placed: Placement) -> DenseAttention:
    """Return the operator of a map that the module made itself."""
    square = pattern.shape[-2] == pattern.shape[-1]
    return DenseAttention(
        pattern,
        offset=0 if placed.sees_itself and square else None,
        query_axis=placed.query_axis,
        key_axis=placed.key_axis,
    )


def _require_empty(frame: Frame, value: Tensor, table: Tensor) -> None:
    """Refuse values in slots where nobody stands: the operator would not read them."""
    if bool(value.detach().transpose(2, 3)[:, table < 0].any()):
        raise CaptureError(_unread(frame, "slots outside the picture hold values"))


def _unread(frame: Frame, why: str) -> str:
    return f"the attention of {frame.path} ({type(frame.module).__name__}) cannot be read: {why}"


def _cut(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return how an `unfold` cuts windows."""
    given = _UNFOLD.bind(*args, **kwargs)
    given.apply_defaults()
    return {name: given.arguments[name] for name in ("kernel_size", "padding", "stride")}
