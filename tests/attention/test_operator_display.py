import pytest
import torch

from attnscope.attention import DenseAttention, DenseBias, OuterAttention, SoftmaxAttention
from attnscope.attention.display import held_bytes


def softmax(length=100):
    query = torch.randn(4, length, 8, generator=torch.Generator().manual_seed(0))
    key = torch.randn(2, length, 8, generator=torch.Generator().manual_seed(1))
    return SoftmaxAttention(query, key, causal=True)


def test_the_table_tells_what_is_held_in_place_of_a_map():
    page = softmax()._repr_html_()
    for text in (
        "<caption>SoftmaxAttention</caption>",
        "<tr><th>queries</th><td>100 x token</td></tr>",
        "<td>distributions, of the past only</td>",
        "<tr><th>held</th><td>19,200 bytes</td></tr>",  # (4 + 2) heads x 100 x 8 x 4 bytes
        "<tr><th>as a map</th><td>160,000 bytes</td></tr>",  # 4 x 100 x 100 x 4 bytes
    ):
        assert text in page
    assert "batch" not in page


def test_the_table_names_signed_rows_and_the_batch():
    factor = torch.ones(3, 1, 2, 5)
    page = OuterAttention(factor, factor)._repr_html_()
    assert "<tr><th>batch</th><td>3</td></tr>" in page
    assert "<td>signed weights</td>" in page


def test_what_an_axis_is_called_is_escaped():
    attention = DenseAttention(torch.eye(2).unsqueeze(0), offset=None, key_axis="<b>patch</b>")
    assert "2 x &lt;b&gt;patch&lt;/b&gt;" in attention._repr_html_()


def test_an_operator_made_of_others_holds_what_they_hold():
    attention = softmax()
    assert held_bytes(attention.mean_heads()) == held_bytes(attention)
    assert held_bytes(attention @ attention) == held_bytes(attention)


def test_showing_an_operator_runs_no_kernel(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a kernel ran")

    attention = softmax()
    monkeypatch.setattr(SoftmaxAttention, "apply", refuse)
    monkeypatch.setattr(SoftmaxAttention, "tile", refuse)
    monkeypatch.setattr(SoftmaxAttention, "parts", refuse)
    assert attention._repr_html_()


def test_the_tensors_of_masks_and_biases_count():
    factor = torch.zeros(1, 10, 4)
    bias = DenseBias(torch.zeros(1, 10, 10))
    assert held_bytes(SoftmaxAttention(factor, factor, bias=bias)) == 160 + 400


@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_factor_is_counted_once(shared):
    factor = torch.zeros(1, 10, 4)
    attention = SoftmaxAttention(factor, factor if shared else factor.clone())
    assert held_bytes(attention) == (160 if shared else 320)


def test_an_expanded_factor_counts_what_its_memory_holds():
    factor = torch.zeros(1, 1, 4).expand(1, 10, 4)
    assert held_bytes(OuterAttention(factor, factor)) == 16


def test_the_line_of_text_names_mechanism_and_sizes():
    assert repr(softmax(7)) == "SoftmaxAttention(heads=4, queries=7, keys=7, float32)"
