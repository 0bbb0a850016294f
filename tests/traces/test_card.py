"""A card tells what numbers are, and says so where nobody knows."""

from dataclasses import replace

import pytest
import torch

from attnscope.attention import (
    AlibiBias,
    DenseAttention,
    KernelAttention,
    Mask,
    SoftmaxAttention,
    WindowedAttention,
)
from attnscope.traces import Card, Check, SiteCard, Verification, open_trace, site_card
from attnscope.traces.site_facts import mask_in_words

QUERY = torch.zeros(2, 6, 4)


def test_a_site_says_what_its_softmax_does():
    attention = SoftmaxAttention(
        QUERY.bfloat16(), QUERY.bfloat16(), mask=Mask(after=0, before=3), softcap=30.0,
        bias=AlibiBias(torch.ones(2)), sinks=torch.zeros(2),
    )  # fmt: skip
    card = site_card(attention, library="transformers", computation="fused kernels")
    assert card == SiteCard(
        operator="SoftmaxAttention",
        numbers="weights after softmax",
        rows="rows sum to less than 1 (a learned sink column takes the rest)",
        mask="causal, sliding window of 4",
        window=4,
        softcap=30.0,
        sinks=True,
        bias="AlibiBias",
        dtype="bfloat16, float32",
        library="transformers",
        computation="fused kernels",
    )
    assert "computed by fused kernels, heard in transformers" in str(card)


def test_other_kinds_say_only_what_they_know():
    card = site_card(DenseAttention(torch.eye(3)[None] * 7))
    assert (card.numbers, card.rows, card.mask) == (
        "weights as they are applied", "rows have any sum", "",
    )  # fmt: skip
    assert site_card(KernelAttention(QUERY - 1, QUERY + 1)).rows == "signed"
    windows = torch.arange(6).reshape(2, 3)
    inner = SoftmaxAttention(torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4), causal=False)
    card = site_card(WindowedAttention(inner, windows, windows, 6, 6))
    assert (card.operator, card.numbers) == ("WindowedAttention", "weights after softmax")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (Mask(), "sees all"),
        (Mask(after=2, chunk=4), "2 ahead, chunks of 4"),
        (Mask(key_valid=torch.ones(6, dtype=torch.bool)), "some keys hidden"),
        (Mask(allowed=torch.ones(6, 6, dtype=torch.bool)), "entry by entry"),
    ],
)
def test_masks_in_words(mask, words):
    assert mask_in_words(mask) == words


def test_layers_of_one_kind_stand_together_and_selection_follows(make_trace, tmp_path):
    trace = make_trace(layers=3, length=6)
    known = site_card(trace.attention[0])
    sites = {(site.stack, site.layer): known for site in trace.sites}
    sites["model.layers.self_attn", 2] = replace(known, window=9)
    checks = (
        Check(what="weights", where="a", passed=True, error=1e-7, tolerance=1e-5, note="eager"),
        Check(what="tokens", where="text", passed=False, note="3, not 4"),
    )
    proof = Verification(checks=checks, rows=4, seed=1, against="tiny (float32)")
    trace = replace(trace, card=Card(sites=sites, verification=proof, lost=("hope",)))
    lines = trace.card.lines()
    assert lines[0].startswith("model.layers.self_attn 0-1: SoftmaxAttention")
    assert lines[2:] == [
        "lost: hope",
        "verified: FAILED 1 of 2 checks against tiny (float32); largest errors: weights 1e-07",
    ]
    assert list(trace.select(layers=1).card.sites) == [("model.layers.self_attn", 1)]
    trace.save(tmp_path / "t.safetensors")
    assert open_trace(tmp_path / "t.safetensors").card == trace.card
    assert "FAILED tokens of text: 3, not 4" in repr(proof)
    assert "<td>ok weights of a 1e-07 (at most 1e-05): eager</td>" in proof._repr_html_()


def test_no_check_is_no_proof():
    assert not Verification(checks=(), rows=1, seed=0, against="x").passed
