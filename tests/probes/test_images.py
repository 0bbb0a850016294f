"""Pictures in the text of every family, tile by tile, with the grid of their tokens."""

import pytest
import torch

from attnscope.probes import Collector, Subject, capture
from attnscope.probes.images import image_segments
from tests.probes.vision_language import BREAK, FAMILIES, IMAGE, STOP, answered, inputs, subject

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own


def spans(name, tensors):
    return [(s.start, s.stop, s.grid) for s in image_segments(subject(name).model, tensors)]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tile_is_a_segment_with_its_grid(name):
    given = inputs(name)
    pictures = [
        s
        for s in subject(name).encode(given).sequences["text"].segments
        if s.grid or s.name == "image"
    ]
    assert tuple(run.grid for run in pictures) == FAMILIES[name].grids
    covered = [p for run in pictures for p in run.positions]
    ids = given["input_ids"][0]
    ends = (BREAK, STOP) if name == "Mistral 3" else ()
    assert covered == [p for p, token in enumerate(ids.tolist()) if token in (IMAGE, *ends)]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trace_of_the_text_holds_them(name):
    trace = capture(subject(name), answered(name), into=Collector(hidden=True))
    assert tuple(s.grid for s in trace.segments if s.name == "image") == FAMILIES[name].grids
    assert [s.name for s in trace.segments][-2:] == ["prompt", "response"]
    for seen in trace.observe():
        assert seen.hidden.shape == (len(trace.tokens), 32)
        assert seen.attention.shape == (4, len(trace.tokens), len(trace.tokens))


def test_sizes_that_do_not_explain_the_tokens_give_no_grid():
    given = inputs("LLaVA-NeXT")
    given["image_sizes"] = torch.tensor([[40, 20]])
    assert spans("LLaVA-NeXT", given) == [(1, 53, None)]
    dropped = inputs("Qwen2-VL")
    dropped["image_grid_thw"] = torch.tensor([[1, 8, 6]])
    assert spans("Qwen2-VL", dropped) == [(2, 8, None)]
    odd = inputs("InternVL")
    odd["pixel_values"] = odd["pixel_values"][:2]
    assert spans("InternVL", odd) == [(2, 14, None)]


def test_frames_stand_below_frames():
    given = inputs("Qwen2-VL")
    given["image_grid_thw"] = torch.tensor([[3, 2, 4]])
    assert spans("Qwen2-VL", given) == [(2, 8, (3, 2))]


def test_a_text_model_has_no_pictures():
    assert image_segments(torch.nn.Linear(2, 2), {"input_ids": torch.tensor([[1, IMAGE]])}) == []
    assert image_segments(subject("LLaVA").model, {}) == []
    plain = Subject(subject("LLaVA").model).encode({"input_ids": torch.tensor([[5, 6]])})
    assert "image" not in plain.sequences["text"].segments
