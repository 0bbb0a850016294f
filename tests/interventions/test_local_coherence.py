import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope.interventions import (
    LocoRE,
    post_softmax_raw,
    post_softmax_renorm,
    pre_softmax_log,
    recent_gain,
)

RULES = (post_softmax_raw, post_softmax_renorm, pre_softmax_log)


def _split(encoded, prompt):
    return {"input_ids": encoded.model_inputs["input_ids"][:, :prompt]}


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("rule", RULES)
def test_recent_words_of_the_response_are_raised(made, heard, window, rule):
    subject, whole = made("Llama")
    prompt = subject.encode(_split(whole, 12))
    change = LocoRE(beta=0.5, window=window, normalize=rule, layers=[0])
    plain, changed = heard(subject, whole)[0], heard(subject, whole, change, prompt=prompt)[0]
    expected = plain.attention.dense().clone()
    for query in range(12, len(whole)):
        for key in range(12, query):  # its own key is left out, and so is the prompt
            if query - key <= window:
                expected[:, :, query, key] *= 1.5
    if rule is not post_softmax_raw:
        expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(changed.attention.dense(), expected, atol=1e-6, rtol=1e-4)
    value = plain.value.repeat_interleave(2, dim=1)
    torch.testing.assert_close(changed.output, expected @ value, atol=1e-5, rtol=1e-4)
    if rule is post_softmax_raw:
        assert torch.equal(changed.output[:, :, :13], plain.output[:, :, :13])
    assert changed.attention.stochastic == (rule is not post_softmax_raw)


def test_the_sheet_of_the_paper_by_hand():
    rows = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.2])
    one = recent_gain(rows, torch.tensor([False, False, False, True, False]), 0.15)
    torch.testing.assert_close(one, torch.tensor([0.4, 0.2, 0.1, 0.115, 0.2]))
    both = recent_gain(rows, torch.tensor([False, False, True, True, False]), 0.15)
    assert float(both.sum()) == pytest.approx(1.03)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 3), st.integers(0, 2**31))
def test_log_gains_before_the_softmax_are_gains_renormalized_after_it(beta, seed):
    scores = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    boosted = scores > 0
    logs = torch.where(boosted, torch.tensor(1 + beta, dtype=torch.float64).log(), 0)
    expected = (scores + logs).softmax(-1)
    for rule in (post_softmax_renorm, pre_softmax_log):
        torch.testing.assert_close(recent_gain(scores.softmax(-1), boosted, beta, rule), expected)


def test_with_a_learned_sink_the_rules_differ(made, heard):
    subject, whole = made("gpt-oss")
    prompt = subject.encode(_split(whole, 12))
    found = {
        rule: heard(subject, whole, LocoRE(beta=2.0, normalize=rule, layers=[0]), prompt=prompt)[
            0
        ].attention.row_mass()
        for rule in RULES
    }
    before = heard(subject, whole)[0].attention.row_mass()
    torch.testing.assert_close(found[post_softmax_renorm], before)
    assert (found[pre_softmax_log] > before + 1e-4)[..., 13:].all()
    assert (found[pre_softmax_log] < 1).all()


def test_the_papers_words_count_the_question(made, heard):
    subject, encoded = made("LLaVA")
    plain = heard(subject, encoded)[0].attention.dense()
    changed = heard(subject, encoded, LocoRE(beta=1.0, counts_prompt=True, layers=[0]))[0]
    last = len(encoded) - 1
    gains = changed.attention.dense()[0, :, last] / plain[0, :, last]
    expected = torch.ones(len(encoded))
    expected[last - 5 : last] = 2.0
    torch.testing.assert_close(gains, expected.expand(4, -1), atol=1e-3, rtol=1e-3)
