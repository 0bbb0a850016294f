"""The looks that need no training: areas, token scores, perturbation, stability, tables."""

import pytest
import torch
import typer

import attnscope
from attnscope.metrics import RhythmCoupling
from attnscope.metrics.coupling import Coupling
from attnscope.models.subjects.countdown import (
    build_subject,
    build_tokenizer,
    prompt_chat,
    sample_problems,
    subject_config,
)
from benchmarks.credit.auroc import area, areas
from benchmarks.credit.claims import bootstrap, coupling_rows, main, perturbation_rows, table
from benchmarks.credit.gate import BASELINE, LABELS, findings, token_scores
from benchmarks.credit.gate import table as gate_table
from benchmarks.credit.perturbation import Perturbation, content_words, jaccard, perturb
from benchmarks.credit.policy import build_policy
from benchmarks.credit.stability import agreement, mean_of, over_texts
from benchmarks.credit.task import (
    PAD,
    generator_for,
    prompt_ids,
    stream_problems,
    write_response,
)


def random_scores(count=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 20, (count,), generator=generator).float()
    return scores, torch.rand(count, generator=generator) < 0.3


def test_area_equals_the_share_of_right_pairs():
    scores, marked = random_scores()
    pairs = scores[marked][:, None] - scores[~marked][None]
    expected = ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean()
    assert float(area(scores, marked)) == pytest.approx(float(expected))


def test_weights_count_tokens_several_times():
    scores, marked = random_scores()
    times = torch.randint(0, 3, scores.shape, generator=torch.Generator().manual_seed(1))
    repeated = torch.arange(len(scores)).repeat_interleave(times)
    expected = area(scores[repeated], marked[repeated])
    assert float(area(scores, marked, times[None])) == pytest.approx(float(expected))


def test_undefined_scores_rank_last():
    scores = torch.tensor([torch.nan, 0.1, 0.2])
    assert float(area(scores, torch.tensor([True, False, False]))) == 0.0


def test_intervals_hold_the_value_and_the_baseline_leads_itself_by_nothing():
    scores, marked = random_scores()
    better = scores + 10 * marked
    problem = torch.arange(len(scores)) // 10
    found = areas({"plain": scores, "better": better}, marked, problem, "plain")
    for one in found.values():
        assert one.low < one.value < one.high
    assert (found["plain"].lead, found["plain"].lead_high) == (0.0, 0.0)
    assert found["better"].lead_low > 0


@pytest.fixture(scope="module")
def scored():
    generator = generator_for("mechanism")
    problems = [p for p, _ in zip(stream_problems(generator, "test"), range(6), strict=False)]
    written = [write_response(problem, generator) for problem in problems]
    responses = torch.full((6, max(map(len, written))), PAD)
    for row, ids in enumerate(written):
        responses[row, : len(ids)] = torch.tensor(ids)
    prompts = torch.tensor([prompt_ids(problem) for problem in problems])
    return responses, token_scores(build_policy(0).eval(), prompts, responses)


def test_row_alignment_is_a_shift_by_one_row(scored):
    responses, scores = scored
    inside = (responses != PAD)[:, 1:]
    for metric in ("entropy", "WAAD change"):
        emitting, own = (scores[f"{metric}, {row} row"] for row in ("emitting", "own"))
        assert torch.equal(emitting[:, 1:][inside], own[:, :-1][inside])


def test_every_token_has_the_scores_that_are_defined_for_it(scored):
    responses, scores = scored
    inside = responses != PAD
    for name in ("entropy, emitting row", "surprise, - log p", "attention received in all"):
        assert not bool(scores[name][inside].isnan().any())
    assert bool((scores["attention received in all"][inside] >= -1e-5).all())
    lengths = inside.sum(1)
    known = (~scores["FAI of the global heads"].isnan() & inside).sum(1)
    assert known.tolist() == (lengths - 9).clamp(min=0).tolist()
    assert BASELINE in scores


