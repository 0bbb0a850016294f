"""Which candidate is taken, on scores that are known beforehand."""

import pytest
import torch

from attnscope.interventions.rejection_step import CandidateDrawing, rejection_step
from attnscope.metrics import saliency_threshold

NAN = float("nan")
LIKELY_FIRST = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]])


def step(scores, threshold, tries=3, candidates=5):
    drawing = CandidateDrawing(LIKELY_FIRST, candidates, sample=False)
    table = torch.tensor(scores)
    return rejection_step(
        lambda tokens: table[tokens],
        drawing,
        torch.tensor([threshold]),
        torch.tensor([True]),
        tries,
    )


def test_the_case_worked_by_hand():
    threshold = saliency_threshold([0.5, 0.4, 0.6], alpha=0.6, window=5)
    assert threshold == pytest.approx(0.3)
    found = step([0.29, 0.3, 0.9, 0.0, 0.0, 0.0], 0.3)
    assert (int(found.token), int(found.tried), bool(found.accepted)) == (1, 2, True)
    assert float(found.score) == pytest.approx(0.3)


def test_the_best_is_taken_where_all_fail():
    found = step([0.1, 0.2, 0.15, 0.9, 0.9, 0.9], 0.3)
    assert (int(found.token), int(found.tried), bool(found.accepted)) == (1, 3, False)


def test_no_more_are_drawn_than_there_are_candidates():
    found = step([0.1, 0.2, 0.9, 0.9, 0.9, 0.9], 0.3, tries=10, candidates=2)
    assert (int(found.token), int(found.tried)) == (1, 2)


def test_without_a_threshold_the_first_passes_even_undefined():
    found = step([NAN, 0.2, 0.9, 0.0, 0.0, 0.0], 0.0)
    assert (int(found.token), int(found.tried), bool(found.accepted)) == (0, 1, True)


def test_an_undefined_score_does_not_pass_a_threshold():
    found = step([NAN, 0.1, NAN, 0.0, 0.0, 0.0], 0.3)
    assert (int(found.token), int(found.tried), bool(found.accepted)) == (1, 3, False)
    nothing = step([NAN] * 6, 0.3)
    assert (int(nothing.token), bool(nothing.accepted)) == (0, False)


def test_forbidden_tokens_are_never_drawn():
    logits = torch.tensor([[1.0, -torch.inf, 0.0, -torch.inf]])
    for seed in range(20):
        torch.manual_seed(seed)
        drawing = CandidateDrawing(logits, 4, sample=True)
        drawn = {int(drawing.draw()), int(drawing.draw())}
        assert drawn == {0, 2}
        assert not bool(drawing.left)


def test_draws_follow_the_probabilities_of_the_likeliest():
    torch.manual_seed(0)
    logits = torch.tensor([[2.0, 1.0, 0.5]]).expand(20_000, 3)
    drawn = CandidateDrawing(logits, 2, sample=True).draw()
    share = torch.tensor([2.0, 1.0]).softmax(-1)
    counts = drawn.bincount(minlength=3) / len(drawn)
    torch.testing.assert_close(counts, torch.cat([share, torch.zeros(1)]), atol=0.01, rtol=0)


def test_each_row_is_for_itself():
    logits = LIKELY_FIRST.repeat(3, 1)
    table = torch.tensor([[0.1, 0.5], [0.4, 0.1], [0.0, 0.0]])
    found = rejection_step(
        lambda tokens: table.gather(1, tokens[:, None])[:, 0],
        CandidateDrawing(logits, 2, sample=False),
        torch.tensor([0.3, 0.3, 0.3]),
        torch.tensor([True, True, False]),
        3,
    )
    assert found.token.tolist()[:2] == [1, 0]
    assert found.tried.tolist() == [2, 1, 0]
    assert found.accepted.tolist() == [True, True, False]
    assert bool(found.score[2].isnan())
