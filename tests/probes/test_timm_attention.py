"""The adapter for timm: what it restores, refuses, names, and hears with gradients."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from attnscope import capture, open_trace
from attnscope.attention import SoftmaxAttention, WindowedAttention
from attnscope.probes import CaptureError, Measuring, Subject
from attnscope.probes.adapters.timm_attention import listening, names
from benchmarks.timm_models import small


def flags(model: nn.Module) -> list[object]:
    hooks = [(len(one._forward_hooks), len(one._forward_pre_hooks)) for one in model.modules()]
    names = ("fused_attn", "grad_checkpointing")
    fused = [[getattr(one, name, None) for name in names] for one in model.modules()]
    return [hooks, fused, [one.training for one in model.modules()], torch.is_grad_enabled()]


def test_a_vit_is_heard_by_its_factors_with_its_class_token_before_the_grid():
    model, picture = small("DeiT, distilled")
    trace = capture(Subject(model), {"pixel_values": picture})
    assert trace.stacks == ("blocks.attn",)
    assert [(site.layer, site.path) for site in trace.sites] == [
        (0, "blocks.0.attn"),
        (1, "blocks.1.attn"),
    ]
    attention = trace.attention[1]
    assert isinstance(attention, SoftmaxAttention)
    assert attention.shape == (2, 18, 18)
    image = trace.sequences["image"]
    assert [(run.name, run.start, run.stop, run.grid) for run in image.segments] == [
        ("special", 0, 2, None),
        ("image", 2, 18, (4, 4)),
    ]
    assert (attention.query_axis, attention.key_axis, image.axis) == ("patch", "patch", "patch")


def test_register_tokens_count_as_special():
    model, picture = small("DINOv2 with registers")
    trace = capture(Subject(model), {"x": picture})
    assert [run.start for run in trace.sequences["image"].segments] == [0, 5]


@pytest.mark.parametrize("training", [True, False])
def test_everything_is_as_it_was_when_the_model_fails_half_way(training):
    model, picture = small("Swin")
    model.train(training)
    before = flags(model)

    def fail(*_: object) -> None:
        raise RuntimeError("half way")

    handle = model.get_submodule("layers.1.blocks.0.attn.proj").register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="half way"):
        capture(Subject(model), {"x": picture})
    handle.remove()
    assert flags(model) == before
    assert functional.scaled_dot_product_attention is torch._C._nn.scaled_dot_product_attention
    assert len(capture(Subject(model), {"x": picture}).sites) == 4
    assert flags(model) == before


def test_a_capture_in_training_mode_drops_nothing():
    model, picture = small("ViT")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    calm = capture(Subject(model), {"x": picture})
    model.train()
    again = capture(Subject(model), {"x": picture})
    assert torch.equal(calm.attention[1].dense(), again.attention[1].dense())


def test_only_the_layers_that_are_asked_for_are_recorded():
    model, picture = small("Twins")
    trace = capture(Subject(model), {"x": picture}, layers=[0])
    assert {site.layer for site in trace.sites} == {0}
    with pytest.raises(CaptureError, match=r"no layer \[7\] exists"):
        capture(Subject(model), {"x": picture}, layers=[7])


@pytest.mark.parametrize(
    ("family", "stacks"),
    [
        ("Swin", ["layers.0.blocks.attn", "layers.1.blocks.attn"]),
        ("CaiT", ["blocks.attn", "blocks_token_only.attn"]),
        ("ConViT", ["blocks.attn.GPSA", "blocks.attn.MHSA"]),
        ("SAM", ["blocks.attn.windows", "blocks.attn.whole"]),
        ("DaViT", [f"stages.{stage}.blocks.{kind}.attn" for stage in (0, 1) for kind in (0, 1)]),
        ("Hiera", [f"stages.{stage}.blocks.attn" for stage in range(4)]),
        (
            "LeViT",
            [
                "stages.0.blocks.attn",
                "stages.1.downsample.attn_downsample",
                "stages.1.blocks.attn",
                "stages.2.downsample.attn_downsample",
                "stages.2.blocks.attn",
            ],
        ),
    ],
)
def test_stacks_hold_one_kind_of_attention_and_layers_count_within_a_stage(family, stacks):
    model, _ = small(family)
    named = names(model)
    assert list(dict.fromkeys(stack for stack, _ in named.values())) == stacks
    assert len(set(named.values())) == len(named)


def test_layers_of_hiera_start_anew_in_each_stage_and_those_of_convit_do_not():
    hiera, convit = names(small("Hiera")[0]), names(small("ConViT")[0])
    assert [layer for _, layer in hiera.values()] == [0, 0, 1, 0, 1, 0]
    assert [layer for _, layer in convit.values()] == [0, 1, 2]


@pytest.mark.parametrize("family", ["ViT", "Swin V2", "ConViT", "XCiT", "VOLO"])
def test_gradients_are_those_of_what_enters_the_projection(family):
    model, picture = small(family)
    trace = capture(Subject(model), {"x": picture}, gradient="logit")
    seen: dict[str, torch.Tensor] = {}

    def keep(path: str):
        def hook(module: nn.Module, args: tuple[torch.Tensor]) -> None:
            args[0].retain_grad()
            seen[path] = args[0]

        return hook

    for path, module in model.named_modules():
        if path.endswith("attn.proj"):
            module.register_forward_pre_hook(keep(path))
    logits = model(picture)
    logits = logits if isinstance(logits, torch.Tensor) else logits[0]
    logits[0, int(logits[0].argmax())].backward()
    for one in trace.observations:
        expected = seen[f"{one.site.path}.proj"].grad
        assert expected is not None
        found = one.gradient
        assert found is not None
        # All orders of the same numbers: windows and channels stand differently in the two.
        torch.testing.assert_close(
            found.flatten().sort().values, expected.flatten().sort().values, rtol=1e-3, atol=1e-6
        )
        torch.testing.assert_close(
            float(found.norm()), float(expected.norm()), rtol=1e-4, atol=1e-7
        )


def test_blocks_that_are_run_again_in_the_backward_pass_are_heard_once():
    model, picture = small("Swin")
    plain = capture(Subject(model), {"x": picture}, gradient="logit")
    model.set_grad_checkpointing(True)
    before = flags(model)
    again = capture(Subject(model), {"x": picture}, gradient="logit")
    assert again.sites == plain.sites
    for one, other in zip(again.observations, plain.observations, strict=True):
        torch.testing.assert_close(one.gradient, other.gradient)
    assert flags(model) == before


def test_gradients_of_tokens_stand_where_the_tokens_stand():
    model, picture = small("ViT")
    trace = capture(Subject(model), {"x": picture}, gradient="logit")
    kept: list[torch.Tensor] = []
    proj = model.get_submodule("blocks.1.attn.proj")
    proj.register_forward_pre_hook(
        lambda module, args: kept.append(args[0]) or args[0].retain_grad()
    )
    logits = model(picture)
    logits[0, int(logits[0].argmax())].backward()
    expected = kept[0].grad[0].unflatten(-1, (2, 16)).transpose(0, 1)
    torch.testing.assert_close(trace.observations[1].gradient, expected, rtol=1e-4, atol=1e-7)


def test_streaming_gives_what_a_trace_gives(tmp_path):
    model, picture = small("Swin")
    trace = capture(Subject(model), {"x": picture})
    trace.save(tmp_path / "swin.safetensors")
    stack = "layers.0.blocks.attn"
    stored = open_trace(tmp_path / "swin.safetensors")
    assert isinstance(stored.attention[stack, 1], WindowedAttention)
    from attnscope import measure

    streamed = capture(Subject(model), {"x": picture}, into=Measuring("entropy", stack=stack))
    torch.testing.assert_close(
        streamed["entropy"].values, measure(stored, "entropy", stack=stack).values
    )


def test_a_batch_of_pictures_is_heard_picture_by_picture():
    model, picture = small("Swin")
    other = torch.randn_like(picture)
    heard: list[torch.Tensor] = []
    with torch.no_grad(), listening(model, lambda call: _keep(call, heard), lambda module: ()):
        model(torch.cat([picture, other]))
    alone: list[torch.Tensor] = []
    with torch.no_grad(), listening(model, lambda call: _keep(call, alone), lambda module: ()):
        model(other)
    assert len(heard) == len(alone) == 4
    for both, one in zip(heard, alone, strict=True):
        torch.testing.assert_close(both[1], one[0], rtol=1e-4, atol=1e-5)


def _keep(call, into):
    into.append(call.attention.dense())
    return call.output


def test_what_the_listener_returns_is_what_the_model_goes_on_with():
    model, picture = small("HaloNet")
    with torch.no_grad():
        plain = model(picture)
        with listening(model, lambda call: call.output * 2, lambda module: ()):
            changed = model(picture)
        with listening(model, lambda call: call.output, lambda module: ()):
            same = model(picture)
    assert torch.equal(plain, same)
    assert not torch.allclose(plain, changed)


@pytest.mark.parametrize("causal", [True, False])
def test_masks_of_the_fused_call_are_part_of_the_operator(causal):
    from timm.layers import Attention

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = Attention(16, num_heads=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            allowed = torch.ones(5, 5, dtype=torch.bool).tril(1)
            return self.attn(x, is_causal=True) if causal else self.attn(x, attn_mask=allowed)

    torch.manual_seed(0)
    trace = capture(Subject(Masked().eval()), {"x": torch.randn(1, 5, 16)})
    dense = trace.attention[0].dense()
    assert torch.equal(dense > 0, torch.ones(2, 5, 5).tril(0 if causal else 1) > 0)
    assert trace.attention[0].causal is causal


def test_a_subclass_is_read_as_its_base_and_refused_where_no_map_meets_the_values():
    from timm.layers import Attention

    class Silent(Attention):
        def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
            return self.proj(x.softmax(-1))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), Silent(16, num_heads=2))
    with pytest.raises(CaptureError, match=r"1 \(Silent\) ran, and no map of it met any values"):
        capture(Subject(model), {"input": torch.randn(1, 5, 8)})
    assert all(not module._forward_hooks for module in model.modules())


def test_tensors_that_fit_no_layout_are_refused_by_the_name_of_the_module():
    from timm.layers import Attention

    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = Attention(16, num_heads=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attn(x.reshape(4, -1, 16))

    with pytest.raises(CaptureError, match=r"the attention of attn \(Attention\) mixes tensors of"):
        capture(Subject(Folding()), {"x": torch.randn(1, 8, 16)})


def test_a_model_of_another_library_costs_nothing(model, tokens):
    assert names(model) == {}
    with listening(model, lambda call: call.output, lambda module: ()):
        assert all(not module._forward_pre_hooks for module in model.modules())


def test_modules_of_timm_that_stand_inside_another_model_are_heard():
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision_tower = timm.create_model("test_vit", num_classes=3)

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.vision_tower(pixel_values)

    trace = capture(Subject(Wrapped()), {"pixel_values": torch.randn(1, 3, 32, 32)})
    assert trace.stacks == ("vision_tower.blocks.attn",)
    assert trace.sequences["image"].segments.runs[-1].grid == (2, 2)
