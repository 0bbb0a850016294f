"""Saliency of each token of a response, against one capture per token and dense maps."""

import pytest
import torch

from attnscope.metrics import after_image_keys, layer_saliency, previous_token_keys
from attnscope.probes import (
    CaptureError,
    Collector,
    Logit,
    TokenLogits,
    TokenLoss,
    TokenLosses,
    capture,
    response_saliency,
    saliency_maps,
)
from tests.probes.vision_language import answered, inputs, subject

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own
FAMILIES = ("LLaVA", "Qwen2.5-VL", "Gemma 3")


def dense_rows(trace, token):
    """Return, by layer, the row that predicts a token, from dense maps and gradients."""
    rows = []
    for seen in trace.observe():
        group = seen.attention.heads // len(seen.value)
        gradient = seen.gradient @ seen.value.repeat_interleave(group, 0).mT
        rows.append((seen.attention.dense() * gradient).abs().sum(0)[token - 1])
    return torch.stack(rows)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_token_has_the_saliency_of_its_own_target(name):
    held, encoded = subject(name), answered(name)
    tokens = encoded.sequences["text"].segments["response"]
    ids = encoded.sequences["text"].ids
    losses = saliency_maps(held, encoded, norm=None)
    logits = saliency_maps(held, encoded, norm=None, target=TokenLogits)
    assert losses.positions["token"] == tuple(tokens)
    assert losses.values.shape == (2, 4, len(ids))
    for number, token in enumerate(tokens):
        trace = capture(held, encoded, gradient=TokenLoss((token,)))
        wanted = dense_rows(trace, token)
        torch.testing.assert_close(losses.values[:, number], wanted, rtol=1e-4, atol=1e-7)
        trace = capture(held, encoded, gradient=Logit(ids[token], token - 1))
        wanted = dense_rows(trace, token)
        torch.testing.assert_close(logits.values[:, number], wanted, rtol=1e-4, atol=1e-7)
    assert float(losses.values[:, :, : tokens[0]].min(1).values.sum()) > 0
    assert losses.options["target"] == f"loss of each of the positions {tokens}"


def test_the_published_row_has_no_gradient_and_ours_has():
    held, encoded = subject("LLaVA"), answered("LLaVA")
    token = encoded.sequences["text"].segments["response"][1]
    trace = capture(held, encoded, gradient=TokenLoss((token,)))
    for seen in trace.observe():
        assert float(seen.gradient[:, token].abs().max()) == 0.0  # the token's own row
        assert float(seen.gradient[:, token - 1].abs().max()) > 0.0  # the last of the prefix


def test_the_score_is_the_mean_over_the_outputs_before():
    held, encoded = subject("LLaVA"), answered("LLaVA")
    tokens = encoded.sequences["text"].segments["response"]
    maps = saliency_maps(held, encoded)
    torch.testing.assert_close(maps.values.norm(dim=-1), torch.ones(2, 4))
    reading = response_saliency(held, encoded)
    assert reading.axes == ("layer", "token")
    assert reading.values[:, 0].isnan().all()
    for number, token in enumerate(tokens[1:], start=1):
        before = maps.values[:, number, tokens[0] : token].mean(-1)
        torch.testing.assert_close(reading.values[:, number], before)
    previous = response_saliency(held, encoded, layers=[-1], keys=previous_token_keys)
    assert previous.coordinates["layer"] == (1,)
    torch.testing.assert_close(previous.values[0, 2], maps.values[1, 2, tokens[1]])
    paper = response_saliency(held, encoded, keys=after_image_keys)
    image = encoded.sequences["text"].segments["image"]
    between = maps.values[:, 0, image[-1] + 1 : tokens[0]].mean(-1)
    torch.testing.assert_close(paper.values[:, 0], between)
    assert paper.options["keys"] == "after_image_keys"


def test_the_norm_of_the_whole_map_is_that_of_the_token_s_own_gradients():
    held, encoded = subject("LLaVA"), answered("LLaVA", 2)
    token = encoded.sequences["text"].segments["response"][-1]
    maps = saliency_maps(held, encoded, norm="matrix")
    trace = capture(held, encoded, gradient=TokenLoss((token,)))
    for layer, seen in enumerate(trace.observe()):
        row = layer_saliency(seen.attention, seen.value, seen.gradient, [token - 1], "matrix")
        torch.testing.assert_close(maps.values[layer, -1], row[0], rtol=1e-4, atol=1e-7)


def test_needs_a_response_and_a_recorder_for_several_numbers():
    held, encoded = subject("LLaVA"), answered("LLaVA")
    with pytest.raises(CaptureError, match="no response segment; sequence 'text' has"):
        saliency_maps(held, inputs("LLaVA"))
    with pytest.raises(CaptureError, match="is 2 numbers, and this recorder takes"):
        capture(held, encoded, gradient=TokenLosses((39, 40)), into=Collector())
    with pytest.raises(CaptureError, match=r"tokens \[0\] of 42 .* a token before it"):
        capture(held, encoded, gradient=TokenLosses((0,)))
    assert held.model.training is False
    assert all(parameter.grad is None for parameter in held.model.parameters())
