"""A trace says what it holds without reading it, and hands it out by stack and layer."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from attnscope.attention import DenseAttention, OuterAttention
from attnscope.traces import Observation, Site, TokenSequence, Trace, TraceError


@pytest.fixture
def encoder_decoder(make_sequence, make_observation):
    """An encoder that sees everything, and two causal decoder layers, 1 and 4."""
    text, read = make_sequence(6), make_sequence(6, "read")
    uniform = DenseAttention(torch.full((4, 6, 6), 1 / 6))
    return Trace(
        observations=[
            make_observation(read, 0, uniform, stack="encoder.layers", gradient=False),
            make_observation(text, 1, stack="decoder.layers"),
            make_observation(text, 4, stack="decoder.layers", gradient=False),
        ],
        sequences={"text": text, "read": read},
        main_sequence="text",
    )


def test_it_knows_its_tokens_segments_stacks_and_sites(encoder_decoder):
    assert encoder_decoder.tokens == tuple(f"text{position}" for position in range(6))
    assert encoder_decoder.segments["prompt"] == [1, 2, 3, 4]
    assert encoder_decoder.stacks == ("encoder.layers", "decoder.layers")
    assert [site.layer for site in encoder_decoder.sites] == [0, 1, 4]


def test_the_main_stack_is_where_the_main_sequence_reads_itself_or_the_first(encoder_decoder):
    assert encoder_decoder.main_stack == "decoder.layers"
    assert encoder_decoder.select(stack="encoder.layers").main_stack == "encoder.layers"


def test_observing_yields_the_layers_of_one_stack(encoder_decoder):
    assert [seen.site.layer for seen in encoder_decoder.observe()] == [1, 4]
    assert [seen.site.layer for seen in encoder_decoder.observe("encoder.layers")] == [0]
    with pytest.raises(TraceError, match=r"no stack 'memory'; this trace has \['encoder.layers'"):
        encoder_decoder.observe("memory")


def test_attention_is_reached_by_layer_and_by_stack_and_layer(encoder_decoder):
    held = [seen.attention for seen in encoder_decoder.observations]
    assert encoder_decoder.attention[1] is held[1]
    assert encoder_decoder.attention[-1] is held[2]
    assert encoder_decoder.attention["encoder.layers", 0] is held[0]


def test_the_gradient_of_a_map_is_the_product_of_its_factors(encoder_decoder):
    seen = encoder_decoder.observations[1]
    gradient = encoder_decoder.gradient[1]
    assert isinstance(gradient, OuterAttention)
    expected = seen.gradient @ seen.value.repeat_interleave(2, dim=0).mT
    torch.testing.assert_close(gradient.dense(), expected)
    assert list(encoder_decoder.gradient) == [("decoder.layers", 1)]


def test_selecting_keeps_some_sites_and_everything_else(encoder_decoder):
    assert encoder_decoder.select(layers=[1]).attention[1] is encoder_decoder.attention[1]
    assert [site.layer for site in encoder_decoder.select(layers=-1).sites] == [0, 4]
    assert encoder_decoder.select(layers=4, stack="decoder.layers").tokens == encoder_decoder.tokens
    with pytest.raises(TraceError, match=r"no layer 9; this trace has \{'encoder.layers': \[0\]"):
        encoder_decoder.select(layers=[1, 9])


def test_a_selection_of_a_selection_is_one(encoder_decoder):
    later = encoder_decoder.select(stack="decoder.layers").select(layers=4)
    assert later.attention[4] is encoder_decoder.attention[4]
    assert later.attention.heads(4, 2).shape == (1, 6, 6)


def test_a_trace_without_sites_has_no_main_stack(make_sequence):
    empty = Trace(observations=(), sequences={"text": make_sequence(3)}, main_sequence="text")
    assert (empty.sites, empty.stacks, empty.nbytes, len(empty.attention)) == ((), (), 0, 0)
    with pytest.raises(TraceError, match="this trace holds no attention site"):
        _ = empty.main_stack
    with pytest.raises(TraceError, match="this trace holds no attention"):
        _ = empty.attention[0]


def test_bytes_count_shared_tensors_once(make_sequence, make_observation):
    text = make_sequence(6)
    shared = DenseAttention(torch.eye(6).expand(4, 6, 6).contiguous())
    seen = [make_observation(text, layer, shared, gradient=False) for layer in range(3)]
    trace = Trace(observations=seen, sequences={"text": text}, main_sequence="text")
    assert trace.nbytes == 4 * 6 * 6 * 4


def test_it_cannot_be_changed(make_trace):
    trace = make_trace()
    with pytest.raises(FrozenInstanceError):
        trace.main_sequence = "other"
    with pytest.raises(TypeError):
        trace.sequences["other"] = trace.sequences["text"]
    with pytest.raises(TypeError):
        trace.provenance.notes["seed"] = "1"
    with pytest.raises(TypeError):
        trace.observations[0] = trace.observations[1]


def test_later_changes_of_what_it_was_built_from_do_not_reach_it(make_sequence, make_observation):
    text = make_sequence(6)
    seen, sequences = [make_observation(text)], {"text": text}
    trace = Trace(observations=seen, sequences=sequences, main_sequence="text")
    seen.clear()
    sequences.clear()
    assert len(trace.observations) == len(trace.sequences) == 1


def test_it_refuses_an_unknown_main_sequence(make_sequence):
    with pytest.raises(TraceError, match=r"no sequence 'speech'; this trace has \['text'\]"):
        Trace(observations=(), sequences={"text": make_sequence(3)}, main_sequence="speech")


def test_it_refuses_numbers_that_are_not_one_per_token(make_trace):
    with pytest.raises(TraceError, match=r"entropies has shape \(3,\); there are 64 tokens"):
        replace(make_trace(), log_probabilities=None, entropies=torch.zeros(3))


def test_it_refuses_a_batch_axis(make_sequence):
    text = make_sequence(3)
    seen = Observation(
        site=Site(stack="s", layer=0, path="s.0"),
        attention=DenseAttention(torch.eye(3).expand(1, 2, 3, 3)),
        queries=text,
        keys=text,
    )
    with pytest.raises(TraceError, match=r"shape \(1, 2, 3, 3\).*without a batch axis"):
        Trace(observations=[seen], sequences={"text": text}, main_sequence="text")


def test_it_refuses_a_site_seen_twice(make_sequence, make_observation):
    text = make_sequence(3)
    seen = [make_observation(text, 2), make_observation(text, 2)]
    with pytest.raises(TraceError, match=r"layer 2 of stack 'model.layers.self_attn' was observed"):
        Trace(observations=seen, sequences={"text": text}, main_sequence="text")


def test_it_refuses_sites_on_other_sequences_than_its_own(make_sequence, make_observation):
    short, long = make_sequence(3), make_sequence(4)
    with pytest.raises(TraceError, match="was seen on another sequence 'text' than the trace's"):
        Trace(
            observations=[make_observation(short)], sequences={"text": long}, main_sequence="text"
        )
    image = make_sequence(3, "image")
    with pytest.raises(TraceError, match="positions of a sequence that is not there"):
        Trace(
            observations=[make_observation(short)],
            sequences={"image": image},
            main_sequence="image",
        )


def test_it_refuses_maps_of_another_length_than_the_sequence(make_sequence, make_observation):
    text = make_sequence(4)
    seen = make_observation(text, attention=DenseAttention(torch.eye(3)[None]), gradient=False)
    with pytest.raises(TraceError, match="has 3 queries, sequence 'text' has 4 positions"):
        Trace(observations=[seen], sequences={"text": text}, main_sequence="text")


def test_it_refuses_factors_that_do_not_fit_the_map(make_sequence, make_observation):
    text = make_sequence(4)
    seen = make_observation(text)

    def built(**changes: torch.Tensor) -> Trace:
        changed = replace(seen, **changes)
        return Trace(observations=[changed], sequences={"text": text}, main_sequence="text")

    with pytest.raises(TraceError, match=r"values of .* have shape \(3, 4, 16\); 4 heads read 4"):
        built(value=torch.zeros(3, 4, 16))
    with pytest.raises(TraceError, match=r"gradient of .* shape \(4, 5, 16\); there are 4 heads"):
        built(gradient=torch.zeros(4, 5, 16))


def test_it_refuses_a_sequence_under_another_name():
    text = TokenSequence(name="text", tokens=("a",))
    with pytest.raises(TraceError, match="the sequence under 'speech' calls itself 'text'"):
        Trace(observations=(), sequences={"speech": text}, main_sequence="speech")
