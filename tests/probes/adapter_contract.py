"""The contract that every adapter keeps: a test module inherits it and says what its cases are."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attnscope import capture
from attnscope.probes import Collector, Subject
from attnscope.probes.hearing import hearing

__all__ = ["AdapterCase", "AdapterContract", "listening", "speech", "state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCase:
    """A tiny model, its inputs, and the maps `head query key` that it is known to compute.

    `exact` says whether a capture runs the kernel that the model runs without one.
    """

    model: nn.Module
    inputs: Mapping[str, Tensor]
    maps: Sequence[Tensor]
    exact: bool = False


def speech(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return what a model says, its last hidden state where it has no logits."""
    output = model(**inputs)
    if isinstance(output, tuple):
        return output[0]
    for field in ("logits", "last_hidden_state"):
        output = getattr(output, field, output)
    return output


def state(model: nn.Module) -> list[object]:
    """Return everything that a capture touches and has to put back."""
    return [
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [m.training for m in model.modules()],
        [(p.grad is None, p.requires_grad) for p in model.parameters()],
        sorted(vars(model)),
        repr(getattr(model, "config", None)),
        repr(getattr(model, "cfg", None)),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.overrides._len_torch_function_stack(),
        functional.scaled_dot_product_attention,
    ]


def listening(model: nn.Module, listener) -> AbstractContextManager[None]:
    """Return the context in which all adapters hear a model."""
    return hearing(model, listener, lambda module: ())


class AdapterContract:
    """Inherit, and give a fixture `case`."""

    def test_maps_are_those_that_the_model_is_known_to_compute(self, case):
        trace = capture(Subject(case.model), case.inputs)
        assert len(trace.sites) == len(case.maps)
        for site, expected in zip(trace.sites, case.maps, strict=True):
            found = trace.attention[site.stack, site.layer].dense()
            torch.testing.assert_close(found, expected.to(found.dtype), atol=2e-6, rtol=1e-4)

    def test_rows_are_distributions_and_causal_sites_look_back(self, case):
        for observation in capture(Subject(case.model), case.inputs).observations:
            attention = observation.attention
            if attention.stochastic:
                mass = attention.row_mass()[attention.valid_queries.expand(attention.shape[:-1])]
                torch.testing.assert_close(mass, torch.ones_like(mass), atol=1e-5, rtol=0)
            if attention.causal and attention.offset is not None:
                assert not attention.dense().triu(1 + attention.offset).any()

    def test_values_read_through_the_operator_are_the_outputs(self, case):
        errors = []

        def compare(call):
            read = call.attention.apply(call.value)
            errors.append(float((read - call.output).abs().max()))
            return call.output

        with torch.no_grad(), listening(case.model, compare):
            speech(case.model, case.inputs)
        assert errors
        assert max(errors) < 1e-5

    def test_the_model_says_what_it_says_without_a_capture(self, case):
        with torch.no_grad():
            before = speech(case.model, case.inputs)
            with listening(case.model, lambda call: call.output):
                during = speech(case.model, case.inputs)
            after = speech(case.model, case.inputs)
        assert torch.equal(before, after)
        if case.exact:
            assert torch.equal(before, during)
        torch.testing.assert_close(before, during, atol=1e-5, rtol=1e-4)

    def test_what_the_listener_returns_is_what_the_model_goes_on_with(self, case):
        with torch.no_grad():
            before = speech(case.model, case.inputs)
            with listening(case.model, lambda call: call.output * 2 + 1):
                changed = speech(case.model, case.inputs)
        assert not torch.allclose(before, changed, atol=1e-3)

    def test_gradients_are_those_of_the_heads_outputs(self, case):
        trace = capture(Subject(case.model), case.inputs, gradient="logit")
        sizes = [float(one.gradient.abs().max()) for one in trace.observations]
        assert all(size >= 0 for size in sizes)
        assert max(sizes) > 0

    @pytest.mark.parametrize("training", [True, False])
    def test_everything_is_put_back(self, case, training):
        modes = [module.training for module in case.model.modules()]
        case.model.train(training)
        try:
            with torch.no_grad():  # some libraries finish building a model in its first pass
                speech(case.model, case.inputs)
            before = state(case.model)
            capture(Subject(case.model), case.inputs)
            assert state(case.model) == before
            with pytest.raises(RuntimeError, match="disk full"):
                capture(Subject(case.model), case.inputs, into=_Failing())
            assert state(case.model) == before
        finally:
            for module, mode in zip(case.model.modules(), modes, strict=True):
                module.training = mode


class _Failing(Collector):
    def record(self, observation):
        raise RuntimeError("disk full")
