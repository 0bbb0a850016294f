import sys
from base64 import b64decode

import pytest
import torch

from attnscope.attention import DenseAttention, GateAttention
from attnscope.figures import attention_map, gate_map, head_grid, token_ribbon
from attnscope.metrics import Reading

PLOTLY = "application/vnd.plotly.v1+json"


def grid(title="Head span"):
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    return head_grid(Reading(name="head_span", title=title, axes=("layer", "head"), values=values))


def ribbon():
    reading = Reading(
        name="waad",
        axes=("token",),
        values=torch.tensor([0.0, 1.0]),
        coordinates={"token": ("<to>", "be")},
    )
    return token_ribbon(reading)


@pytest.mark.parametrize(
    "figure",
    [
        grid(),
        attention_map(DenseAttention(torch.eye(3).unsqueeze(0))),
        gate_map(GateAttention(torch.ones(1, 4)), grid=(2, 2)),
    ],
    ids=["grid", "map", "gate"],
)
def test_a_figure_shows_itself_in_both_libraries(figure):
    bundle = figure._repr_mimebundle_()
    assert bundle[PLOTLY]["data"][0]["type"] == "heatmap"
    assert b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == f"{type(figure).__name__}: {figure.title}"


def test_a_ribbon_shows_its_markup_beside_its_picture():
    bundle = ribbon()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    assert "&lt;to&gt;" in bundle["text/html"]


def test_the_same_figure_is_the_same_picture():
    one, other = (grid()._repr_mimebundle_()["image/png"] for _ in range(2))
    assert one == other
    assert b"Software" not in b64decode(one)
    assert one != grid("Another title")._repr_mimebundle_()["image/png"]


@pytest.mark.parametrize(("library", "form"), [("plotly", PLOTLY), ("matplotlib", "image/png")])
def test_what_a_missing_library_would_draw_is_left_out(monkeypatch, library, form):
    for module in ("plotly.graph_objects", "matplotlib.figure"):
        if module.startswith(library):
            monkeypatch.setitem(sys.modules, module, None)
    whole = {"text/plain", PLOTLY, "image/png"}
    assert set(grid()._repr_mimebundle_()) == whole - {form}
