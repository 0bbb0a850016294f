"""State-space and hybrid models of transformers: what their layers' own scans do to unit values."""

import sys
from contextlib import ExitStack
from unittest.mock import patch

import pytest
import torch

from attnscope import capture, measure, open_trace
from attnscope.attention import DeltaRuleAttention, ScanAttention, SoftmaxAttention, scan_block
from attnscope.figures import head_grid
from attnscope.metrics import MetricError, across_stacks
from attnscope.probes import CaptureError, Measuring, Subject
from attnscope.probes.adapters import state_space
from attnscope.probes.adapters.state_space_ear import scan_of
from benchmarks.tiny_state_space import STATE_SPACE
from tests.probes.adapter_contract import AdapterCase, AdapterContract, listening, speech

TOKENS = 11
CONTRACT = ("Mamba", "Mamba-2", "Jamba", "Falcon-H1", "Zamba2", "Qwen3-Next")
pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own


def build(name, implementation="eager"):
    import transformers

    head, config, sizes = STATE_SPACE[name]
    torch.manual_seed(0)
    own = getattr(transformers, config)(**sizes, initializer_range=0.2)
    model = getattr(transformers, head)._from_config(own, attn_implementation=implementation)
    return model.eval(), {"input_ids": torch.randint(3, 90, (1, TOKENS))}


def selective_map(scan, values, *rest, **options):
    """Return Mamba's map per channel: column j is the scan of a 1 at j, without the gate."""
    columns = []
    for j in range(TOKENS):
        unit = torch.zeros_like(values)
        unit[..., j] = 1
        columns.append(scan(unit, *rest, **options | {"z": None})[0])
    return torch.stack(columns, dim=-1)


def chunked_map(scan, values, *rest, **options):
    """Return Mamba-2's map per head, in the same way."""
    columns = []
    for j in range(TOKENS):
        unit = torch.zeros_like(values)
        unit[:, j] = 1
        columns.append(scan(unit, *rest, **options)[0, :, :, 0].T)
    return torch.stack(columns, dim=-1)


def delta_map(scan, query, key, values, **options):
    """Return the delta rule's map per head, in the same way."""
    columns = []
    for j in range(TOKENS):
        unit = torch.zeros_like(values)
        unit[:, j] = 1
        columns.append(scan(query, key, unit, **options)[0][0, :, :, 0].T)
    return torch.stack(columns, dim=-1)


MAPS = {
    "mamba_selective_scan": selective_map,
    "mamba2_chunk_scan": chunked_map,
    "torch_chunk_gated_delta_rule": delta_map,
}


def known_maps(model, inputs):
    """Return the maps of all layers in their order: of scans by unit values, of softmax eagerly."""
    source, maps = sys.modules[type(model).__module__], []

    def keeping(name, function):
        def run(*args, **options):
            if name == "eager_attention_forward":
                output, pattern = function(*args, **options)
                maps.append(pattern[0])
                return output, pattern
            maps.append(MAPS[name](function, *args, **options))
            return function(*args, **options)

        return run

    with ExitStack() as stack, torch.no_grad():
        for name in (*MAPS, "eager_attention_forward"):
            if hasattr(source, name):
                wrapped = keeping(name, getattr(source, name))
                stack.enter_context(patch.object(source, name, wrapped))
        model(**inputs, use_cache=False)
    return maps


class TestStateSpace(AdapterContract):
    @pytest.fixture(params=CONTRACT)
    def case(self, request):
        model, inputs = build(request.param)
        maps = known_maps(model, inputs)
        exact = request.param in ("Mamba", "Mamba-2")  # softmax runs fused instead of eagerly
        return AdapterCase(model=model, inputs=inputs, maps=maps, exact=exact)


