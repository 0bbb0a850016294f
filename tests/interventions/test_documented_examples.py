"""The examples of interventions/README.md, run in order, as a reader would."""

import re
from pathlib import Path
from typing import Any

import pytest

from attnscope.probes.hearing import changes_on

PAGE = Path(__file__).parents[2] / "interventions" / "README.md"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, found)  # noqa: S102 - the examples of our own page
    return found


def said(names: dict[str, Any], answer: str) -> tuple[int, ...]:
    encoded = names[answer]
    return tuple(encoded.model_inputs["input_ids"][0, len(names["prompt"]) :].tolist())


def test_every_example_answers_and_leaves_the_model_as_it_was(names):
    answers = ("answer", "louder", "silenced", "blind", "reinforced", "both", "loud")
    assert all(said(names, answer) for answer in answers)
    assert changes_on(names["subject"].model) == ()


def test_a_trace_says_what_was_on(names):
    notes = names["trace"].provenance.notes["interventions"]
    assert "VHR(alpha=2.0" in str(notes)
    assert "LocoRE(beta=0.15" in str(notes)


def test_who_no_longer_sees_says_something_else(names):
    plain = names["subject"].generate(names["prompt"])
    names = names | {"plain": plain}
    assert said(names, "blind")[0] == said(names, "plain")[0]  # the prompt sees
    assert said(names, "blind") != said(names, "plain")


def test_a_method_of_ones_own_is_heard_by_others(names):
    from attnscope.interventions import intervening
    from attnscope.probes import capture

    subject, prompt = names["subject"], names["prompt"]
    with intervening(subject, names["Louder"](2.0)):
        trace = capture(subject, prompt)
    assert "Louder(factor=2.0)" in str(trace.provenance.notes["interventions"])
