import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from attnscope.interventions.places import Places
from attnscope.probes import Subject


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_models_have_the_places_of_what_was_compiled(whole):
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=20,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    plain = Places(Subject(model)).stacks(lambda place: True)
    assert plain == {"model.layers.self_attn": 2}
    layers = model.model.layers
    for number, layer in enumerate(layers):
        layers[number] = torch.compile(layer, backend="eager")
    found = torch.compile(model, backend="eager") if whole else model
    assert Places(Subject(found)).stacks(lambda place: True) == plain
