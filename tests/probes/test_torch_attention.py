"""The adapter for plain torch: fused attention and multi-head modules of any library."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from attnscope import capture
from attnscope.attention import DenseBias, RelativeBias, SoftmaxAttention
from attnscope.probes import CaptureError, Measuring, Subject
from attnscope.probes.adapters.torch_attention import _may_ask
from tests.probes.adapter_contract import AdapterCase, AdapterContract, listening, speech

WIDTH = 16


class Heads(nn.Module):
    """Self- or cross-attention with torch's fused kernel, options as given."""

    def __init__(self, kv_heads=2, **options):
        super().__init__()
        self.q = nn.Linear(WIDTH, WIDTH)
        self.kv = nn.Linear(WIDTH, 2 * kv_heads * 8)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.kv_heads, self.options = kv_heads, options

    def forward(self, x, memory=None):
        q = self.q(x).unflatten(-1, (2, 8)).transpose(1, 2)
        kv = self.kv(x if memory is None else memory).unflatten(-1, (2, self.kv_heads, 8))
        k, v = kv.permute(2, 0, 3, 1, 4)
        z = functional.scaled_dot_product_attention(q, k, v, **self.options)
        return self.out(z.transpose(1, 2).flatten(2))


class Stack(nn.Module):
    """Layers that read themselves, then perhaps a memory."""

    def __init__(self, *layers, crosses=False):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.crosses = crosses

    def forward(self, x, memory=None):
        for layer in self.layers:
            x = x + (layer(x, memory) if self.crosses else layer(x))
        return x


