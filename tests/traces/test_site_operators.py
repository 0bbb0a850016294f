"""The mapping from stack and layer to operator."""

import pytest

from attnscope.traces import TraceError


def test_it_is_a_mapping_over_stack_and_layer(make_trace):
    attention = make_trace(layers=3).attention
    stack = "model.layers.self_attn"
    assert list(attention) == [(stack, 0), (stack, 1), (stack, 2)]
    assert len(attention) == 3
    assert (stack, 2) in attention
    assert -3 in attention
    assert all(key not in attention for key in [(stack, 3), ("encoder", 0), 3, "s", (1, 2, 3)])
    assert attention.get(7) is None
    assert [operator.heads for operator in attention.values()] == [4, 4, 4]
    assert repr(attention) == "SiteOperators(attention: {'model.layers.self_attn': [0, 1, 2]})"


def test_negative_layers_count_from_the_end(make_trace):
    attention = make_trace(layers=3).attention
    assert attention[-1] is attention[2]
    assert attention["model.layers.self_attn", -3] is attention[0]


@pytest.mark.parametrize("layer", [2, -3, 10**30])
def test_an_unknown_layer_is_refused_with_a_list_of_the_known(make_trace, layer):
    expected = rf"no layer {layer} of attention in stack '.*self_attn'; there are \[0, 1\]"
    with pytest.raises(TraceError, match=expected):
        make_trace(length=4).attention[layer]


def test_an_unknown_stack_is_refused_with_a_list_of_the_known(make_trace):
    expected = r"no attention of a stack 'encoder'; this trace has \['model.layers.self_attn'\]"
    with pytest.raises(TraceError, match=expected) as caught:
        make_trace(length=4).attention["encoder", 0]
    assert isinstance(caught.value, KeyError)


def test_missing_gradients_are_said_to_be_missing(make_sequence, make_observation):
    from attnscope.traces import Trace

    text = make_sequence(4)
    seen = [make_observation(text, layer, gradient=False) for layer in range(2)]
    trace = Trace(observations=seen, sequences={"text": text}, main_sequence="text")
    with pytest.raises(TraceError, match="this trace holds no gradient"):
        trace.gradient[0]
    some = Trace(
        observations=[seen[0], make_observation(text, 1)],
        sequences={"text": text},
        main_sequence="text",
    )
    with pytest.raises(TraceError, match=r"no layer 0 of gradient in stack .* there are \[1\]"):
        some.gradient[0]


def test_heads_are_those_of_the_whole_operator(make_trace):
    attention = make_trace().attention
    assert attention.heads(0, [3, -4]).dense().equal(attention[0].dense()[[3, 0]])
    assert attention.heads(0, 1).dense().equal(attention[0].dense()[1:2])


@pytest.mark.parametrize("heads", [4, -5, [0, 9], []])
def test_unknown_heads_are_refused(make_trace, heads):
    with pytest.raises(TraceError, match=r"heads \[.*\]: model.layers.0.self_attn has 4 heads"):
        make_trace(length=4).attention.heads(0, heads)
