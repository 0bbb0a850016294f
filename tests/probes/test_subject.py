"""Text, chats and tensors become one unpadded sequence with named segments."""

import pytest
import torch

from attnscope.probes import CaptureError, Subject, capture
from attnscope.probes.encoding import split_batch


def spans(encoded):
    return [(s.name, s.start, s.stop) for s in encoded.sequences[encoded.main_sequence].segments]


def test_a_text_is_a_prompt_and_what_is_given_beside_it_the_response(subject):
    encoded = subject.encode("the cat sat", response="on a mat")
    assert spans(encoded) == [("prompt", 0, 3), ("response", 3, 6)]
    assert encoded.sequences["text"].tokens == ("the", "cat", "sat", "on", "a", "mat")


def test_a_chat_s_roles_and_special_tokens_are_segments(subject):
    chat = [
        {"role": "system", "content": "it was"},
        {"role": "user", "content": "the cat"},
        {"role": "assistant", "content": "sat"},
        {"role": "user", "content": "on a"},
        {"role": "assistant", "content": "mat so back"},
    ]
    encoded = subject.encode(chat)
    named = [(name, stop - start) for name, start, stop in spans(encoded) if name != "special"]
    assert named == [("system", 2), ("prompt", 2), ("assistant", 1), ("prompt", 2), ("response", 3)]
    assert sum(name == "special" for name, *_ in spans(encoded)) >= 5


def test_generation_is_the_response_and_is_captured_in_one_pass(subject, model):
    encoded = subject.generate(
        [{"role": "user", "content": "the cat sat"}], max_new_tokens=6, min_new_tokens=6
    )
    sequence = encoded.sequences["text"]
    response = [
        p
        for run in sequence.segments
        if run.name in ("response", "special")
        for p in run.positions
        if p >= 6
    ]
    assert len(sequence) == 6 + 6
    assert len(response) == 6
    trace = capture(subject, encoded)
    assert trace.tokens == sequence.tokens
    greedy = model.generate(
        encoded.model_inputs["input_ids"][:, :6],
        max_new_tokens=6,
        min_new_tokens=6,
        do_sample=False,
    )
    assert greedy[0].tolist() == list(sequence.ids)


def test_chats_need_a_template_and_messages_a_role_and_content(subject, model, tokenizer):
    with pytest.raises(CaptureError, match="role and content"):
        subject.encode([{"content": "the cat"}])
    plain = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(CaptureError, match="no chat template"):
        Subject(model, plain).encode([{"role": "user", "content": "the cat"}])


def test_a_model_that_cannot_generate_says_so(tokenizer):
    with pytest.raises(CaptureError, match="has no generate"):
        Subject(torch.nn.Linear(2, 2), tokenizer).generate("the cat")


def test_padding_is_stripped_from_every_tensor_of_the_sequence():
    inputs = {
        "input_ids": torch.tensor([[0, 0, 7, 8], [5, 6, 7, 8]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
        "token_type_ids": torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]]),
    }
    first, second = split_batch(inputs)
    assert {name: tensor.tolist() for name, tensor in first.items()} == {
        "input_ids": [[7, 8]],
        "attention_mask": [[1, 1]],
        "token_type_ids": [[1, 1]],
    }
    assert second["input_ids"].shape == (1, 4)


def test_image_placeholders_are_a_segment_with_a_grid():
    from benchmarks.tiny_models import tiny

    model, inputs = tiny("LLaVA")
    trace = capture(Subject(model), inputs)
    image = next(run for run in trace.segments if run.name == "image")
    assert (image.start, image.stop, image.grid) == (2, 18, (4, 4))
    tower = trace.sequences["image"]
    assert tower.axis == "patch"
    assert [(run.name, run.grid) for run in tower.segments] == [
        ("special", None),
        ("image", (4, 4)),
    ]


def test_encoder_decoder_sites_name_their_sequences():
    from benchmarks.tiny_models import tiny

    model, inputs = tiny("BART")
    trace = capture(Subject(model), inputs)
    pairs = {(site.query_sequence, site.key_sequence) for site in trace.sites}
    assert pairs == {("encoder", "encoder"), ("decoder", "decoder"), ("decoder", "encoder")}
    assert trace.main_stack == "model.decoder.layers.self_attn"
    cross = trace.attention["model.decoder.layers.encoder_attn", 0]
    assert (cross.key_axis, cross.offset) == ("memory", None)
    assert trace.log_probabilities.shape == (7,)
