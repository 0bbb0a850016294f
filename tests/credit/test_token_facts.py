"""Entropies and log-probabilities from logits, and from a fused head's own numbers."""

from types import SimpleNamespace

import pytest
import torch

from attnscope.credit import CreditError, Stretch
from attnscope.credit.token_facts import token_facts

LOGITS = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[0, 1, 2, 3, 4, 0]])
STRETCH = Stretch(row=0, start=1, stop=6, first=3, end=5)
LOG_P = LOGITS[0].log_softmax(-1)
ENTROPY = -(LOG_P.exp() * LOG_P).sum(-1)


def test_logits_give_every_row_from_the_one_before_the_response():
    facts = token_facts(SimpleNamespace(logits=LOGITS), IDS, 6, 0, STRETCH)
    torch.testing.assert_close(facts.entropy, ENTROPY[2:5])
    torch.testing.assert_close(facts.log_probability, torch.stack([LOG_P[2, 3], LOG_P[3, 4]]))


def test_logits_of_the_last_columns_are_put_in_their_place():
    facts = token_facts(SimpleNamespace(logits=LOGITS[:, 2:]), IDS, 6, 0, STRETCH)
    torch.testing.assert_close(facts.entropy, ENTROPY[2:5])
    few = token_facts(SimpleNamespace(logits=LOGITS[:, 3:]), None, 6, 0, STRETCH)
    assert few.entropy.isnan().tolist() == [True, False, False]
    assert few.log_probability.isnan().all()


def test_a_fused_head_does_not_know_the_last_token_s_own_row():
    fused = SimpleNamespace(
        entropy=ENTROPY[None, :-1], log_probs=LOG_P[:-1].gather(1, IDS[0, 1:, None]).T
    )
    facts = token_facts(fused, IDS, 6, 0, STRETCH)
    torch.testing.assert_close(facts.entropy[:2], ENTROPY[2:4])
    assert facts.entropy[2].isnan()
    torch.testing.assert_close(facts.log_probability, torch.stack([LOG_P[2, 3], LOG_P[3, 4]]))


def test_without_a_prompt_nothing_predicts_the_first_token():
    bare = Stretch(row=0, start=0, stop=6, first=0, end=2)
    fused = SimpleNamespace(
        entropy=ENTROPY[None, :-1], log_probs=LOG_P[:-1].gather(1, IDS[0, 1:, None]).T
    )
    for output in (SimpleNamespace(logits=LOGITS), fused):
        facts = token_facts(output, IDS, 6, 0, bare)
        assert facts.entropy[0].isnan()
        torch.testing.assert_close(facts.entropy[1], ENTROPY[0])
        assert facts.log_probability[0].isnan()
        torch.testing.assert_close(facts.log_probability[1], LOG_P[0, 1])


def test_an_output_without_either_is_refused():
    with pytest.raises(CreditError, match="SimpleNamespace without logits or entropies"):
        token_facts(SimpleNamespace(), IDS, 6, 0, STRETCH)
