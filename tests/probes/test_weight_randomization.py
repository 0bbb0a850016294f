"""Explanations of models whose weights are destroyed layer by layer."""

import pytest
import torch
from torch import nn

from attnscope.probes import (
    CaptureError,
    Logit,
    attribute,
    cascaded_layers,
    weight_sensitivity,
)


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(12, 12) for _ in range(3)])

    def explain(self) -> torch.Tensor:
        state = torch.eye(12)
        for layer in self.layers:
            state = layer(state).tanh()
        return state.sum(-1).detach()


def test_an_explanation_of_the_weights_changes_and_the_weights_come_back() -> None:
    chain = Chain()
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    table = weight_sensitivity(chain, chain.explain)
    assert table.layer.tolist() == ["layers.2", "layers.1", "layers.0"]
    assert table.correlation.iloc[-1] < 0.9
    assert table.correlation.between(-1, 1).all()
    for name, value in chain.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_explanation_of_the_input_alone_stays() -> None:
    chain = Chain()
    table = weight_sensitivity(chain, lambda: torch.arange(6.0), layers=["layers.0"])
    assert table.correlation.tolist() == [pytest.approx(1.0)]
    assert table.absolute.tolist() == [pytest.approx(1.0)]


def test_the_weights_come_back_after_a_failure() -> None:
    chain = Chain()
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    calls = []

    def failing() -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("no memory")
        return torch.arange(4.0)

    with pytest.raises(RuntimeError, match="no memory"):
        weight_sensitivity(chain, failing)
    assert all(torch.equal(value, before[name]) for name, value in chain.state_dict().items())


def test_a_model_s_saliency_depends_on_its_weights(subject, model, tokens) -> None:
    encoded = subject.encode({"input_ids": tokens[:, :9]})
    assert cascaded_layers(model) == ["model.layers.2", "model.layers.1", "model.layers.0"]
    before = model(tokens).logits
    table = weight_sensitivity(
        model,
        lambda: attribute(subject, encoded, target=Logit(7), method="saliency").values,
        layers=["model.layers.1"],
    )
    assert table.correlation[0] < 1
    assert torch.equal(model(tokens).logits, before)


def test_layers_that_do_not_exist_are_refused() -> None:
    with pytest.raises(CaptureError, match=r"no layer \['head'\] in Chain"):
        weight_sensitivity(Chain(), lambda: torch.zeros(2), layers=["head"])
    with pytest.raises(CaptureError, match="Linear has no numbered layers"):
        cascaded_layers(nn.Linear(1, 1))
