"""DaViT, ConViT and HaloNet as timm has them: published sizes, and what their maps are made of."""

import pytest
import timm
import torch
from timm.layers.halo_attn import HaloAttn
from timm.models.convit import GPSA
from timm.models.davit import ChannelAttention
from torch import nn

from attnscope import capture, measure, open_trace
from attnscope.attention import RowScaledAttention, ScaledAttention, SoftmaxAttention, SumAttention
from attnscope.metrics import nonlocality, patch_distance
from attnscope.probes import Subject
from attnscope.probes.adapters.timm_gating import place_factors
from benchmarks.timm_models import small
from tests.models.capturing import assert_capture_keeps_the_contract


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("davit_tiny", 28_360_168),
        ("davit_small", 49_745_896),
        ("davit_base", 87_954_408),
        ("convit_tiny", 5_710_512),  # published as 6, 27 and 86 M
        ("convit_small", 27_777_322),
        ("convit_base", 86_540_040),
        ("halonet_h1", 8_100_056),
        ("halonet26t", 12_480_288),
    ],
)
def test_published_sizes(name, parameters):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "heads", "width"),
    [("convit_tiny", 4, 192), ("convit_small", 9, 432), ("convit_base", 16, 768)],
)
def test_convit_has_its_published_heads_and_width(name, heads, width):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert model.embed_dim == width
    assert [block.attn.num_heads for block in model.blocks] == [heads] * 12
    assert [type(block.attn).__name__ for block in model.blocks] == ["GPSA"] * 10 + ["MHSA"] * 2


@pytest.mark.parametrize("family", ["DaViT", "ConViT", "HaloNet"])
def test_a_capture_is_stored_and_measured(family, tmp_path):
    model, picture = small(family)
    assert_capture_keeps_the_contract(model, {"x": picture}, tmp_path)


# --- DaViT ----------------------------------------------------------------------------------


def identity_projection(module: ChannelAttention) -> None:
    """Make what the module calls query, key and value its input."""
    width = module.proj.in_features
    with torch.no_grad():
        module.qkv.weight.copy_(torch.eye(width).repeat(3, 1))
        for bias in (module.qkv.bias, module.proj.bias):
            if bias is not None:
                bias.zero_()


def test_channels_that_match_themselves_read_themselves_most():
    module = ChannelAttention(2, num_heads=1)
    identity_projection(module)
    trace = capture(Subject(module), {"x": torch.eye(2)[None]})
    attention = trace.attention[0]
    assert (attention.query_axis, attention.key_axis) == ("channel", "channel")
    expected = torch.tensor([[[0.6698, 0.3302], [0.3302, 0.6698]]])
    torch.testing.assert_close(attention.dense(), expected, rtol=0, atol=5e-5)
    assert trace.sequences["channel"].axis == "channel"


def test_channel_attention_reads_values_over_all_patches():
    model, picture = small("DaViT")
    trace = capture(Subject(model), {"x": picture})
    seen = trace.observations[1]
    assert seen.attention.shape == (2, 8, 8)
    assert seen.value.shape == (2, 8, 256)  # head channel patch
    spatial = trace.observations[0]
    assert spatial.queries.segments.runs[-1].grid == (16, 16)
    assert spatial.attention.stochastic


# --- ConViT ---------------------------------------------------------------------------------


def position_map(heads: int, side: int, strength: float = 1.0) -> SoftmaxAttention:
    """Return what a layer of ConViT reads by place alone when training starts."""
    module = GPSA(dim=heads, num_heads=heads, locality_strength=strength)
    module.local_init()
    query, key = place_factors(module.pos_proj.weight.detach(), side**2)
    return SoftmaxAttention(query, key.expand(heads, -1, -1), 1.0, causal=False)


@pytest.mark.parametrize(
    ("heads", "distances"),
    [
        (4, [0.9860] * 4),
        (9, [1.4846, 1.1657, 1.4846, 1.1657, 0.7594, 1.1657, 1.4846, 1.1657, 1.4846]),
    ],
)
def test_heads_start_at_the_places_of_a_convolution(heads, distances):
    found = patch_distance(position_map(heads, 14), (14, 14))
    torch.testing.assert_close(found, torch.tensor(distances), rtol=0, atol=5e-5)


@pytest.mark.parametrize(("heads", "mean"), [(4, 0.9860), (9, 1.26226), (16, 1.56158)])
def test_the_nonlocality_of_the_positions_alone(heads, mean):
    assert float(nonlocality(position_map(heads, 14), (14, 14))) == pytest.approx(mean, abs=5e-5)


