"""The attention modules of timm that are understood, each with where its tokens stand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attnscope.probes.adapters import timm_places as places
from attnscope.probes.adapters.timm_gating import gated_operator
from attnscope.probes.adapters.timm_layouts import Placement, Scene

__all__ = ["FAMILIES", "UNREAD", "Family", "classes_in_timm", "family_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How the attention of one class of modules is read.

    Attributes:
        place: Where the tokens stand.
        fused: Whether the module shall call the fused kernel, where it can.
        reworked: Whether weights are mixed further between the softmax and the values.
        operator: Builds the operator from the module and its input, where the module's own map is
            made of parts worth telling apart.
    """

    place: Callable[[Scene], Placement]
    fused: bool = True
    reworked: bool = False
    operator: Callable[[Any, Tensor], Any] | None = None


def family_of(module: nn.Module) -> Family | None:
    """Return the family of a module of timm, or of a subclass of one; None for all others."""
    return next((FAMILIES[name] for name in classes_in_timm(module) if name in FAMILIES), None)


def classes_in_timm(module: nn.Module) -> list[str]:
    """Return the classes of timm that a module is of, as file and class."""
    kinds = [kind for kind in type(module).__mro__ if kind.__module__.startswith("timm.")]
    return [f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}" for kind in kinds]


_TOKENS = Family(place=places.tokens)
_CHANNELS = Family(place=places.channels)
_SHIFTED = Family(place=places.shifted_windows)
_REWORKED = Family(place=places.tokens, reworked=True)

FAMILIES: dict[str, Family] = {
    "attention.Attention": Family(place=places.spread_pixels),
    "attention.AttentionRope": _TOKENS,
    "attention2d.Attention2d": _TOKENS,
    "attention2d.MultiQueryAttention2d": _TOKENS,
    "attention_pool.AttentionPoolLatent": Family(place=places.probes),
    "attention_pool2d.AttentionPool2d": _TOKENS,
    "attention_pool2d.RotAttentionPool2d": _TOKENS,
    "beit.Attention": _TOKENS,
    "bottleneck_attn.BottleneckAttn": Family(place=places.heads_in_batch),
    "cait.ClassAttn": _TOKENS,
    "cait.TalkingHeadAttn": _REWORKED,
    "convit.GPSA": Family(place=places.tokens, reworked=True, operator=gated_operator),
    "convit.MHSA": _TOKENS,
    "cpubone.ConvAttention": _TOKENS,
    "crossvit.CrossAttention": _TOKENS,
    "davit.ChannelAttention": _CHANNELS,
    "davit.ChannelAttentionV2": _CHANNELS,
    "davit.WindowAttention": Family(place=places.windows_of_channels_first),
    # Its fused form subtracts two outputs; only the plain form has the one map that it applies.
    "diff_attention.DiffAttention": Family(place=places.tokens, fused=False, reworked=True),
    "edgenext.CrossCovarianceAttn": _CHANNELS,
    "efficientformer.Attention": _TOKENS,
    "efficientformer_v2.Attention2d": _REWORKED,
    "efficientformer_v2.Attention2dDownsample": _TOKENS,
    "eva.EvaAttention": _TOKENS,
    "fastvit.Attention": _TOKENS,
    "gemma4_vit.Gemma4Attention": _TOKENS,
    "gcvit.WindowAttentionGlobal": Family(place=places.plain_windows),
    "halo_attn.HaloAttn": Family(place=places.halos),
    "hiera.MaskUnitAttention": Family(place=places.mask_units),
    "hieradet_sam2.MultiScaleAttention": Family(place=places.pooled_windows),
    "iformer.SHMA": Family(place=places.windows_of_own),
    "levit.Attention": _TOKENS,
    "levit.AttentionDownsample": _TOKENS,
    "lowformer.ConvAttention": _TOKENS,
    "maxxvit.Attention2d": Family(place=places.partitions_of_channels_first),
    "maxxvit.AttentionCl": Family(place=places.partitions),
    "metaformer.Attention": _TOKENS,
    "mvitv2.MultiScaleAttention": _TOKENS,
    "nest.Attention": Family(place=places.blocks_of_nest),
    "nextvit.EfficientAttention": Family(place=places.runs),
    "pvt_v2.Attention": Family(place=places.reduced),
    "shvit.SHSA": Family(place=places.heads_in_batch),
    "swin_transformer.WindowAttention": _SHIFTED,
    "swin_transformer_v2.WindowAttention": _SHIFTED,
    "swin_transformer_v2_cr.WindowMultiHeadAttention": _SHIFTED,
    "tnt.Attention": Family(place=places.inner_pixels),
    "tiny_vit.Attention": Family(place=places.plain_windows),
    "twins.GlobalSubSampleAttn": _TOKENS,
    "twins.LocallyGroupedAttn": Family(place=places.local_groups),
    "vision_transformer.ParallelScalingBlock": _TOKENS,
    "vision_transformer.DiffParallelScalingBlock": Family(
        place=places.tokens, fused=False, reworked=True
    ),
    "vision_transformer_relpos.RelPosAttention": _TOKENS,
    "vision_transformer_sam.Attention": Family(place=places.windows_with_heads),
    "visformer.Attention": _TOKENS,
    "volo.Attention": Family(place=places.own_grid),
    "volo.ClassAttention": _TOKENS,
    "volo.OutlookAttention": _TOKENS,
    "xcit.XCA": _CHANNELS,
}
"""Families by file and class; a class that is missing is not captured, and said to be so."""

UNREAD: dict[str, str] = {
    "coat.FactorAttnConvRelPosEnc": "a factorized form that compares no query with a key",
    "efficientvit_mit.LiteMLA": "a linear form between convolutions, without a softmax",
    "efficientvit_msra.CascadedGroupAttention": "a cascade in which heads read what others wrote",
    "lambda_layer.LambdaLayer": "a linear function per query, without weights of keys",
    "mobilevit.LinearSelfAttention": "one context vector for all queries",
    "swiftformer.EfficientAdditiveAttention": "one global query, added instead of compared",
}
"""Modules that mix tokens and that no map of tokens describes, each with what it is."""
