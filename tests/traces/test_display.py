"""A trace shows what is in it, and nothing that its names could do to a page."""

from dataclasses import replace

import pytest
import torch

from attnscope.attention import DenseAttention
from attnscope.traces import Provenance, Trace
from attnscope.traces.display import readable_bytes


def test_text_names_model_tokens_stacks_layers_heads_and_bytes(make_trace):
    assert repr(make_trace()) == (
        "Trace of tiny (float32): 2 attention sites, 106 kB\n"
        "  text: 64 x token (prompt 1-62)\n"
        "  model.layers.self_attn: layers 0-1, 4 heads, 64 x 64, SoftmaxAttention, with gradient\n"
        "  card: unknown (the trace does not say what its numbers are)"
    )


def test_layers_in_runs_and_sizes_that_differ(make_sequence, make_observation):
    text, image = make_sequence(6), make_sequence(4, "image")
    seen = [make_observation(text, layer, gradient=layer > 4) for layer in (0, 1, 2, 5)]
    crossing = make_observation(
        text, 7, DenseAttention(torch.full((2, 6, 4), 0.25), key_axis="patch"), gradient=False
    )
    crossing = replace(crossing, site=replace(crossing.site, key_sequence="image"), keys=image)
    sequences = {"text": text, "image": image}
    trace = Trace(observations=[*seen, crossing], sequences=sequences, main_sequence="text")
    assert (
        "layers 0-2, 5, 7, 2-4 heads, several sizes, "
        "SoftmaxAttention, DenseAttention, 1 with gradient\n"
    ) in repr(trace)
    assert repr(trace).startswith("Trace of an unnamed model: 5 attention sites")


def test_html_holds_the_same_and_escapes_names(make_trace):
    trace = replace(make_trace(), provenance=Provenance(model="<script>alert(1)</script>"))
    html = trace._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<td>model.layers.self_attn</td><td>0-1</td><td>4</td><td>64 x 64</td>" in html


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (2_500_000, "2.5 MB"),
        (3e9, "3 GB"),
        (4e15, "4e+03 TB"),
    ],
)
def test_bytes_are_readable(count, text):
    assert readable_bytes(int(count)) == text
