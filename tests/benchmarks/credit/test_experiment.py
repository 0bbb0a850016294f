"""The experiment around the step: order of runs, records, statistics, decision, plan."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import benchmarks.credit
from benchmarks.credit.analyse import report
from benchmarks.credit.arms import CORE, find_arms
from benchmarks.credit.contrasts import Difference, accuracy, compare, holm, pairs_of, sign_flip
from benchmarks.credit.curves import draw_comparison
from benchmarks.credit.evaluation import count_solved, held_out_prompts, problem_numbers
from benchmarks.credit.policy import build_policy
from benchmarks.credit.records import RunKey, RunRecord, finished, read_runs, record_run
from benchmarks.credit.run import SEEDS, STEPS, run_arm, schedule, training_problems
from benchmarks.credit.verdict import CONFIRMATORY, HEADROOM, conclusion, verdict

FOLDER = Path(benchmarks.credit.__file__).parent
PROMPTS = len(held_out_prompts())


def record(arm, supervised=0, seed=101, share=0.5, noise=0, failed=""):
    generator = torch.Generator().manual_seed(1000 * seed + supervised + noise)
    solved = (torch.rand(PROMPTS, 4, generator=generator) < share).sum(-1).tolist()
    return RunRecord(
        arm=arm,
        supervised=supervised,
        seed=seed,
        solved="".join(map(str, solved)),
        curve={"reward": [share, share], "selected": [0.4, 0.4], "weight": [1.2, 1.2]},
        heads={},
        seconds=1.0,
        failed=failed,
    )


def runs_of(shares, seeds=(101, 102, 103), supervised=(0, 1)):
    return [
        record(arm, sft, seed, share, noise)
        for noise, (arm, share) in enumerate(shares.items())
        for sft, seed in itertools.product(supervised, seeds)
    ]


def test_runs_are_ordered_by_seeds_and_an_interrupted_experiment_is_balanced():
    groups = schedule(find_arms("core"), SEEDS)
    assert len(groups) == 16
    assert [key.arm for key in groups[0]][:2] == ["oracle", "uniform"]
    assert all({key.arm for key in group} == {arm.name for arm in CORE} for group in groups)
    assert [(group[0].supervised, group[0].seed) for group in groups[:3]] == [
        (0, 101),
        (1, 101),
        (0, 102),
    ]


def test_arms_share_their_prompts_and_seeds_do_not():
    assert training_problems(101) == training_problems(101)
    assert training_problems(101)[0] != training_problems(102)[0]
    assert not {p.key for step in training_problems(101) for p in step} & {
        p.key for p in held_out_prompts()
    }
    assert len(training_problems(101)) == STEPS


def test_every_held_out_prompt_belongs_to_its_problem():
    assert (PROMPTS, int(problem_numbers().max()) + 1) == (1436, 295)
    by_number = {}
    for number, prompt in zip(problem_numbers().tolist(), held_out_prompts(), strict=True):
        by_number.setdefault(number, set()).add(prompt.key)
    assert all(len(keys) == 1 for keys in by_number.values())


def test_evaluation_is_the_same_whenever_it_is_repeated():
    policy = build_policy(0)
    few = held_out_prompts()[:3]
    assert torch.equal(count_solved(policy, few), count_solved(policy, few))


def test_records_come_back_and_are_replaced_not_doubled(tmp_path):
    first, second = record("uniform"), record("uniform", seed=102)
    for run in (second, first, replace(first, seconds=2.0)):
        record_run(run, tmp_path)
    assert [run.seed for run in read_runs(tmp_path)] == [101, 102]
    assert read_runs(tmp_path)[0].seconds == 2.0
    assert finished(tmp_path) == {RunKey(0, 101, "uniform"), RunKey(0, 102, "uniform")}
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_a_run_trains_and_is_repeatable(monkeypatch):
    monkeypatch.setattr("benchmarks.credit.run.PROMPTS", 1)
    monkeypatch.setattr(
        "benchmarks.credit.run.count_solved", lambda policy: torch.tensor([1, 0, 4])
    )
    one, two = (run_arm(RunKey(0, 101, "random"), steps=1) for _ in range(2))
    assert one.solved == "104"
    assert one.curve == two.curve
    assert len(one.curve["reward"]) == 1
    assert one.failed == ""


def test_accuracy_and_pairs():
    runs = runs_of({"coupled": 0.6, "random": 0.5})
    assert accuracy(runs[0]) == pytest.approx(60, abs=2)
    pairs = pairs_of(runs, ("coupled", "random"))
    assert len(pairs) == 6
    assert all((a.seed, a.supervised) == (b.seed, b.supervised) for a, b in pairs)


def test_a_failed_run_takes_its_seed_from_all_arms():
    runs = [*runs_of({"coupled": 0.6, "random": 0.5}), record("oracle", 1, 102, failed="NaN")]
    assert len(pairs_of(runs, ("coupled", "random"))) == 5


def test_compare_finds_a_difference_and_its_interval():
    runs = runs_of({"coupled": 0.6, "random": 0.5, "position": 0.6})
    found = compare(runs, ("coupled", "random"))
    assert found.estimate == pytest.approx(10, abs=1.5)
    assert found.low < found.estimate < found.high
    assert found.high - found.low < 6
    assert found.p_value == pytest.approx(2 / 2**6)
    none = compare(runs, ("coupled", "position"))
    assert none.low < 0 < none.high
    assert compare(runs, ("coupled", "entropy")) is None


def test_the_bootstrap_is_wide_where_supervised_policies_disagree():
    agreeing = runs_of({"coupled": 0.55, "random": 0.5})
    apart = [
        *runs_of({"coupled": 0.65, "random": 0.5}, supervised=(0,)),
        *runs_of({"coupled": 0.45, "random": 0.5}, supervised=(1,)),
    ]
    narrow, wide = (compare(runs, ("coupled", "random")) for runs in (agreeing, apart))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_sign_flip_goes_through_all_patterns():
    differences = torch.tensor([0.5, -0.2, 1.0, 0.3])
    patterns = itertools.product((1, -1), repeat=4)
    sums = [abs(sum(s * d for s, d in zip(p, differences, strict=True))) for p in patterns]
    expected = sum(value >= sums[0] - 1e-6 for value in sums) / 16
    assert sign_flip(differences) == expected
    with pytest.raises(ValueError, match="21 pairs have too many sign patterns; 20 at most"):
        sign_flip(torch.ones(21))


def test_holm_is_monotone_and_never_above_one():
    assert holm([0.5, 0.6, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert holm([]) == []


def difference(low, estimate, high, pairs=16):
    return Difference(
        pairs=pairs, estimate=estimate, low=low, high=high, deviation=1.0, p_value=0.01
    )


GOOD, NONE = difference(1.5, 2.5, 3.5), difference(-1.0, -0.1, 0.8)


@pytest.mark.parametrize(
    ("headroom", "random", "position", "expected"),
    [
        (GOOD, GOOD, GOOD, "supports"),
        (NONE, GOOD, GOOD, "void"),
        (GOOD, NONE, GOOD, "refutes"),
        (GOOD, GOOD, NONE, "inconclusive"),
        (difference(0.1, 0.9, 1.7), GOOD, GOOD, "void"),
        (GOOD, difference(0.2, 0.9, 1.6), GOOD, "inconclusive"),
        (GOOD, difference(-0.5, 1.0, 2.5), NONE, "inconclusive"),
        (GOOD, difference(0.2, 0.5, 0.8), GOOD, "refutes"),
        (GOOD, None, GOOD, "no data"),
    ],
)
def test_the_decision_rule(headroom, random, position, expected):
    found = dict(zip((HEADROOM, *CONFIRMATORY[:2]), (headroom, random, position), strict=True))
    assert verdict(found) == expected


def test_the_conclusion_says_how_much_is_in_and_what_else_may_help():
    found = dict.fromkeys((HEADROOM, *CONFIRMATORY), GOOD)
    assert "provisional" not in conclusion(found)
    few = dict.fromkeys((HEADROOM, *CONFIRMATORY), difference(1.5, 2.5, 3.5, pairs=3))
    assert "3 of 16 planned pairs" in conclusion(few)
    positional = found | {CONFIRMATORY[0]: NONE}
    assert "amplification or position" in conclusion(positional)
    assert "0 of 16" in conclusion({})


@pytest.mark.parametrize("seeds", [(), (101,), (101, 102)])
def test_the_report_is_right_for_any_number_of_runs(tmp_path, monkeypatch, seeds):
    monkeypatch.setattr("benchmarks.credit.contrasts.RESAMPLES", 200)
    shares = {arm.name: 0.5 + 0.01 * place for place, arm in enumerate(CORE)}
    runs = runs_of(shares, seeds=seeds, supervised=(0,))
    text = report(runs)
    assert f"{len(seeds)} of 16 planned pairs" in text
    assert ("| uniform | uniform (GRPO) |" in text) == bool(seeds)
    draw_comparison(runs, list(shares), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["contrasts.py", "verdict.py"])
def test_the_plan_names_the_statistics_and_the_decision_by_their_hash(name):
    digest = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
    assert f"{digest}  {name}" in (FOLDER / "PLAN.md").read_text()
