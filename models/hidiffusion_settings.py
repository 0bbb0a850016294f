"""What HiDiffusion changes in which network, and in which steps: the published settings.

Reference: Zhang et al. 2023, arXiv:2311.17528; modules and thresholds are those of the released
code, which names them T1 and T2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SETTINGS", "HiDiffusionSettings", "PooledResize", "StridedResize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StridedResize:
    """A down-sampling convolution that halves once more.

    Attributes:
        down: Path of the down-sampler's convolution.
        up: Path of the convolution of the up-sampler that undoes it.
        start: Share of the steps after which it begins.
        stop: Share of the steps after which it ends.
    """

    down: str
    up: str
    start: float = 0.0
    stop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledResize:
    """A mean over 2 x 2 positions inside of a down block, undone inside of an up block.

    Attributes:
        down: Path of the down block.
        up: Path of the up block.
        start: Share of the steps after which it begins.
        stop: Share of the steps after which it ends.
    """

    down: str
    up: str
    start: float = 0.0
    stop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HiDiffusionSettings:
    """What is changed in a network.

    Attributes:
        transformers: Paths of the transformers whose blocks attend in shifted windows.
        blocks: How many blocks of each, the first ones; None for all.
        resizes: What is resized, and when.
    """

    transformers: tuple[str, ...] = ()
    blocks: int | None = None
    resizes: tuple[StridedResize | PooledResize, ...] = ()


def _sd(first: float, second: float) -> HiDiffusionSettings:
    return HiDiffusionSettings(
        transformers=_transformers(down=0, up=3),
        resizes=(
            StridedResize(
                down="down_blocks.0.downsamplers.0.conv",
                up="up_blocks.2.upsamplers.0.conv",
                stop=first,
            ),
            PooledResize(down="down_blocks.1", up="up_blocks.2", stop=second),
        ),
    )


def _sdxl(pooled: tuple[float, float], strided: float) -> HiDiffusionSettings:
    return HiDiffusionSettings(
        transformers=_transformers(down=1, up=1),
        blocks=2,
        resizes=(
            PooledResize(down="down_blocks.1", up="up_blocks.1", start=pooled[0], stop=pooled[1]),
            StridedResize(
                down="down_blocks.1.downsamplers.0.conv",
                up="up_blocks.0.upsamplers.0.conv",
                stop=strided,
            ),
        ),
    )


def _transformers(*, down: int, up: int) -> tuple[str, ...]:
    downward = (f"down_blocks.{down}.attentions.{place}" for place in range(2))
    return (*downward, *(f"up_blocks.{up}.attentions.{place}" for place in range(3)))


SETTINGS: Mapping[tuple[str, int], HiDiffusionSettings] = {
    ("sd1.5", 1024): _sd(0.4, 0.0),
    ("sd1.5", 2048): _sd(0.7, 0.3),
    ("sd2.1", 1024): _sd(0.4, 0.0),
    ("sd2.1", 2048): _sd(0.7, 0.3),
    ("sdxl", 2048): _sdxl((8 / 50, 0.4), 8 / 50),
    ("sdxl", 4096): _sdxl((0.0, 0.7), 0.3),
    ("sdxl-turbo", 1024): _sdxl((0.0, 0.5), 0.0),
}
"""The published settings, by model and side of the image in pixels.

At 2048 pixels SDXL takes the strided form for 8 of 50 steps, then the pooled one: the release's
"aggressive" default.
"""