def test_the_gate_table_has_a_row_per_score_and_label():
    scores, marked = random_scores()
    one = areas({BASELINE: scores}, marked, torch.arange(300) // 10, BASELINE)
    text = gate_table({"0": dict.fromkeys(LABELS, one), "1": dict.fromkeys(LABELS, one)})
    assert text.count(f"| {BASELINE} |") == len(LABELS)
    assert "policy 1" in text


def test_findings_name_what_leads_in_every_policy():
    scores, marked = random_scores()
    problem = torch.arange(300) // 10
    both = {BASELINE: scores, "better": scores + 10 * marked}
    good = areas(both, marked, problem, BASELINE)
    bad = areas(both | {"better": scores}, marked, problem, BASELINE)
    agreed = findings({"0": dict.fromkeys(LABELS, good), "1": dict.fromkeys(LABELS, good)})
    assert agreed.count(": better.") == len(LABELS)
    split = findings({"0": dict.fromkeys(LABELS, good), "1": dict.fromkeys(LABELS, bad)})
    assert split.count(": none.") == len(LABELS)


@pytest.fixture(scope="module")
def subject():
    config = subject_config(layers=2, hidden=24, heads=2)
    return attnscope.Subject(build_subject(config, seed=0), build_tokenizer())


def test_perturbation_compares_continuations(subject):
    chat = prompt_chat(sample_problems(1, seed=0)[0])
    torch.manual_seed(0)
    answered = subject.generate(chat, max_new_tokens=24, min_new_tokens=24, do_sample=True)
    found = perturb(subject, answered, 24)
    assert found is not None
    assert 0 <= found.low <= 1
    assert 0 <= found.high <= 1
    assert 0 <= found.high_place <= 1


def test_short_responses_say_nothing(subject):
    chat = prompt_chat(sample_problems(1, seed=0)[0])
    torch.manual_seed(0)
    answered = subject.generate(chat, max_new_tokens=12, min_new_tokens=12, do_sample=True)
    assert perturb(subject, answered, 12) is None


def test_words_and_overlap():
    assert content_words("<eos> no . 7 - 3") == {"eos", "no", "7", "3"}
    assert jaccard(frozenset(), frozenset()) == 1.0
    assert jaccard(frozenset("ab"), frozenset("c")) == 0.0


def test_the_same_spans_agree_and_reversed_ones_do_not():
    spans = torch.arange(12.0).reshape(3, 4)
    same, reverse = agreement(spans, 2 * spans), agreement(spans, -spans)
    assert (same.local, same.global_, same.correlation) == (1.0, 1.0, 1.0)
    assert (reverse.local, reverse.global_, reverse.correlation) == (0.0, 0.0, -1.0)


def test_texts_that_agree_are_stable():
    texts = torch.arange(12.0).reshape(1, 3, 4) + 0.01 * torch.rand(10, 3, 4)
    assert mean_of(over_texts(texts)).local == 1.0


def test_lifts_are_of_the_means_and_leave_out_what_is_undefined():
    def coupling(observed, chance):
        one = Coupling(observed=observed, chance=chance)
        return RhythmCoupling(
            entropy_at_waad_peaks=one,
            receiver_peaks_on_fai_peaks=one,
            fai_peaks_after_waad_peaks=one,
        )

    found = [coupling(2.0, 1.0), coupling(4.0, 3.0), coupling(float("nan"), 1.0)]
    rows = coupling_rows(found)
    assert [row[2] for row in rows] == ["+50.0 %"] * 3
    assert rows[0][3] == "+33.3 to +100.0"
    assert "chance 2.000" in rows[0][0]


def test_perturbation_rows_count_ties_half():
    found = [Perturbation(high=high, low=0.5, high_place=0.2, low_place=0.8) for high in (0.4, 0.5)]
    rows = perturbation_rows(found)
    assert [row[2] for row in rows] == ["0.45", "0.5", "75 %", "0.2", "0.8"]
    assert table(rows).count("\n") == 6


def test_bootstrap_of_equal_values_has_no_width():
    assert bootstrap(lambda chosen: 3.0 * len(chosen) / len(chosen), 5) == (3.0, 3.0)


def test_another_model_needs_prompts():
    with pytest.raises(typer.BadParameter, match=r"other/model needs --prompts FILE"):
        main("other/model")