@pytest.mark.parametrize("name", STATE_SPACE)
def test_the_layers_of_every_family_stand_on_one_axis(name, tmp_path):
    model, inputs = build(name, "eager" if "Mamba" in name else "sdpa")
    source = sys.modules[type(model).__module__]
    before = {name: getattr(source, name, None) for name in MAPS}
    trace = capture(Subject(model), inputs)
    assert before == {name: getattr(source, name, None) for name in MAPS}
    scans = [s for s in trace.sites if not s.stack.endswith(("self_attn", ".mixer"))]
    if name in ("Mamba", "Falcon Mamba", "Mamba-2"):
        scans = list(trace.sites)
    assert len({site.stack for site in scans}) == 1
    for site in trace.sites:
        assert f".{site.layer}." in site.path
        kind = (ScanAttention, DeltaRuleAttention) if site in scans else SoftmaxAttention
        assert isinstance(trace.attention[site.stack, site.layer], kind)
        assert (site.query_sequence, site.key_sequence) == ("text", "text")
    trace.save(tmp_path / "run.safetensors")
    stored = open_trace(tmp_path / "run.safetensors")
    for site in trace.sites:
        key = site.stack, site.layer
        torch.testing.assert_close(stored.attention[key].dense(), trace.attention[key].dense())
        one = stored.attention.heads(key, 1).dense()
        torch.testing.assert_close(one, trace.attention[key].select_heads([1]).dense())


def test_a_hybrid_model_is_measured_and_drawn_as_one():
    model, inputs = build("Qwen3-Next", "sdpa")
    trace = capture(Subject(model), inputs)
    shares = [measure(trace, "own_share", stack=stack).mean("query") for stack in trace.stacks]
    both = across_stacks(shares)
    assert both.coordinates["layer"] == (0, 1, 2, 3)
    assert both.stack == "model.layers.linear_attn + model.layers.self_attn"
    dense = trace.attention["model.layers.self_attn", 3].dense()
    torch.testing.assert_close(both.values[3], dense.diagonal(dim1=-2, dim2=-1).mean(-1))
    grid = head_grid(both)
    assert grid.layers == (0, 1, 2, 3)
    assert grid.values.shape == (4, 4)
    assert len(grid.plotly().data) == 1
    assert grid.matplotlib().axes[0].get_ylabel() == "layer"


def test_layers_with_fewer_heads_leave_gaps_and_parallel_ones_are_refused():
    model, inputs = build("Jamba", "sdpa")
    streamed = [
        capture(Subject(model), inputs, into=Measuring("row_sum", stack=stack))["row_sum"]
        for stack in ("model.layers.mamba", "model.layers.self_attn")
    ]
    both = across_stacks([reading.mean("query") for reading in streamed])
    assert both.values.shape == (4, 64)
    assert both.values[1, 4:].isnan().all()
    torch.testing.assert_close(both.values[1, :4], torch.ones(4))
    model, inputs = build("Falcon-H1", "sdpa")
    trace = capture(Subject(model), inputs)
    side_by_side = [measure(trace, "row_sum", stack=stack) for stack in trace.stacks]
    with pytest.raises(MetricError, match=r"layers \[0, 1\] stand in several"):
        across_stacks(side_by_side)
    with pytest.raises(MetricError, match="one metric"):
        across_stacks([side_by_side[0], measure(trace, "negative_share", stack=trace.stacks[1])])
    with pytest.raises(MetricError, match="in part"):
        across_stacks([side_by_side[0], side_by_side[1].select(query=[0, 1])])
    with pytest.raises(MetricError, match="at least one"):
        across_stacks([])


@pytest.mark.parametrize("metric", ["entropy", "head_span", "received_attention"])
def test_metrics_of_distributions_refuse_a_scan(metric):
    model, inputs = build("Mamba")
    with pytest.raises(MetricError, match=r"needs rows that sum|nowhere negative"):
        measure(capture(Subject(model), inputs), metric)


@pytest.mark.parametrize("name", ["Mamba", "Mamba-2", "Qwen3-Next"])
def test_gradients_are_what_a_change_of_the_output_does_to_the_target(name):
    model, inputs = build(name)
    path = capture(Subject(model), inputs).sites[0].path

    class Target:
        name = "one logit"

        def __call__(self, logits, sequence):
            return logits[-1, 7]

    seen = capture(Subject(model), inputs, gradient=Target()).observations[0]
    direction = torch.randn(seen.gradient.shape, generator=torch.Generator().manual_seed(1))
    size = torch.zeros((), requires_grad=True)

    def push(call):
        named = model.get_submodule(path)
        return call.output + (size * direction if call.module is named else 0)

    with listening(model, push):
        logit = model(**inputs).logits[0, -1, 7]
    (slope,) = torch.autograd.grad(logit, size)
    torch.testing.assert_close(slope, (seen.gradient * direction).sum(), rtol=1e-4, atol=1e-5)