def plain_maps(model, inputs):
    """Return the maps by torch's own description of its fused kernel, written out."""
    maps = []

    def slow(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        group = q.shape[-3] // k.shape[-3]
        k, v = (part.repeat_interleave(group, -3) for part in (k, v))
        scores = q @ k.mT * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        pattern = scores.softmax(-1).nan_to_num(0)
        maps.extend(pattern)
        return pattern @ v

    fast = torch.backends.mha.get_fastpath_enabled()
    real, functional.scaled_dot_product_attention = functional.scaled_dot_product_attention, slow
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            speech(model, inputs)
    finally:
        functional.scaled_dot_product_attention = real
        torch.backends.mha.set_fastpath_enabled(fast)
    return maps


def inputs_of(length=7, memory=None):
    generator = torch.Generator().manual_seed(1)
    given = {"x": torch.randn(1, length, WIDTH, generator=generator)}
    if memory:
        given["memory"] = torch.randn(1, memory, WIDTH, generator=generator)
    return given


def fused(crosses=False, memory=None, **options):
    make = lambda: Stack(Heads(**options), Heads(**options), crosses=crosses)  # noqa: E731
    return make, inputs_of(memory=memory)


def encoder(**options):
    layer = nn.TransformerEncoderLayer(
        WIDTH, 2, 24, batch_first=True, norm_first=options.pop("norm_first", False)
    )
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


LOWER = torch.ones(7, 7, dtype=torch.bool).tril()
DISTANCE = torch.arange(7)[None, :] - torch.arange(7)[:, None]
ALIBI = DISTANCE * torch.tensor([0.5, 0.25])[:, None, None]

FUSED = {
    "plain": fused(),
    "causal": fused(is_causal=True),
    "grouped": fused(kv_heads=1, enable_gqa=True, is_causal=True),
    "scaled": fused(scale=0.1),
    "bool triangle": fused(attn_mask=LOWER),
    "window": fused(attn_mask=LOWER & LOWER.triu(-2)),
    "holes": fused(attn_mask=LOWER & (DISTANCE != -1)),
    "keys that are not there": fused(attn_mask=torch.tensor([[1, 1, 0, 1, 1, 0, 1]]).bool()),
    "row that sees nothing": fused(attn_mask=LOWER.tril(-1)),
    "float mask": fused(attn_mask=torch.zeros(7, 7).masked_fill(~LOWER, -torch.inf)),
    "lowest numbers": fused(
        attn_mask=torch.zeros(7, 7).masked_fill(~LOWER, torch.finfo(torch.float32).min)
    ),
    "alibi": fused(attn_mask=ALIBI.masked_fill(~LOWER, -torch.inf)),
    "bias": fused(attn_mask=torch.randn(1, 2, 7, 7, generator=torch.Generator().manual_seed(3))),
    "a mask per head": fused(attn_mask=torch.stack([LOWER, LOWER.mT])),
    "memory": fused(crosses=True, memory=5),
    "memory, causal": fused(crosses=True, memory=9, is_causal=True),
    "memory, masked": fused(crosses=True, memory=5, attn_mask=torch.ones(7, 5).tril(1).bool()),
}


class TestFused(AdapterContract):
    @pytest.fixture(params=FUSED)
    def case(self, request):
        make, inputs = FUSED[request.param]
        torch.manual_seed(0)
        model = make().eval()
        # For a mask with three axes torch itself takes no fused kernel.
        exact = request.param not in ("alibi", "a mask per head")
        maps = plain_maps(model, inputs)
        return AdapterCase(model=model, inputs=inputs, maps=maps, exact=exact)


class MultiHead(nn.Module):
    """Torch's module, which returns its weights where it is asked to."""

    def __init__(self, crosses=False, **call):
        super().__init__()
        options = {name: call.pop(name) for name in list(call) if name in _CONSTRUCTOR}
        self.mha = nn.MultiheadAttention(WIDTH, 2, batch_first=True, **options)
        self.call, self.crosses = call, crosses

    def forward(self, x, memory=None):
        other = x if memory is None else memory
        output, weights = self.mha(x, other, other, **self.call)
        return output if weights is None else output + weights.sum()


_CONSTRUCTOR = ("add_bias_kv", "add_zero_attn", "bias")
MULTI_HEAD = {
    "encoder": (encoder, {"src": inputs_of()["x"]}),
    "encoder, normed first": (lambda: encoder(norm_first=True), {"src": inputs_of()["x"]}),
    "encoder, causal": (encoder, {"src": inputs_of()["x"], "mask": ~LOWER}),
    "encoder, padded": (
        encoder,
        {
            "src": inputs_of()["x"],
            "src_key_padding_mask": torch.tensor([[0, 0, 1, 0, 0, 0, 1]]) > 0,
        },
    ),
    "transformer": (
        lambda: nn.Transformer(WIDTH, 2, 1, 1, 24, batch_first=True),
        {"src": inputs_of()["x"], "tgt": inputs_of(5)["x"]},
    ),
    "weights wanted": (MultiHead, inputs_of()),
    "weights of each head": (lambda: MultiHead(average_attn_weights=False), inputs_of()),
    "no weights": (lambda: MultiHead(need_weights=False), inputs_of()),
    "memory": (MultiHead, inputs_of(memory=4)),
    "one more key": (lambda: MultiHead(add_bias_kv=True, add_zero_attn=True), inputs_of()),
}


class TestMultiHead(AdapterContract):
    @pytest.fixture(params=MULTI_HEAD)
    def case(self, request):
        make, inputs = MULTI_HEAD[request.param]
        torch.manual_seed(0)
        model = make().eval()
        maps = _weighed_maps(model, inputs)
        return AdapterCase(model=model, inputs=inputs, maps=maps)


def _weighed_maps(model, inputs):
    """Return the maps that the multi-head modules themselves return when asked."""
    maps = []

    def weigh(module, args, options):
        options = dict(options) | {"need_weights": True, "average_attn_weights": False}
        with torch.no_grad():
            maps.extend(nn.MultiheadAttention.forward(module, *args, **options)[1])

    found = [one for one in model.modules() if isinstance(one, nn.MultiheadAttention)]
    handles = [one.register_forward_pre_hook(weigh, with_kwargs=True) for one in found]
    with torch.no_grad():
        speech(model, inputs)
    for handle in handles:
        handle.remove()
    return maps


def seen(model, inputs):
    torch.manual_seed(0)
    return capture(Subject(model.eval()), inputs)


def test_masks_are_kept_as_rules():
    kinds = {}
    for name, (make, inputs) in FUSED.items():
        attention = seen(make(), inputs).attention[0]
        assert isinstance(attention, SoftmaxAttention)
        mask = attention.mask
        held = "array" if mask.allowed is not None else "keys" if mask.key_valid is not None else ""
        kinds[name] = (mask.before, mask.after, held, type(attention.bias))
    none = type(None)
    assert kinds["plain"] == kinds["scaled"] == (None, None, "", none)
    for name in ("causal", "grouped", "bool triangle", "float mask"):
        assert kinds[name] == (None, 0, "", none)
    assert kinds["window"] == (2, 0, "", none)
    assert kinds["holes"] == (None, 0, "array", none)
    assert kinds["keys that are not there"] == (None, None, "keys", none)
    assert kinds["alibi"] == (None, 0, "", RelativeBias)
    assert kinds["bias"] == (None, None, "", DenseBias)
    assert kinds["a mask per head"] == (None, None, "", DenseBias)


def test_sites_bear_the_paths_of_the_modules_that_ask():
    trace = seen(Stack(Heads(), Heads()), inputs_of())
    assert trace.stacks == ("layers",)
    assert [(site.layer, site.path) for site in trace.sites] == [(0, "layers.0"), (1, "layers.1")]
    alone = seen(Heads(), inputs_of())
    assert alone.stacks == ("Heads",)


def test_self_and_cross_attention_are_told_apart_by_lengths_and_by_identity():
    transformer = nn.Transformer(WIDTH, 2, 1, 1, 24, batch_first=True)
    for source in (5, 7):
        trace = seen(transformer, {"src": inputs_of(source)["x"], "tgt": inputs_of(7)["x"] + 1})
        crossing = trace.attention["decoder.layers.multihead_attn", 0]
        itself = trace.attention["decoder.layers.self_attn", 0]
        assert (crossing.query_axis, crossing.key_axis) == ("token", "memory")
        assert (itself.query_axis, itself.key_axis, itself.offset) == ("token", "token", 0)
        assert crossing.offset is None


def test_autocast_is_respected_and_does_not_reach_the_operator():
    torch.manual_seed(0)
    model, inputs = Stack(Heads(is_causal=True)).eval(), inputs_of()
    heard = []

    def keep(call):
        heard.append(call)
        assert not torch.is_autocast_enabled("cpu")
        return call.output

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(**inputs)
        with listening(model, keep):
            during = model(**inputs)
        with torch.autocast("cpu", enabled=False), listening(model, keep):
            model(**inputs)
    assert torch.equal(before, during)
    assert [call.value.dtype for call in heard] == [torch.bfloat16, torch.float32]


def test_a_module_that_drops_attention_in_evaluation_mode_is_refused():
    with pytest.raises(CaptureError, match=r"layers\.0 \(Heads\) drops 10% of its attention"):
        seen(Stack(Heads(dropout_p=0.1)), inputs_of())
    assert torch.backends.mha.get_fastpath_enabled()


def test_nested_tensors_are_refused():
    class Nested(nn.Module):
        def forward(self, x):
            part = torch.nested.nested_tensor([x[0, None]], layout=torch.jagged)
            return functional.scaled_dot_product_attention(part, part, part)

    with pytest.raises(CaptureError, match="reads nested tensors"):
        seen(Nested(), inputs_of())


def test_heads_may_be_counted_as_items_or_stand_alone():
    class Raw(nn.Module):
        def __init__(self, lead):
            super().__init__()
            self.lead = lead

        def forward(self, x):
            part = x[0].expand(*self.lead, -1, -1) if self.lead else x[0]
            return functional.scaled_dot_product_attention(part, part, part)

    assert seen(Raw(()), inputs_of()).attention[0].shape == (1, 7, 7)
    assert seen(Raw((3,)), inputs_of()).attention[0].shape == (3, 7, 7)
    windows = seen(Raw((2, 2, 3)), inputs_of())
    assert [site.path for site in windows.sites] == [f"[{number}]" for number in range(4)]
    assert windows.attention["Raw[3]", 0].shape == (3, 7, 7)


def test_a_mask_that_erases_the_scores_is_refused():
    lowest = torch.zeros(7, 7).masked_fill(~LOWER.tril(-1), torch.finfo(torch.float32).min)
    with pytest.raises(CaptureError, match=r"adds -3.4e\+38 to every key of 1 queries"):
        seen(Stack(Heads(attn_mask=lowest)), inputs_of())


def test_wrong_calls_get_the_error_of_torch():
    class Wrong(nn.Module):
        def forward(self, x):
            part = x[:, None]
            return functional.scaled_dot_product_attention(
                part, part, part, attn_mask=LOWER, is_causal=True
            )

    with pytest.raises(RuntimeError, match="is_causal"):
        seen(Wrong(), inputs_of())


@pytest.mark.parametrize("outside", [True, False])
def test_compiled_models_are_heard_as_they_were_written(outside):
    """And what was compiled is not compiled again for the sake of a capture."""
    compilations = []

    def count(graph, inputs):
        compilations.append(graph)
        return graph.forward

    torch.manual_seed(0)
    model = Stack(Heads(is_causal=True), Heads(is_causal=True)).eval()
    plain = capture(Subject(model), inputs_of())
    if outside:
        compiled = torch.compile(model, backend=count)
    else:
        compiled = model
        for layer in model.layers:
            layer.compile(backend=count)
    with torch.no_grad():
        before = compiled(**inputs_of())
        made = len(compilations)
        trace = capture(Subject(compiled), inputs_of())
        assert torch.equal(compiled(**inputs_of()), before)
    assert made > 0
    assert len(compilations) == made
    assert [site.path for site in trace.sites] == ["layers.0", "layers.1"]
    for one, other in zip(trace.observations, plain.observations, strict=True):
        assert torch.equal(one.attention.dense(), other.attention.dense())


def test_calls_from_outside_the_model_are_not_heard():
    heard = []
    model, x = Stack(Heads()).eval(), torch.randn(1, 2, 7, 8)
    with torch.no_grad(), listening(model, lambda call: heard.append(call) or call.output):
        functional.scaled_dot_product_attention(x, x, x)
        Heads()(torch.randn(1, 7, WIDTH))
        assert not heard
        model(**inputs_of())
    assert [call.module for call in heard] == [model.layers[0]]


@pytest.mark.parametrize(
    ("kind", "may"),
    [
        ("transformers.models.qwen2.modeling_qwen2.Qwen2Attention", False),
        ("transformers.models.falcon.modeling_falcon.FalconAttention", True),
        ("torch.nn.modules.activation.MultiheadAttention", True),
        ("torch.nn.modules.linear.Linear", False),
        ("torchvision.models.vision_transformer.EncoderBlock", True),
    ],
)
def test_only_models_that_may_ask_pay_for_an_ear(kind, may):
    home, _, name = kind.rpartition(".")
    found = getattr(pytest.importorskip(home), name)
    assert _may_ask(found) is may


def test_models_of_other_libraries_are_heard_once(model, tokens):
    heard = []
    with torch.no_grad(), listening(model, lambda call: heard.append(call) or call.output):
        model(tokens)
    assert len(heard) == 3
    timm = pytest.importorskip("timm")
    vit = timm.create_model("test_vit", num_classes=3).eval()
    trace = capture(Subject(vit), {"x": torch.randn(1, 3, 160, 160)})
    assert {site.stack for site in trace.sites} == {"blocks.attn"}
    assert all(site.query_sequence == "image" for site in trace.sites)


def test_streaming_gives_what_a_trace_gives():
    torch.manual_seed(0)
    model = Stack(Heads(is_causal=True), Heads(is_causal=True)).eval()
    from attnscope import measure

    streamed = capture(Subject(model), inputs_of(), into=Measuring("entropy", "head_span"))
    trace = capture(Subject(model), inputs_of())
    for name, reading in streamed.items():
        torch.testing.assert_close(reading.values, measure(trace, name).values)


def test_the_clip_tower_of_another_library_is_an_image():
    torchvision = pytest.importorskip("torchvision")
    tower = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16
    )
    trace = capture(Subject(tower.eval()), {"pixel_values": torch.randn(1, 3, 32, 32)})
    assert trace.sequences["image"].segments.runs[-1].grid == (4, 4)
    assert trace.stacks == ("encoder.layers.encoder_layer.self_attention",)
    assert [site.layer for site in trace.sites] == [0, 1]
