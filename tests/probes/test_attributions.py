"""Credit of tokens by methods that change the input, against the model asked one by one."""

import pytest
import torch

from attnscope.probes import (
    ATTRIBUTIONS,
    CaptureError,
    Logit,
    TokenPresence,
    attribute,
    capture,
    compare_attributions,
    completeness_gap,
    with_attributions,
)
from attnscope.traces import TraceError, open_trace

TARGET = Logit(7, position=-2)
COUNT = 6


@pytest.fixture
def encoded(subject, tokens):
    return subject.encode({"input_ids": tokens[:, :COUNT]})


@pytest.fixture
def fall(subject, encoded):
    """Return by how much the target falls without some tokens."""
    presence = TokenPresence(subject, encoded, target=TARGET)

    def without(*tokens):
        there = presence.whole.clone()
        there[0, list(tokens)] = 0
        with torch.no_grad():
            return float(presence(presence.whole)[0] - presence(there)[0])

    return without


def test_integrated_gradients_sum_to_the_fall_of_the_target(subject, encoded):
    presence = TokenPresence(subject, encoded, target=TARGET, baseline=3)
    found = attribute(subject, encoded, target=TARGET, baseline=3, steps=64)
    gap = completeness_gap(presence, found.values)
    with torch.no_grad():
        fall = float(presence(presence.whole)[0] - presence(0 * presence.whole)[0])
    assert abs(gap) < 0.02 * abs(fall)
    assert completeness_gap(presence, 0 * found.values) == pytest.approx(-fall)


def test_integrated_gradients_are_those_of_embeddings(subject, model, tokens, encoded):
    from captum.attr import IntegratedGradients

    embedded = model.get_input_embeddings()(tokens[:, :COUNT]).detach()

    def logit(states):
        return model(inputs_embeds=states).logits[:, -2, 7]

    slow = IntegratedGradients(logit).attribute(embedded, n_steps=8).sum(-1)[0]
    found = attribute(subject, encoded, target=TARGET, steps=8)
    torch.testing.assert_close(found.values, slow.float(), atol=1e-4, rtol=1e-3)
    assert found.method == "integrated_gradients"


def test_ablation_is_the_fall_without_each_token(subject, encoded, fall):
    found = attribute(subject, encoded, target=TARGET, method="feature_ablation")
    expected = [fall(token) for token in range(COUNT)]
    torch.testing.assert_close(found.values, torch.tensor(expected), atol=1e-5, rtol=1e-4)
    groups = (0, 0, 1, 1, 1, 2)
    together = attribute(subject, encoded, target=TARGET, method="feature_ablation", groups=groups)
    expected = [fall(0, 1)] * 2 + [fall(2, 3, 4)] * 3 + [fall(5)]
    torch.testing.assert_close(together.values, torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_occlusion_is_the_mean_fall_over_windows(subject, encoded, fall):
    found = attribute(subject, encoded, target=TARGET, method="occlusion", window=2)
    falls = [fall(start, start + 1) for start in range(COUNT - 1)]
    covering = [
        [start for start in (token - 1, token) if 0 <= start < COUNT - 1] for token in range(COUNT)
    ]
    expected = [sum(falls[start] for start in starts) / len(starts) for starts in covering]
    torch.testing.assert_close(found.values, torch.tensor(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_tokens_behind_the_target_get_no_credit(subject, encoded, method):
    found = attribute(subject, encoded, target=TARGET, method=method)
    assert found.values[-1] == 0  # the target is read one token before the last
    assert float(found.values[:-1].abs().max()) > 0
    assert found.reading.coordinates["token"] == encoded.sequences["text"].tokens
    assert found.provenance.gradient_target == TARGET.name
    assert found.reading.options["target"] == TARGET.name


def test_methods_are_compared_by_ranks(subject, encoded):
    one, two = (
        attribute(subject, encoded, target=TARGET, method=method)
        for method in ("attention", "saliency")
    )
    table = compare_attributions(one, two)
    assert table.loc["attention", "attention"] == pytest.approx(1.0)
    assert -1 <= table.loc["attention", "saliency"] <= 1
    other = attribute(subject, encoded, target=Logit(8, -2), method="attention")
    with pytest.raises(CaptureError, match="same tokens and the same target"):
        compare_attributions(one, other)


def test_what_is_not_there_is_refused(subject, encoded):
    with pytest.raises(CaptureError, match="no attribution 'lime'; there are"):
        attribute(subject, encoded, method="lime")
    with pytest.raises(CaptureError, match="2 groups for 6 tokens"):
        attribute(subject, encoded, method="feature_ablation", groups=(0, 1))
    with pytest.raises(CaptureError, match="got window 9, stride 1"):
        attribute(subject, encoded, method="occlusion", window=9)


def test_a_trace_keeps_attributions(subject, encoded, tokens, tmp_path):
    one, two = (
        attribute(subject, encoded, target=TARGET, method=method)
        for method in ("attention", "relevance")
    )
    trace = with_attributions(capture(subject, encoded), one, two)
    trace.save(tmp_path / "run.safetensors")
    kept = open_trace(tmp_path / "run.safetensors").readings
    assert list(kept) == [f"attention of {TARGET.name}", f"relevance of {TARGET.name}"]
    stored = kept[f"relevance of {TARGET.name}"]
    torch.testing.assert_close(stored.values, two.values)
    assert stored.options["model"] == "tiny"
    assert stored.options["target"] == TARGET.name
    assert stored.coordinates["token"] == two.sequence.tokens
    other = capture(subject, {"input_ids": tokens[:, :3]})
    with pytest.raises(TraceError, match="with 6 tokens that this trace does not have"):
        with_attributions(other, one)
