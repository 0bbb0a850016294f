"""Stored traces give the readings that their policy gives."""

from dataclasses import replace

import pytest
import torch

from attnscope.attention import DenseAttention
from attnscope.credit import (
    REV,
    RULES,
    Coupled,
    CreditError,
    ReadingPlan,
    Redistributed,
    TokenClass,
    calibrate,
    calibrate_traces,
    padded_batch,
    plan_for,
    read_responses,
    trace_readings,
)
from attnscope.models.subjects.countdown import load_subject, prompt_chat, sample_problems
from attnscope.probes import Subject, capture
from attnscope.traces import Segment, Segments, TokenSequence, open_trace
from tests.credit.conftest import tiny_policy

NEEDS = frozenset({"local_waad", "global_fai", "entropy", "log_probability"})
SMALL = REV.changed(near=1, far=4)


def batch_of(traces):
    """Return the tokens of traces in rows, padded on the right."""
    shape = len(traces), max(len(trace.tokens) for trace in traces)
    ids, attended, own = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    for row, trace in enumerate(traces):
        ids[row, : len(trace.tokens)] = torch.tensor(trace.sequences[trace.main_sequence].ids)
        attended[row, : len(trace.tokens)] = 1
        own[row, trace.segments["response"]] = 1
    return padded_batch(ids, attended, own)


@pytest.fixture(scope="module")
def reasoner():
    policy, tokenizer = load_subject()
    subject = Subject(policy, tokenizer)
    problems = sample_problems(2, 4, numbers=3, split="test")
    answers = [subject.generate(prompt_chat(own), max_new_tokens=90) for own in problems]
    return policy, [capture(subject, answer) for answer in answers]


@pytest.mark.parametrize("rule", [Coupled(), Coupled(preset=REV.changed(layers=(0, 5)))])
def test_the_reasoner_and_its_stored_traces_read_alike(reasoner, rule, tmp_path):
    policy, traces = reasoner
    for number, trace in enumerate(traces):
        trace.save(tmp_path / f"{number}.safetensors")
    stored = [open_trace(tmp_path / f"{number}.safetensors") for number in range(len(traces))]
    plan = plan_for(rule, extra=NEEDS)
    expected = read_responses(policy, batch_of(traces), plan)
    found = trace_readings(stored, plan)
    unknown = found.entropy.isnan()  # after the last token of a trace nothing is stored
    expected = replace(expected, entropy=expected.entropy.masked_fill(unknown, torch.nan))
    for name in NEEDS:
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-5, equal_nan=True
        )
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(rule.assign(found).weights, rule.assign(expected).weights)
    assert not found.entropy[found.mask.nonzero(as_tuple=True)].isnan().any()


def test_heads_are_ranked_as_the_policy_ranks_them(reasoner):
    policy, traces = reasoner
    stored, run = calibrate_traces(traces, REV), calibrate(policy, batch_of(traces), REV)
    assert stored.layers == run.layers == (2, 3, 4)
    assert torch.equal(stored.local_heads, run.local_heads)
    assert torch.equal(stored.global_heads, run.global_heads)
    torch.testing.assert_close(stored.spans, run.spans, atol=1e-4, rtol=1e-5)
    named = trace_readings(traces, plan_for(Coupled(), stored))
    ranked = trace_readings(traces, plan_for(Coupled()))
    torch.testing.assert_close(named.local_waad, ranked.local_waad, equal_nan=True)


def made(policy, segments=((3, 9),), count=10, **changes):
    """Return a trace of a policy over arbitrary tokens, with a response where one is told."""
    ids = torch.arange(6, 6 + count)[None]
    trace = capture(Subject(policy), {"input_ids": ids})
    runs = Segments(tuple(Segment(name="response", start=a, stop=b) for a, b in segments))
    text = trace.sequences[trace.main_sequence]
    own = TokenSequence(name=text.name, tokens=text.tokens, ids=text.ids, segments=runs)
    return replace(trace, sequences=dict(trace.sequences) | {text.name: own}, **changes)


@pytest.mark.parametrize("changes", [{}, {"sliding_window": 4, "use_sliding_window": True}])
def test_gaps_in_a_response_and_windows_are_kept(changes):
    policy = tiny_policy(**changes, **({"max_window_layers": 0} if changes else {}))
    traces = [made(policy, ((2, 5), (7, 10)), 12), made(policy, ((4, 8),), 9)]
    plan = ReadingPlan(needs=NEEDS, preset=SMALL)
    found, expected = trace_readings(traces, plan), read_responses(policy, batch_of(traces), plan)
    assert found.mask[0].tolist() == [True] * 3 + [False] * 2 + [True] * 3
    for name in ("local_waad", "global_fai", "log_probability"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-5, equal_nan=True
        )


def test_rules_that_read_nothing_need_no_attention():
    found = trace_readings([made(tiny_policy())], plan_for(RULES["uniform"].make()))
    assert found.local_waad is None
    assert found.entropy is None
    assert found.mask.sum() == 6


def test_what_a_trace_lacks_is_told():
    policy = tiny_policy()
    trace = made(policy)
    plan = ReadingPlan(needs=NEEDS, preset=SMALL)
    with pytest.raises(CreditError, match="trace 1 has no response segment; it has"):
        trace_readings([trace, made(policy, segments=())], plan)
    with pytest.raises(CreditError, match="trace 0 was captured without entropy"):
        trace_readings([replace(trace, entropies=None)], plan)
    with pytest.raises(
        CreditError, match="a reward model, of which a policy's trace knows nothing"
    ):
        trace_readings([trace], plan_for(Redistributed()))
    with pytest.raises(CreditError, match="there is no trace to read"):
        trace_readings([], plan)
    text = trace.sequences[trace.main_sequence]
    unnamed = replace(trace, sequences={text.name: replace(text, ids=None)})
    with pytest.raises(CreditError, match="trace 0 was captured without ids"):
        trace_readings([unnamed], plan_for(TokenClass(tokens=frozenset({7}))))


def test_traces_of_different_models_are_refused():
    plan = ReadingPlan(needs=NEEDS, preset=SMALL)
    trace = made(tiny_policy())
    with pytest.raises(
        CreditError, match=r"trace 0 holds the layers \[0, 1, 2, 3, 4, 5\], trace 1"
    ):
        trace_readings([trace, trace.select([1, 2])], plan)
    other = made(tiny_policy(num_attention_heads=2))
    with pytest.raises(CreditError, match=r"the traces have \[4, 2\] heads per layer"):
        trace_readings([trace, other], plan)
    with pytest.raises(CreditError, match="layers \\[7\\] cannot be read"):
        trace_readings([trace], ReadingPlan(needs=NEEDS, preset=SMALL.changed(layers=(7,))))


def test_other_attention_than_causal_softmax_is_refused():
    trace = made(tiny_policy())
    (seen,) = trace.select([2]).observed
    text = trace.sequences["text"]
    pattern = DenseAttention(seen.attention.dense())
    dense = replace(seen, attention=pattern, queries=text, keys=text, value=None)
    with pytest.raises(CreditError, match=r"of trace 0 is DenseAttention.*causal softmax"):
        trace_readings(
            [replace(trace, observations=[dense])], ReadingPlan(needs=NEEDS, preset=SMALL)
        )
