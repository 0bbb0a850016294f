"""`picture_overlay`: one number per patch, on the picture that the patches are cut from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from attnscope.figures.canvas import (
    color_legend,
    matplotlib_canvas,
    plotly_canvas,
    plotly_color_legend,
    style_axes,
)
from attnscope.figures.display import screened_bundle
from attnscope.figures.errors import FigureError
from attnscope.figures.scale import Bounds, Scale, linear_scale
from attnscope.figures.token_text import escaped

if TYPE_CHECKING:
    import matplotlib.figure
    import PIL.Image
    import plotly.graph_objects

__all__ = ["PictureOverlay", "picture_overlay"]

_COVER = 0.6
"""How much the patches cover the picture, which is gray so that colors mean numbers alone."""

_SMALL = 160
"""Pixels below which a picture is enlarged without smoothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureOverlay:
    """A number per patch, the picture below, and all that is written around them.

    Attributes:
        values: One number per patch; NaN where there is none.
        picture: What was seen, a PIL picture; None for the patches alone.
        scale: The colors.
        title: What is shown.
        caption: Where the numbers come from.
    """

    values: Float[Tensor, "row column"]
    picture: "PIL.Image.Image | None"
    scale: Scale
    title: str
    caption: str

    def plotly(self) -> "plotly.graph_objects.Figure":
        """Return the patches for a screen: every one tells its place and its value."""
        rows, columns = self.values.shape
        figure = plotly_canvas(escaped(self.title), escaped(self.caption), height=420)
        figure.add_heatmap(
            z=self.values.numpy(),
            hovertemplate="row %{y}, column %{x}<br>%{z:.4~g}<extra></extra>",
            coloraxis="coloraxis",
            opacity=1.0 if self.picture is None else _COVER,
        )
        if self.picture is not None:
            figure.add_layout_image(
                source=_enlarged(self.picture),
                xref="x",
                yref="y",
                x=-0.5,
                y=-0.5,
                sizex=columns,
                sizey=rows,
                sizing="stretch",
                layer="below",
            )
        figure.update_layout(
            margin={"l": 8, "r": 8, "t": 64, "b": 8},
            coloraxis=plotly_color_legend(self.scale),
            xaxis={
                "showgrid": False,
                "constrain": "domain",
                "range": [-0.5, columns - 0.5],
                "visible": False,
            },
            yaxis={
                "showgrid": False,
                "constrain": "domain",
                "scaleanchor": "x",
                "range": [rows - 0.5, -0.5],
                "visible": False,
            },
        )
        return figure

    def matplotlib(self) -> "matplotlib.figure.Figure":
        """Return the patches for paper, with the same picture, colors and texts."""
        rows, columns = self.values.shape
        figure = matplotlib_canvas(6.4, min(8.0, max(2.6, 5.0 * rows / columns + 0.8)))
        axes = figure.add_subplot()
        place = (-0.5, columns - 0.5, rows - 0.5, -0.5)
        if self.picture is not None:
            axes.imshow(self.picture.convert("L"), cmap="gray", vmin=0, vmax=255, extent=place)
        image = axes.imshow(
            self.values.numpy(),
            cmap=self.scale.colors.matplotlib(),
            vmin=self.scale.low,
            vmax=self.scale.high,
            extent=place,
            alpha=1.0 if self.picture is None else _COVER,
            interpolation="nearest",
        )
        style_axes(axes, self.title, self.caption)
        axes.set_xticks([])
        axes.set_yticks([])
        color_legend(figure, axes, image, self.scale)
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return screened_bundle(self)


def picture_overlay(
    values: Float[Tensor, "row column"],
    picture: Any = None,
    *,
    label: str,
    bounds: Bounds = (0.0, None),
    title: str = "",
    caption: str = "",
) -> PictureOverlay:
    """Return numbers of patches on the picture that they are cut from.

    Args:
        values: One number per patch.
        picture: What was seen, a PIL picture, which the grid of patches covers; None for none.
        label: The quantity with its unit.
        bounds: What the quantity can be at all.
        title: What to write above.
        caption: What to write below the title.

    Raises:
        FigureError: There is no patch.

    Example:
        >>> import torch
        >>> shown = picture_overlay(torch.tensor([[0.25, 0.5]]), label="share")
        >>> shown.scale.low, shown.scale.high
        (0.0, 0.5)
    """
    if not values.numel():
        raise FigureError(f"a picture has patches; got a grid of {tuple(values.shape)}")
    numbers = values.detach().float().cpu()
    return PictureOverlay(
        values=numbers,
        picture=picture,
        scale=linear_scale(numbers, label=label, bounds=bounds),
        title=title,
        caption=caption,
    )


def _enlarged(picture: "PIL.Image.Image") -> "PIL.Image.Image":
    """Return a picture in gray; a small one without the browser's smoothing."""
    gray = picture.convert("L").convert("RGB")
    if max(gray.size) > _SMALL:
        gray.thumbnail((800, 800))
        return gray
    times = 512 // max(gray.size)
    return gray.resize((gray.width * times, gray.height * times), resample=0)
