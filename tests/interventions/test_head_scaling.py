import pytest
import torch

from attnscope.interventions import HeadAblation, HeadScaling, InterventionError


def test_only_the_named_heads_are_scaled(made, heard):
    subject, encoded = made("GPT-2")
    plain = heard(subject, encoded)
    changed = heard(subject, encoded, HeadScaling(heads=[1, -1], factor=0.5, layers=[0]))
    factors = torch.tensor([1.0, 0.5, 1.0, 0.5])[:, None, None]
    assert torch.equal(changed[0].output, plain[0].output * factors)


def test_factor_zero_is_ablation(made, heard):
    subject, encoded = made("Llama")
    one = heard(subject, encoded, HeadScaling(heads=[2], factor=0.0, layers=[0]))[1]
    other = heard(subject, encoded, HeadAblation(heads=[2], layers=[0]))[1]
    torch.testing.assert_close(one.output, other.output)


def test_a_mean_stands_in_for_a_head(made, heard):
    subject, encoded = made("Llama")
    mean = torch.arange(8.0)[None]
    changed = heard(subject, encoded, HeadAblation(heads=[3], mean={0: mean}))
    assert torch.equal(changed[0].output[0, 3], mean.expand(len(encoded), -1))


def test_a_mean_of_another_shape_is_refused(made, heard):
    subject, encoded = made("Llama")
    with pytest.raises(InterventionError, match=r"\(1, 8\) \(head, dim\) is needed"):
        heard(subject, encoded, HeadAblation(heads=[3], mean={0: torch.zeros(2, 8)}))


def test_a_stack_of_the_vision_tower_can_be_named(made, heard):
    subject, encoded = made("LLaVA")
    stack = next(name for name in _stacks(subject) if "vision" in name)
    plain = heard(subject, encoded)[0].output
    changed = heard(subject, encoded, HeadScaling(factor=5.0, stack=stack))[0].output
    assert not torch.allclose(plain, changed, atol=1e-3)


def _stacks(subject):
    from attnscope.interventions.places import Places

    return Places(subject).stacks(lambda place: True)
