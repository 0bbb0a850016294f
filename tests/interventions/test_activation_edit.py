import pytest
import torch

from attnscope.interventions import ActivationEdit, InterventionError, intervening
from attnscope.probes import Collector, capture


def test_only_the_named_entries_are_set(made):
    subject, encoded = made("Llama")
    edit = ActivationEdit(dimensions=[2, -1], values=[7.0, -3.0], positions=[0, 4], layers=[1])
    plain = capture(subject, encoded, into=Collector(hidden=True)).observations
    seen = []
    hook = subject.model.model.layers[1].register_forward_hook(
        lambda module, args, output: seen.append(args[0].detach().clone())
    )
    with intervening(subject, edit, encoded=encoded):
        capture(subject, encoded)
    hook.remove()
    expected = plain[1].hidden.clone()
    expected[[0, 4], 2], expected[[0, 4], 31] = 7.0, -3.0
    torch.testing.assert_close(seen[0][0], expected)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (ActivationEdit(dimensions=[99]), "no dimension 99 in a hidden state of width 32"),
        (ActivationEdit(dimensions=[1], values=[1.0, 2.0]), "2 values for 1 dimensions"),
        (ActivationEdit(dimensions=[1], layers=[5]), "no layer 5"),
    ],
)
def test_what_does_not_exist_is_refused(made, edit, message):
    subject, encoded = made("Llama")
    with (
        pytest.raises(InterventionError, match=message),
        intervening(subject, edit, encoded=encoded),
    ):
        subject.model(**encoded.model_inputs)
