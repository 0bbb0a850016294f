"""capture() shows what the model did, and leaves nothing behind."""

import pytest
import torch

import attnscope
from attnscope.probes import (
    CaptureError,
    Collector,
    Logit,
    LogitDifference,
    Subject,
    TokenLoss,
    capture,
    capture_each,
)


def eager_maps(model, tokens):
    model.set_attn_implementation("eager")
    try:
        return model(tokens, output_attentions=True)
    finally:
        model.set_attn_implementation("sdpa")


def traces_of_capture(model):
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    hooks = sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )
    tables = (
        sorted(ALL_ATTENTION_FUNCTIONS.valid_keys()),
        sorted(ALL_MASK_ATTENTION_FUNCTIONS.valid_keys()),
    )
    return hooks, tables, model.config._attn_implementation, model.training


def test_maps_log_probabilities_and_entropies_are_the_model_s(subject, model, tokens):
    trace = capture(subject, {"input_ids": tokens})
    output = eager_maps(model, tokens)
    for layer, pattern in enumerate(output.attentions):
        torch.testing.assert_close(trace.attention[layer].dense(), pattern[0], atol=1e-6, rtol=1e-5)
    log_p = output.logits[0].log_softmax(-1)
    expected = log_p[torch.arange(16), tokens[0, 1:]]
    torch.testing.assert_close(trace.log_probabilities[1:], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        trace.entropies[1:], -(log_p.exp() * log_p).sum(-1)[:-1], atol=1e-5, rtol=1e-4
    )
    assert trace.log_probabilities[0].isnan()
    assert trace.entropies[0].isnan()


def test_a_capture_leaves_the_model_as_it_was(subject, model, tokens):
    model.train()
    before = traces_of_capture(model)
    capture(subject, {"input_ids": tokens}, gradient="loss", into=Collector(hidden=True))
    assert traces_of_capture(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_a_capture_that_fails_halfway_leaves_the_model_as_it_was(subject, model, tokens):
    class Failing(Collector):
        def record(self, observation):
            super().record(observation)
            if observation.site.layer == 1:
                raise RuntimeError("disk full")

    before = traces_of_capture(model)
    with pytest.raises(RuntimeError, match="disk full"):
        capture(subject, {"input_ids": tokens}, into=Failing())
    assert traces_of_capture(model) == before
    assert len(capture(subject, {"input_ids": tokens}).sites) == 3


def test_gradients_equal_those_of_materialized_maps(subject, model, tokens):
    trace = capture(subject, {"input_ids": tokens}, gradient="loss")
    model.set_attn_implementation("eager")
    output = model(tokens, output_attentions=True)
    for pattern in output.attentions:
        pattern.retain_grad()
    torch.nn.functional.cross_entropy(output.logits[0, :-1], tokens[0, 1:]).backward()
    model.set_attn_implementation("sdpa")
    model.zero_grad(set_to_none=True)
    visible = torch.ones(17, 17).tril().bool()
    for layer, pattern in enumerate(output.attentions):
        ours = trace.gradient[layer].dense()
        torch.testing.assert_close(
            ours[:, visible], pattern.grad[0][:, visible], atol=1e-6, rtol=1e-4
        )
    assert trace.provenance.gradient_target == "loss"


def test_gradients_are_taken_of_frozen_models_too(subject, model, tokens):
    expected = capture(subject, {"input_ids": tokens}, gradient="logit").gradient[0].dense()
    model.requires_grad_(False)
    try:
        frozen = capture(subject, {"input_ids": tokens}, gradient="logit").gradient[0].dense()
    finally:
        model.requires_grad_(True)
    torch.testing.assert_close(frozen, expected)
    assert float(frozen.abs().max()) > 0


def test_a_loss_at_one_token_has_no_gradient_in_later_rows(subject, tokens):
    trace = capture(subject, {"input_ids": tokens}, gradient=TokenLoss((6,)))
    gradient = trace.gradient[1].dense()
    assert float(gradient[:, 6:].abs().max()) == 0  # row 5 predicts token 6
    assert float(gradient[:, 5].abs().max()) > 0


def test_logit_targets(subject, model, tokens):
    difference = capture(subject, {"input_ids": tokens}, gradient=LogitDifference(7, 9, position=4))
    parts = [capture(subject, {"input_ids": tokens}, gradient=Logit(token, 4)) for token in (7, 9)]
    expected = parts[0].gradient[0].dense() - parts[1].gradient[0].dense()
    torch.testing.assert_close(difference.gradient[0].dense(), expected, atol=1e-6, rtol=1e-4)
    assert "7" in difference.provenance.gradient_target


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("saliency", "no gradient target 'saliency'; there are \\['logit', 'loss'\\]"),
        (Logit(7, 99), "position 99 has no logits; rows go from 0 to 16"),
        (Logit(700), "token 700 is not in the vocabulary of 40"),
        (TokenLoss((0,)), "a loss needs tokens from 1 to 16; got \\[0\\]"),
    ],
)
def test_bad_targets_name_what_exists(subject, tokens, target, message):
    with pytest.raises(CaptureError, match=message):
        capture(subject, {"input_ids": tokens}, gradient=target)