def test_a_strong_head_reads_the_patch_at_its_offset_and_stops_at_the_border():
    attention = position_map(9, 5, strength=100.0)
    head = 2  # first step of columns, last of rows: one column left, one row down
    assert [int(attention.rows([patch])[head].argmax()) for patch in (12, 5, 22)] == [16, 10, 21]


def test_the_positional_factors_are_the_modules_own_map():
    torch.manual_seed(0)
    module = GPSA(dim=8, num_heads=4)
    nn.init.normal_(module.pos_proj.weight)
    own = module.pos_proj(module.get_rel_indices(49))[0].permute(2, 0, 1).softmax(-1)
    query, key = place_factors(module.pos_proj.weight, 49)
    made = SoftmaxAttention(query, key.expand(4, -1, -1), 1.0, causal=False).dense()
    torch.testing.assert_close(made, own, rtol=1e-4, atol=1e-5)


def test_a_gated_layer_keeps_content_and_position_apart():
    model, picture = small("ConViT")
    with torch.no_grad():
        model.blocks[0].attn.gating_param.copy_(torch.tensor([-50.0, 0.0, 1.0, 50.0]))
    trace = capture(Subject(model), {"x": picture})
    attention = trace.attention["blocks.attn.GPSA", 0]
    assert isinstance(attention, RowScaledAttention)
    (mixture,) = attention.operands
    assert isinstance(mixture, SumAttention)
    content, position = mixture.operands
    assert isinstance(content, ScaledAttention)
    assert isinstance(position, ScaledAttention)
    shares = torch.tensor([0.0, 0.5, 0.7310586, 1.0])
    torch.testing.assert_close(position.row_mass()[:, 0], shares)
    torch.testing.assert_close(content.row_mass()[:, 0], 1 - shares)
    whole = attention.dense()
    torch.testing.assert_close(whole[0], content.operands[0].dense()[0])
    torch.testing.assert_close(whole[3], position.operands[0].dense()[3])


def test_the_nonlocality_of_a_gated_layer_is_what_timm_measures_itself():
    model, picture = small("ConViT")
    entered: list[torch.Tensor] = []
    gated = model.blocks[1].attn
    gated.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    trace = capture(Subject(model), {"x": picture})
    reading = measure(trace, "nonlocality", stack="blocks.attn.GPSA")
    with torch.no_grad():
        expected = gated.get_attention_map(entered[0]).mean()
    torch.testing.assert_close(reading.values[1], expected)


def test_a_stored_gated_layer_still_has_its_parts(tmp_path):
    model, picture = small("ConViT")
    trace = capture(Subject(model), {"x": picture})
    trace.save(tmp_path / "convit.safetensors")
    key = ("blocks.attn.GPSA", 0)
    stored = open_trace(tmp_path / "convit.safetensors").attention[key]
    gate = stored.operands[0].operands[1].row_mass()[:, 0]
    torch.testing.assert_close(gate, torch.sigmoid(model.blocks[0].attn.gating_param.detach()))


# --- HaloNet --------------------------------------------------------------------------------


@pytest.mark.parametrize("strided", [1, 2])
def test_a_halo_module_alone_equals_a_loop_over_blocks(strided):
    torch.manual_seed(0)
    module = HaloAttn(8, num_heads=2, block_size=4, halo_size=1, stride=strided).eval()
    features = torch.randn(1, 8, 8, 8)
    trace = capture(Subject(module), {"x": features})
    seen = trace.observations[0]
    _, value = module.kv(features)[0].detach().unflatten(0, (2, -1)).split([4, 4], dim=1)
    torch.testing.assert_close(seen.value, value.flatten(2).mT)
    side = 8 // strided
    maps = seen.attention.dense().reshape(2, side, side, 8, 8)
    for row in range(side):
        for column in range(side):
            top, left = strided * row // 4 * 4, strided * column // 4 * 4
            seen_here = maps[:, row, column] > 0
            window = torch.zeros(8, 8, dtype=torch.bool)
            window[max(0, top - 1) : top + 5, max(0, left - 1) : left + 5] = True
            assert torch.equal(seen_here, window.expand(2, -1, -1))
    read = seen.attention.apply(seen.value).mT.reshape(1, 8, side, side)
    torch.testing.assert_close(read, module(features).detach(), rtol=1e-4, atol=1e-5)
