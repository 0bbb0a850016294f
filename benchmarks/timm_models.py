"""Vision transformers of timm, built small from their own constructors, and pictures for them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TIMM_FAMILIES", "TimmFamily", "small"]


@dataclass(frozen=True, slots=True)
class TimmFamily:
    """How to build a small model of one family, and the side of the picture that it takes."""

    build: Callable[[], nn.Module]
    side: int = 64


def small(name: str) -> tuple[nn.Module, Tensor]:
    """Return a small random model of a family, and a picture.

    Parameters that start at zero, biases of positions above all, are drawn at random: a map that
    left them out would otherwise go unnoticed.
    """
    torch.manual_seed(0)
    family = TIMM_FAMILIES[name]
    model = family.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3)
    return model, torch.randn(1, 3, family.side, family.side)


def _named(name: str, side: int = 64, **options: Any) -> TimmFamily:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=5, **options)

    return TimmFamily(build, side)


def _plain(name: str, side: int = 64, **options: Any) -> TimmFamily:
    return _named(name, side, img_size=side, embed_dim=32, depth=2, num_heads=2, **options)


def _swin(name: str, side: int = 32, **options: Any) -> TimmFamily:
    sizes = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
    return _named(name, side, img_size=side, **(sizes | options))


def _levit(name: str) -> TimmFamily:
    sizes = {"embed_dim": (16, 24, 32), "key_dim": 8, "num_heads": (2, 3, 4), "depth": (1, 1, 1)}
    return _named(name, img_size=64, **sizes)


def _halonet() -> nn.Module:
    from timm.models.byoanet import model_cfgs
    from timm.models.byobnet import ByobNet

    blocks = tuple(replace(block, d=2, c=32) for block in model_cfgs["halonet_h1"].blocks)
    sizes = {"block_size": 2, "halo_size": 1, "num_heads": 4}
    config = replace(model_cfgs["halonet_h1"], blocks=blocks, self_attn_kwargs=sizes)
    return ByobNet(config, num_classes=5)


def _mvit() -> nn.Module:
    from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg

    sizes = {"depths": (1, 2), "embed_dim": (16, 32), "num_heads": (1, 2), "use_cls_token": True}
    return MultiScaleVit(MultiScaleVitCfg(**sizes), img_size=64, num_classes=5)


def _volo() -> nn.Module:
    from timm.models.volo import VOLO

    sizes = {"embed_dims": (24, 32, 32, 32), "num_heads": (2, 4, 4, 4), "mlp_ratio": 3.0}
    return VOLO((2, 1, 1, 1), img_size=64, num_classes=5, **sizes)


def _gcvit() -> nn.Module:
    from timm.models.gcvit import GlobalContextVit

    sizes = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}
    return GlobalContextVit(img_size=64, num_classes=5, window_size=2, **sizes)


def _nest() -> nn.Module:
    from timm.models.nest import Nest

    sizes = {"embed_dims": (16, 32, 32), "num_heads": (2, 2, 4), "depths": (1, 1, 2)}
    return Nest(img_size=64, num_classes=5, **sizes)


def _caformer() -> nn.Module:
    from timm.models import metaformer as parts

    mixers = [parts.SepConv, parts.SepConv, parts.Attention, parts.Attention]
    norms = [parts.LayerNorm2dNoBias] * 2 + [parts.LayerNormNoBias] * 2
    sizes = {"depths": (1, 1, 1, 1), "dims": (16, 16, 32, 32)}
    return parts.MetaFormer(num_classes=5, token_mixers=mixers, norm_layers=norms, **sizes)


TIMM_FAMILIES: dict[str, TimmFamily] = {
    "ViT": _plain("vit_tiny_patch16_224"),
    "DeiT, distilled": _plain("deit_tiny_distilled_patch16_224"),
    "DINOv2 with registers": _plain("vit_small_patch14_reg4_dinov2", 56),
    "SigLIP (pooled by attention)": _plain("vit_base_patch16_siglip_224"),
    "ViT, differential": _plain("vit_dwee_patch16_reg1_gap_256"),
    "ViT, differential and parallel": _plain("vit_dpwee_patch16_reg1_gap_256"),
    "ViT, relative positions": _plain("vit_relpos_small_patch16_224"),
    "EVA-02": _plain("eva02_tiny_patch14_224", 56),
    "BEiT": _plain("beit_base_patch16_224"),
    "CaiT": _plain("cait_xxs24_224"),
    "XCiT": _plain("xcit_nano_12_p16_224"),
    "ConViT": _named(
        "convit_tiny", img_size=64, embed_dim=8, num_heads=4, depth=3, local_up_to_layer=2
    ),
    "CrossViT": _named(
        "crossvit_tiny_240",
        240,
        embed_dim=(16, 32),
        depth=((1, 2, 0),),
        num_heads=(2, 2),
        mlp_ratio=(4, 4, 1),
    ),
    "TNT": _named(
        "tnt_s_legacy_patch16_224",
        img_size=64,
        embed_dim=24,
        inner_dim=8,
        num_heads_inner=2,
        num_heads_outer=2,
        depth=2,
    ),
    "SAM": _named(
        "samvit_base_patch16_224",
        96,
        img_size=96,
        depth=3,
        window_size=4,
        embed_dim=32,
        num_heads=2,
        global_attn_indexes=(2,),
    ),
    "Swin": _swin("swin_tiny_patch4_window7_224"),
    "Swin, padded": _swin("swin_tiny_patch4_window7_224", 56, always_partition=True),
    "Swin V2": _swin("swinv2_tiny_window8_256"),
    "Swin V2 (CR)": _swin("swinv2_cr_tiny_224"),
    "DaViT": _named("davit_tiny", embed_dims=(16, 32), depths=(1, 2), num_heads=(2, 4)),
    "MaxViT": _named("test_maxvit", 160),
    "CoAtNet": _named("test_coatnet", 160),
    "HaloNet": TimmFamily(_halonet),
    "BoTNet": _named("botnet26t_256", img_size=64),
    "Hiera": _named("hiera_tiny_224", img_size=64, embed_dim=16, stages=(1, 2, 2, 1)),
    "Hiera of SAM 2": _named(
        "sam2_hiera_tiny", embed_dim=16, stages=(1, 2, 3, 1), global_att_blocks=(4,)
    ),
    "MViT V2": TimmFamily(_mvit),
    "GC ViT": TimmFamily(_gcvit),
    "NesT": TimmFamily(_nest),
    "VOLO": TimmFamily(_volo),
    "TinyViT": _named(
        "tiny_vit_5m_224",
        embed_dims=(16, 32, 32, 32),
        num_heads=(2, 2, 2, 2),
        depths=(1, 1, 2, 1),
        window_sizes=(4, 4, 3, 4),
    ),
    "Twins": _named(
        "twins_svt_small",
        embed_dims=(16, 32, 32, 32),
        num_heads=(2, 2, 4, 4),
        depths=(2, 2, 2, 2),
    ),
    "PVT v2": _named(
        "pvt_v2_b0", embed_dims=(16, 16, 32, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4)
    ),
    "PVT v2, linear": _named(
        "pvt_v2_b2_li", embed_dims=(16, 16, 32, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4)
    ),
    "LeViT": _levit("levit_128s"),
    "LeViT, convolutional": _levit("levit_conv_128s"),
    "EfficientFormer": _named("efficientformer_l1", 224),
    "EfficientFormer V2": _named("efficientformerv2_s0", img_size=64),
    "FastViT": _named("fastvit_sa12", layers=(1, 1, 1, 2), embed_dims=(16, 16, 16, 32)),
    "NextViT": _named("nextvit_small", depths=(1, 1, 5, 1)),
    "CAFormer": TimmFamily(_caformer),
    "Visformer": _named("visformer_tiny", img_size=64),
    "MobileViT": _named("mobilevit_xxs", 96),
    "MobileNetV4, hybrid": _named("mobilenetv4_hybrid_medium"),
    "EdgeNeXt": _named("edgenext_xx_small"),
    "SHViT": _named("shvit_s1"),
    "iFormer": _named("iformer_t"),
    "LowFormer": _named("lowformer_b0"),
    "CLIP ResNet (pooled by attention)": _named("resnet50_clip", img_size=64),
    "CoaT": _named("coat_tiny", img_size=64),
    "EfficientViT (MIT)": _named("efficientvit_b0"),
    "EfficientViT (MSRA)": _named("efficientvit_m0", 224),
    "MobileViT V2": _named("mobilevitv2_050"),
    "SwiftFormer": _named("swiftformer_xs"),
    "LambdaNet": _named("lambda_resnet26t", img_size=64),
    "PoolFormer": _named("poolformer_s12"),
}
