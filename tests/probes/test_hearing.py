"""One seam per model: changes first, in their order, then everyone who listens."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from attnscope.probes.hearing import changes_on, changing, hearing, unchanged


def _nothing(module):
    return ()


def _times(factor):
    return lambda call: replace(call, output=call.output * factor)


def _heard(model, *contexts):
    """Return what a listener hears of the first layer inside some contexts."""
    found = []

    def listener(call):
        found.append(call.output)
        return call.output

    with ExitStack() as stack, torch.no_grad():
        for context in contexts:
            stack.enter_context(context)
        stack.enter_context(hearing(model, listener, _nothing))
        model(input_ids=torch.tensor([[6, 7, 8]]))
    return found[0]


def test_a_listener_hears_what_the_model_goes_on_with(model):
    plain = _heard(model)
    add = changing(model, ["add"], lambda call: replace(call, output=call.output + 1))
    both = _heard(model, changing(model, ["double"], _times(2)), add)
    assert torch.equal(both, plain * 2 + 1)


def test_the_model_can_be_had_unchanged_in_between(model):
    plain = _heard(model)
    assert torch.equal(_heard(model, changing(model, ["x"], _times(2)), unchanged(model)), plain)


def test_two_listeners_hear_one_pass(model):
    counts = [0, 0]

    def counting(number):
        def listener(call):
            counts[number] += 1
            return call.output

        return listener

    with hearing(model, counting(0), _nothing), hearing(model, counting(1), _nothing):
        model(input_ids=torch.tensor([[6, 7]]))
    assert counts == [3, 3]


def test_changes_are_named_while_they_are_on(model):
    assert changes_on(model) == ()
    with changing(model, ["one"]), changing(model, ["two"]):
        assert changes_on(model) == ("one", "two")
        with unchanged(model):
            assert changes_on(model) == ()
    assert changes_on(model) == ()


def test_everything_is_restored_after_an_error(model):
    before = repr(model.config), model.config._attn_implementation
    broken = changing(model, ["broken"], lambda call: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _heard(model, broken)
    assert (repr(model.config), model.config._attn_implementation) == before
    assert changes_on(model) == ()
    assert torch.isfinite(_heard(model)).all()
