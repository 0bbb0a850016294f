"""Models that apply operators through `Mixing` modules: sites, sequences, gradients."""

import pytest
import torch
from torch import Tensor, nn

from attnscope import capture
from attnscope.attention import DenseAttention, Mixing, SoftmaxAttention
from attnscope.probes import CaptureError, Logit, Subject
from attnscope.probes.adapters.mixing_attention import layer_by_last_number
from attnscope.probes.axis_sequence import axis_sequence
from tests.models.capturing import assert_capture_keeps_the_contract


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 2 * width)
        self.mixing = Mixing()
        self.memory = nn.Parameter(torch.randn(1, 1, 3, width))
        self.reading = Mixing()

    def forward(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        query, key = self.project(features).unsqueeze(1).chunk(2, dim=-1)
        attention = SoftmaxAttention(query, key, causal=False, query_axis="patch", key_axis="patch")
        features = features + self.mixing(attention, features.unsqueeze(1), grid).squeeze(1)
        memory = self.memory.expand(len(features), -1, -1, -1)
        lookup = SoftmaxAttention(
            features.unsqueeze(1), memory, causal=False, query_axis="patch", key_axis="memory"
        )
        return features + self.reading(lookup, memory, grid).squeeze(1)


class Pyramid(nn.Module):
    """Two stages over grids of 4 x 6 and 2 x 3 patches, and a class token in the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.ModuleList(Block(4) for _ in range(2)) for _ in range(2))
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.head = nn.Linear(4, 5)

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = pixel_values.flatten(2).mT
        for block in self.stages[0]:
            features = block(features, (4, 6))
        pooled = nn.functional.avg_pool2d(features.mT.unflatten(-1, (4, 6)), 2).flatten(2).mT
        features = torch.cat([self.token.expand(len(pooled), -1, -1), pooled], dim=1)
        for block in self.stages[1]:
            features = block(features, (2, 3))
        return self.head(features[:, 0])


@pytest.fixture
def model() -> Pyramid:
    torch.manual_seed(0)
    return Pyramid().eval()


@pytest.fixture
def pixels() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 4, 4, 6)


def test_a_capture_keeps_the_contract(model: Pyramid, pixels: Tensor, tmp_path) -> None:
    assert_capture_keeps_the_contract(model, {"pixel_values": pixels}, tmp_path)


def test_stages_are_stacks_with_grids_of_their_own(model: Pyramid, pixels: Tensor) -> None:
    trace = capture(Subject(model), {"pixel_values": pixels})
    assert trace.main_sequence == "image"
    assert trace.main_stack == "stages.0.mixing"
    assert [(site.stack, site.layer) for site in trace.sites[:3]] == [
        ("stages.0.mixing", 0),
        ("stages.0.reading", 0),
        ("stages.0.mixing", 1),
    ]
    first, second = (trace.select(stack=f"stages.{stage}.mixing").sites[0] for stage in range(2))
    assert (first.query_sequence, second.query_sequence) == ("image", "image 2x3")
    later = trace.sequences["image 2x3"]
    assert later.tokens[:3] == ("[0]", "r0c0", "r0c1")
    assert [(run.name, run.grid) for run in later.segments] == [
        ("special", None),
        ("image", (2, 3)),
    ]
    reading = trace.select(stack="stages.1.reading").sites[0]
    assert (reading.query_sequence, reading.key_sequence) == ("image 2x3", "memory")


def test_layers_are_chosen_within_their_stage(model: Pyramid, pixels: Tensor) -> None:
    trace = capture(Subject(model), {"pixel_values": pixels}, layers=[-1])
    assert {site.layer for site in trace.sites} == {1}
    assert len(trace.sites) == 4
    with pytest.raises(CaptureError, match=r"no layer \[7\] exists; .*'stages.1.reading': 2"):
        capture(Subject(model), {"pixel_values": pixels}, layers=[7])


def test_gradients_are_those_of_autograd(model: Pyramid, pixels: Tensor) -> None:
    trace = capture(Subject(model), {"pixel_values": pixels}, gradient=Logit(2))
    kept = {}
    handles = [
        module.register_forward_hook(lambda m, a, output, path=path: keep(kept, path, output))
        for path, module in model.named_modules()
        if isinstance(module, Mixing)
    ]
    model(pixels)[0, 2].backward()
    for observation in trace.observations:
        torch.testing.assert_close(observation.gradient, kept[observation.site.path].grad[0])
    for handle in handles:
        handle.remove()
    assert all(not module._forward_hooks for module in model.modules())


def keep(kept: dict[str, Tensor], path: str, output: Tensor) -> None:
    output.retain_grad()
    kept[path] = output


def test_hooks_are_gone_when_the_model_fails(model: Pyramid) -> None:
    with pytest.raises(RuntimeError):
        capture(Subject(model), {"pixel_values": torch.randn(1, 3, 4, 6)})
    assert all(not module._forward_hooks for module in model.modules())


def test_a_single_module_is_a_model_too() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixing = Mixing()

        def forward(self, features: Tensor) -> Tensor:
            return self.mixing(DenseAttention(features.softmax(-1)), features)

    trace = capture(Subject(Alone()), {"features": torch.randn(1, 2, 3, 3)})
    assert trace.main_sequence == "input"
    assert trace.attention[0].shape == (2, 3, 3)


def test_an_axis_finds_its_sequence_or_a_free_name() -> None:
    known = {}
    for axis, length, grid, name in [
        ("patch", 6, (2, 3), "image"),
        ("patch", 6, (2, 3), "image"),
        ("patch", 7, (2, 3), "image 2x3"),
        ("patch", 8, (2, 3), "image 2x3 of 8"),
        ("patch", 12, (2, 2, 3), "video"),
        ("channel", 4, None, "channel"),
        ("channel", 5, None, "channel 5"),
        ("token", 5, None, "input"),
    ]:
        sequence = axis_sequence(axis, length, grid, known)
        assert (sequence.name, len(sequence), sequence.axis) == (name, length, axis)
        known[name] = sequence
    assert axis_sequence("token", 5, None, {"text": known["input"]}) is known["input"]
    assert known["video"].tokens[-1] == "f1r1c2"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("mixing", ("mixing", 0)), ("blocks.3.mixing", ("blocks.mixing", 3))],
)
def test_a_layer_is_the_last_number_of_a_path(path: str, expected: tuple[str, int]) -> None:
    assert layer_by_last_number(path) == expected