def test_layers_are_chosen_by_number_from_either_end(subject, tokens):
    trace = capture(subject, {"input_ids": tokens}, layers=[0, -1])
    assert [site.layer for site in trace.sites] == [0, 2]
    with pytest.raises(
        CaptureError, match=r"no layer \[7\] exists; layers by stack: .*self_attn': 3"
    ):
        capture(subject, {"input_ids": tokens}, layers=[0, 7])


def test_hidden_states_are_what_enters_each_layer(subject, model, tokens):
    trace = capture(subject, {"input_ids": tokens}, into=Collector(hidden=True))
    expected = model(tokens, output_hidden_states=True).hidden_states
    for layer, observation in enumerate(trace.observe()):
        torch.testing.assert_close(observation.hidden, expected[layer][0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_gives_the_traces_of_its_items(subject, side):
    torch.manual_seed(3)
    items = [torch.randint(6, 40, (length,)) for length in (9, 13)]
    batch, mask = torch.zeros(2, 13, dtype=torch.long), torch.zeros(2, 13, dtype=torch.long)
    for row, item in enumerate(items):
        span = slice(13 - len(item), 13) if side == "left" else slice(0, len(item))
        batch[row, span], mask[row, span] = item, 1
    traces = list(capture_each(subject, {"input_ids": batch, "attention_mask": mask}))
    for trace, item in zip(traces, items, strict=True):
        alone = capture(subject, {"input_ids": item[None]})
        assert trace.attention[2].shape == (4, len(item), len(item))
        torch.testing.assert_close(trace.attention[2].dense(), alone.attention[2].dense())


def test_batches_and_holes_are_refused_where_one_sequence_is_asked_for(subject):
    ids = torch.randint(6, 40, (2, 5))
    with pytest.raises(CaptureError, match="batch of 2; use capture_each"):
        capture(subject, {"input_ids": ids})
    with pytest.raises(CaptureError, match="padding between its tokens"):
        capture(subject, {"input_ids": ids[:1], "attention_mask": torch.tensor([[1, 0, 1, 1, 1]])})
    with pytest.raises(CaptureError, match="all padding"):
        capture(
            subject, {"input_ids": ids[:1], "attention_mask": torch.zeros(1, 5, dtype=torch.long)}
        )


def test_inputs_that_the_model_does_not_take_are_named(subject, tokens):
    with pytest.raises(CaptureError, match="takes no \\['pixel_values'\\]"):
        capture(subject, {"input_ids": tokens, "pixel_values": torch.zeros(1, 3, 4, 4)})


def test_text_without_a_tokenizer_is_refused(model):
    with pytest.raises(CaptureError, match="need a tokenizer"):
        capture(Subject(model), "the cat sat")


def test_a_module_without_attention_is_refused():
    with pytest.raises(CaptureError, match="nothing to record"):
        capture(Subject(torch.nn.Embedding(4, 4)), {"input": torch.tensor([[1, 2]])})


def test_bfloat16_models_are_captured_in_their_own_type(tokens):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    with torch.no_grad():
        before = model(tokens).logits
    trace = capture(Subject(model), {"input_ids": tokens})
    model.set_attn_implementation("eager")
    with torch.no_grad():
        eager = model(tokens, output_attentions=True)
    assert trace.provenance.dtype == "bfloat16"
    torch.testing.assert_close(
        trace.attention[1].dense(), eager.attentions[1][0].float(), atol=2e-2, rtol=2e-2
    )
    torch.testing.assert_close(trace.attention[1].row_mass(), torch.ones(4, 17), atol=1e-3, rtol=0)
    assert before.dtype == torch.bfloat16


def test_the_same_numbers_come_from_a_stored_trace(subject, tokens, tmp_path):
    trace = capture(subject, {"input_ids": tokens}, gradient="loss")
    trace.save(tmp_path / "run.safetensors")
    opened = attnscope.open_trace(tmp_path / "run.safetensors")
    for name in ("waad", "fai", "head_span", "entropy"):
        now, later = attnscope.measure(trace, name), attnscope.measure(opened, name)
        torch.testing.assert_close(now.values, later.values, equal_nan=True)
    torch.testing.assert_close(opened.gradient[0].dense(), trace.gradient[0].dense())


def test_an_input_without_tokens_is_refused(subject):
    with pytest.raises(CaptureError, match="input_ids is empty"):
        capture(subject, {"input_ids": torch.zeros(1, 0, dtype=torch.long)})


def test_a_wrapped_model_takes_what_the_model_inside_takes(model, tokens):
    class Wrapper(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.module = inner

        def forward(self, *args, **options):
            return self.module(*args, **options)

    trace = capture(Subject(Wrapper(model)), {"input_ids": tokens})
    assert trace.sites[0].path == "module.model.layers.0.self_attn"
    with pytest.raises(CaptureError, match="takes no \\['pixel_values'\\]"):
        capture(
            Subject(Wrapper(model)), {"input_ids": tokens, "pixel_values": torch.zeros(1, 3, 4, 4)}
        )
