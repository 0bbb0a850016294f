"""Files whose seal is right, but whose tensors or facts are not those of the operators."""

import json

import pytest

from attnscope.traces import Trace, TraceError, open_trace
from attnscope.traces.layout import seal, unseal

SWAPPED = {"value": "0.hidden", "hidden": "0.value", "gradient": "0.gradient"}


@pytest.fixture
def edit(stored):
    """Return a function that changes what a file says of itself, and seals it anew."""

    def change(path, value):
        content = stored.read_bytes()
        origin = 8 + int.from_bytes(content[:8], "little")
        text, entries = unseal(content[:origin])
        plain = inner = json.loads(text)
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        stored.write_bytes(seal(json.dumps(plain), entries) + content[origin:])
        return stored

    return change


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (["sites", 0, "summary", "kind"], "MagicAttention", "holds a MagicAttention, which"),
        (["sites", 0, "parts"], {}, "other tensors than its header names: 0.attention.key, "),
        (["sites", 0, "parts", "query"], "nowhere", "names: 0.attention.query, nowhere"),
        (["sites", 0, "fields", "hidden"], "nowhere", "names: 0.hidden, nowhere"),
        (["sites", 0, "fields", "logits"], "0.hidden", "unknown fields of a site"),
        (["sites", 0, "fields"], SWAPPED, r"values of .* have shape \(64, 5\)"),
        (["sites", 0, "summary", "has_gradient"], False, "is not sure whether"),
        (["sites", 0, "summary", "shape"], [4, 64, 65], "has shape|keys"),
        (["sites", 1, "summary", "site", "layer"], 0, "was observed twice"),
        (["main_sequence"], "speech", "no sequence 'speech'"),
        (["vectors"], {"logits": "token.entropies"}, "names: token.log_probabilities"),
    ],
)
def test_a_description_of_other_tensors_is_refused_when_it_is_opened(edit, path, value, fault):
    with pytest.raises(TraceError, match=rf"stored\.safetensors: .*{fault}"):
        open_trace(edit(path, value))


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (["sites", 0, "facts"], {}, "cannot be built from what is stored"),
        (["sites", 0, "summary", "kind"], "DenseAttention", "DenseAttention of .* cannot be built"),
        (["sites", 0, "summary", "kind"], "OuterAttention", "OuterAttention of .* cannot be built"),
    ],
)
def test_facts_that_do_not_make_the_operator_are_refused_when_it_is_read(edit, path, value, fault):
    with pytest.raises(TraceError, match=rf"stored\.safetensors: .*{fault}"):
        _ = open_trace(edit(path, value)).attention[0]


def test_an_operator_of_another_shape_than_promised_is_refused(
    edit, stored, make_sequence, make_observation
):
    text = make_sequence(64)
    seen = make_observation(text, gradient=False)
    Trace(observations=[seen], sequences={"text": text}, main_sequence="text").save(stored)
    trace = open_trace(edit(["sites", 0, "summary", "shape"], [2, 64, 64]))
    with pytest.raises(TraceError, match=r"should have shape \(2, 64, 64\), not \(4, 64, 64\)"):
        _ = trace.attention[0]
