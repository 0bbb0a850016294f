import pytest
import torch

from attnscope.interventions import (
    PAINT,
    InterventionError,
    LocoRE,
    local_tokens,
    mean_row,
    raised_scores,
    summary_tokens,
)
from attnscope.probes import capture


def test_scores_are_raised_by_their_magnitude_and_hidden_ones_stay_hidden():
    scores = torch.tensor([1.0, -2.0, 3.0, -torch.inf])
    assert raised_scores(scores, torch.full((4,), 0.5)).tolist() == [1.5, -1.0, 4.5, -torch.inf]
    assert torch.equal(raised_scores(scores, torch.zeros(4)), scores)


def _gains(subject, encoded, alpha, beta):
    """Return the gain of each key, from the maps of the vision tower."""
    trace = capture(subject, encoded)
    tower = [site for site in trace.sites if "vision" in site.path]
    first, late = trace.attention[tower[0].stack, 0], trace.attention[tower[-2].stack, 0]
    local = local_tokens(first.rows([0])[:, 0, 1:].sum(0))
    summary = summary_tokens(late.rows([0])[:, 0, 1:].sum(0))
    gains = torch.zeros(len(encoded))
    gains[2:18] = (local & ~summary) * alpha + summary * beta
    return gains


def test_the_row_that_predicts_is_the_softmax_of_raised_scores(made, heard):
    subject, encoded = made("LLaVA")
    gains = _gains(subject, encoded, 2.0, 1.0)
    assert int((gains > 0).sum()) >= 4
    plain = heard(subject, encoded)[0]
    changed = heard(subject, encoded, PAINT(alpha=2.0, beta=1.0))[0]
    attention = plain.attention
    key = attention.key.repeat_interleave(2, dim=1)
    scores = attention.query[:, :, -1:] @ key.mT * attention.scale
    expected = (scores + gains * scores.abs()).softmax(-1)
    torch.testing.assert_close(changed.attention.rows([-1 % len(encoded)]), expected)
    value = plain.value.repeat_interleave(2, dim=1)
    torch.testing.assert_close(changed.output[:, :, -1:], expected @ value, atol=1e-5, rtol=1e-4)
    assert torch.equal(changed.output[:, :, :-1], plain.output[:, :, :-1])


def test_a_gain_for_each_head_is_ours_and_of_factor_one_does_nothing_new(made, heard):
    subject, encoded = made("LLaVA")
    plain = heard(subject, encoded, PAINT())[0].output
    ones = heard(subject, encoded, PAINT(head_gain=torch.ones_like))[0].output
    none = heard(subject, encoded, PAINT(head_gain=torch.zeros_like))[0].output
    torch.testing.assert_close(ones, plain)
    torch.testing.assert_close(none, heard(subject, encoded)[0].output)


def test_a_tower_without_one_token_per_patch_is_refused(made, heard):
    subject, encoded = made("LLaVA")
    with pytest.raises(InterventionError, match="one token for each patch"):
        heard(subject, encoded, PAINT(patch_weights=mean_row))


def test_scores_that_are_gone_are_not_raised(made, heard):
    subject, encoded = made("LLaVA")
    with pytest.raises(InterventionError, match="put PAINT before"):
        heard(subject, encoded, LocoRE(counts_prompt=True), PAINT())


def test_a_mean_row_stands_in_for_a_class_token():
    from attnscope.attention import DenseAttention

    rows = torch.tensor([[[[0.5, 0.5], [0.0, 1.0]]]])
    torch.testing.assert_close(mean_row(DenseAttention(rows)), torch.tensor([[0.25, 0.75]]))
