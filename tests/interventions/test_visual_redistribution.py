import pytest
import torch
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from attnscope.interventions import VAR, all_but_last, redistributed, visual_redistribution
from attnscope.metrics import MetricError
from attnscope.metrics.visual_sink import sink_dimension_value
from attnscope.probes import Collector, capture


@bounds(deadline=None, max_examples=25)
@given(st.floats(0, 1), st.integers(0, 2**31))
def test_row_sums_stay(removed, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(3, 8, generator=generator, dtype=torch.float64)
    sinks = torch.rand(8, generator=generator) < 0.4
    content = (torch.rand(8, generator=generator) < 0.5) & ~sinks
    new = redistributed(rows, sinks, content, removed)
    torch.testing.assert_close(new.sum(-1), rows.sum(-1))
    assert (new >= 0).all()
    assert torch.equal(new[:, ~sinks & ~content], rows[:, ~sinks & ~content])
    assert torch.equal(redistributed(rows, sinks, content, 0.0), rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"rho": 0.0, "least_mass": 0.0},
        {"rho": 0.35, "least_mass": 0.4},
        {"rho": 0.5, "least_mass": 0.2, "by_portion": True, "needs_visual_sink": True},
    ],
)
def test_rows_after_the_image_are_those_of_the_formula(made, heard, settings):
    subject, encoded = made("LLaVA")
    state = capture(subject, encoded, into=Collector(hidden=True)).observations
    hidden = next(one.hidden for one in state if one.queries.name == "text")
    value = sink_dimension_value(hidden, range(32))
    image = torch.zeros(len(encoded), dtype=torch.bool)
    image[encoded.sequences["text"].segments["image"]] = True
    tau = float(value.median())
    sinks = value >= tau
    assert (sinks & image).any()
    assert (~sinks & image).any()
    change = VAR(dimensions=range(32), tau=tau, removed=0.5, layers=[0], **settings)
    plain, changed = heard(subject, encoded)[0], heard(subject, encoded, change)[0]
    expected = plain.attention.dense().clone()
    touched = 0
    for head in range(4):
        for query in range(18, len(encoded)):
            row = expected[0, head, query]
            mass, seen = row[image].sum(), row[image & ~sinks].sum()
            enough = (
                1 - seen / mass <= settings["rho"]
                if settings.get("by_portion")
                else (seen / mass >= settings["rho"])
            )
            if mass >= settings["least_mass"] and enough:
                touched += 1
                omega = 0.5 * row[sinks].sum()
                new = torch.where(sinks, row * 0.5, row)
                expected[0, head, query] = torch.where(
                    image & ~sinks, row + omega * row / seen, new
                )
    assert touched
    torch.testing.assert_close(changed.attention.dense(), expected, atol=1e-6, rtol=1e-4)
    whole = plain.value.repeat_interleave(2, dim=1)
    torch.testing.assert_close(changed.output, expected @ whole, atol=1e-5, rtol=1e-3)
    assert torch.equal(changed.output[:, :, :18], plain.output[:, :, :18])


def test_heads_that_do_not_look_at_the_image_are_untouched_to_the_bit(made, heard):
    subject, encoded = made("LLaVA")
    change = VAR(dimensions=range(32), tau=1.0, least_mass=1.1, layers=[0])
    plain, changed = heard(subject, encoded)[0], heard(subject, encoded, change)[0]
    assert torch.equal(changed.output, plain.output)


@pytest.mark.parametrize("each_step", [False, True])
def test_a_long_answer_outgrows_what_was_laid_out_for_it(made, answered, monkeypatch, each_step):
    monkeypatch.setattr(visual_redistribution, "_ROOM", 2)
    subject, encoded = made("LLaVA")
    change = VAR(
        dimensions=range(32), tau=2.8, removed=0.9, rho=0.0, least_mass=0.0, layers=[0, 1],
        each_step=each_step,
    )  # fmt: skip
    cached, steps = answered(subject, encoded, change, max_new_tokens=9)
    again, whole = answered(subject, encoded, change, max_new_tokens=9, use_cache=False)
    assert torch.equal(cached, again)
    torch.testing.assert_close(steps, whole, atol=1e-4, rtol=1e-4)


def test_a_tau_that_nothing_reaches_is_refused(made, heard):
    subject, encoded = made("LLaVA")
    with pytest.raises(MetricError, match=r"no hidden state of width 32 reaches tau=20"):
        heard(subject, encoded, VAR(dimensions=[0]))


def test_published_code_keeps_what_the_paper_removes():
    code = VAR.as_published_code([3])
    assert code.removed == pytest.approx(0.4)
    assert list(code.layers(32)) == list(range(2, 32))
    assert list(all_but_last(32)) == list(range(31))