def test_the_block_of_a_mamba_layer_is_a_product():
    """Fact: gate, scan with skip, activation and convolution make the input of the projection."""
    model, inputs = build("Mamba")
    mixer, seen = model.backbone.layers[0].mixer, {}
    mixer.in_proj.register_forward_hook(lambda m, a, out: seen.update(projected=out.mT[0]))
    mixer.out_proj.register_forward_pre_hook(lambda m, a: seen.update(mixed=a[0].mT[0]))
    with torch.no_grad():
        scan = capture(Subject(model), inputs).attention[0]
        x, gate = seen["projected"].chunk(2)
        before = mixer.conv1d(x[None])[0, :, :TOKENS]
        kernel, bias = mixer.conv1d.weight[:, 0], mixer.conv1d.bias
        block = scan_block(scan, gate, before, kernel)
        own = torch.zeros_like(kernel)
        own[:, -1] = 1
        constant = scan_block(scan, gate, before, own).apply(bias[:, None, None].expand(-1, 11, 1))
        found = (block.apply(x[..., None]) + constant)[..., 0]
    torch.testing.assert_close(found, seen["mixed"], atol=1e-5, rtol=1e-4)


def test_sixteen_bits_are_heard_in_thirty_two():
    model, inputs = build("Mamba-2")
    model, errors = model.to(torch.bfloat16), []

    def compare(call):
        read = call.attention.apply(call.value)
        errors.append(float((read - call.output).abs().max() / call.output.abs().max()))
        assert call.attention.dtype == torch.float32
        return call.output

    with torch.no_grad(), listening(model, compare):
        speech(model, inputs)
    assert max(errors) < 1e-2


def test_a_layer_whose_scan_does_not_run_is_refused(monkeypatch):
    model, inputs = build("Qwen3-Next")
    layer = model.model.layers[1].linear_attn
    monkeypatch.setattr(layer, "forward", lambda hidden_states, **options: hidden_states)
    with pytest.raises(CaptureError, match="Qwen3NextGatedDeltaNet ran its recurrence 0 times"):
        capture(Subject(model), inputs)


@pytest.mark.parametrize("name", ["Mamba-2", "Qwen3-Next"])
def test_tokens_that_follow_others_are_refused(name):
    model, inputs = build(name)
    with torch.no_grad():
        cache = model(**inputs, use_cache=True)
        held = getattr(cache, "past_key_values", None) or cache.cache_params
        with (
            pytest.raises(CaptureError, match="a state of earlier tokens"),
            listening(model, lambda call: call.output),
        ):
            model(**inputs, use_cache=True, **_as_cache(cache, held))


def _as_cache(output, held):
    name = "past_key_values" if getattr(output, "past_key_values", None) else "cache_params"
    return {name: held}


def test_ears_may_close_in_any_order_and_hear_their_own_model_only():
    model, inputs = build("Mamba")
    other, _ = build("Mamba")
    source, name = scan_of(type(model.backbone.layers[0].mixer))
    original, counts = getattr(source, name), [0, 0]

    def counting(place):
        def listener(call):
            counts[place] += 1
            return call.output

        return listener

    first, second = ExitStack(), ExitStack()
    riders = lambda module: ()  # noqa: E731
    first.enter_context(state_space.listening(model, counting(0), riders))
    second.enter_context(state_space.listening(other, counting(1), riders))
    first.close()
    with torch.no_grad():
        model(**inputs)
        other(**inputs)
    assert counts == [0, 2]
    second.close()
    assert getattr(source, name) is original


def test_classes_without_a_known_scan_have_no_seam():
    assert scan_of(torch.nn.Linear) is None
    assert state_space.names(torch.nn.Linear(2, 2)) == {}
