"""Super token attention against loops over pixels and cells, in the order of the released code."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnscope.attention import GroupedAttention, SoftmaxAttention
from attnscope.models.super_token import SuperTokenAttention, super_tokens
from attnscope.models.super_token_network import SViT, svit
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = {
    "channels": (4, 6, 6, 8),
    "depths": (1, 1, 1, 2),
    "heads": (1, 2, 3, 2),
    "cells": (4, 2, 1, 1),
    "layer_scale": 1e-6,
}


def membership(features: Tensor, size: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Return `Q` (pixel, super token) and `S` (super token, channel) of one padded image."""
    channels, rows, columns = features.shape
    cells = list(itertools.product(range(rows // size), range(columns // size)))
    pixels = list(itertools.product(range(rows), range(columns)))
    owner = {pixel: (pixel[0] // size, pixel[1] // size) for pixel in pixels}
    tokens = torch.stack([features[:, row, column] for row, column in pixels])
    center = {
        cell: torch.stack([features[:, r, c] for r, c in pixels if owner[r, c] == cell]).mean(0)
        for cell in cells
    }
    read = torch.zeros(len(pixels), len(cells), dtype=features.dtype)
    for _ in range(iterations):
        for number, (row, column) in enumerate(pixels):
            down, right = owner[row, column]
            around = [(down + d, right + r) for d in (-1, 0, 1) for r in (-1, 0, 1)]
            nobody = torch.zeros(channels, dtype=features.dtype)
            logits = [features[:, row, column] @ center.get(cell, nobody) for cell in around]
            shares = (torch.stack(logits) / channels**0.5).softmax(0)
            for cell, share in zip(around, shares, strict=True):
                if cell in center:
                    read[number, cells.index(cell)] = share
        sampled = (read / (read.sum(0) + 1e-12)).T @ tokens
        center = dict(zip(cells, sampled, strict=True))
    return read, sampled


def released(module: SuperTokenAttention, image: Tensor) -> Tensor:
    """Return the output for one image: pool, project, attend, project, spread."""
    rows, columns = image.shape[-2:]
    below, right = -rows % module.size, -columns % module.size
    padded = torch.nn.functional.pad(image, (0, right, 0, below))
    read, sampled = membership(padded, module.size, module.iterations)
    query, key, value = (part(sampled) for part in (module.query, module.key, module.value))
    mixed = []
    for part in torch.arange(image.shape[0]).chunk(module.heads):
        scores = query[:, part] @ key[:, part].T / len(part) ** 0.5
        mixed.append(scores.softmax(-1) @ value[:, part])
    output = read @ module.projection(torch.cat(mixed, dim=-1))
    return output.T.reshape(-1, *padded.shape[-2:])[:, :rows, :columns]


@pytest.mark.parametrize(
    ("shape", "size", "iterations"),
    [((6, 9), 3, 1), ((4, 4), 2, 2), ((5, 7), 4, 1), ((4, 4), 4, 1)],
)
def test_it_is_the_released_module(shape: tuple[int, int], size: int, iterations: int) -> None:
    torch.manual_seed(0)
    module = SuperTokenAttention(6, 2, size, iterations).double()
    images = torch.randn(2, 6, *shape, dtype=torch.float64)
    expected = torch.stack([released(module, image) for image in images])
    torch.testing.assert_close(module(images), expected)


def test_the_operator_is_the_product_of_membership_attention_and_membership() -> None:
    torch.manual_seed(0)
    module = SuperTokenAttention(6, 2, 2).double()
    image = torch.randn(1, 6, 4, 6, dtype=torch.float64)
    attention = module.attention(image)
    assert isinstance(attention, GroupedAttention)
    read, sampled = membership(image[0], 2, 1)
    assert isinstance(attention.mix, SoftmaxAttention)
    among = attention.mix.dense()[0]
    expected = read @ among @ (read / (read.sum(0) + 1e-12)).T
    torch.testing.assert_close(attention.dense()[0], expected)
    torch.testing.assert_close(attention.row_mass()[0], read.sum(-1).expand(2, -1))
    query = module.query(sampled).reshape(6, 2, 3).transpose(0, 1)
    key = module.key(sampled).reshape(6, 2, 3).transpose(0, 1)
    torch.testing.assert_close(among, (query @ key.mT / 3**0.5).softmax(-1))


def test_equal_pixels_are_members_of_nine_cells_and_leak_at_the_border() -> None:
    read, _ = super_tokens(torch.zeros(1, 3, 6, 6), 2)
    assert read.weights[read.weights > 0].unique().tolist() == pytest.approx([1 / 9])
    corner, edge, inside = (float(read.row_mass()[0, 0, pixel]) for pixel in (0, 2, 14))
    assert (9 * corner, 9 * edge, 9 * inside) == pytest.approx((4, 6, 9))


def test_the_leak_is_told_and_the_shown_map_can_be_made_whole() -> None:
    torch.manual_seed(0)
    attention = SuperTokenAttention(4, 1, 2).attention(torch.randn(1, 4, 4, 4))
    assert not attention.stochastic
    mass = attention.row_mass().detach()
    assert 0 < float(mass.min()) < float(mass.max()) < 1
    shown = attention.normalized()
    assert isinstance(shown, GroupedAttention)
    torch.testing.assert_close(shown.row_mass(), torch.ones(1, 1, 16))
    assert float(shown.entropy().detach().max()) <= torch.tensor(16.0).log()


def test_cells_of_one_pixel_are_plain_attention() -> None:
    torch.manual_seed(0)
    module = SuperTokenAttention(4, 2, 1)
    image = torch.randn(1, 4, 3, 3)
    assert isinstance(module.attention(image), SoftmaxAttention)
    tokens = image.flatten(2).mT
    query, key, value = (
        part(tokens).unflatten(-1, (2, 2)).transpose(1, 2)
        for part in (module.query, module.key, module.value)
    )
    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    expected = module.projection(plain.transpose(1, 2).flatten(2)).mT.reshape(1, 4, 3, 3)
    torch.testing.assert_close(module(image), expected)


def test_the_membership_is_found_without_gradient_and_values_have_one() -> None:
    image = torch.randn(1, 4, 4, 4, requires_grad=True)
    attention = SuperTokenAttention(4, 1, 2).attention(image)
    assert isinstance(attention, GroupedAttention)
    assert not attention.read.dense().requires_grad
    assert attention.dense().requires_grad  # through the super tokens' own attention


def test_gradients_are_those_of_finite_differences_where_the_membership_is_fixed() -> None:
    torch.manual_seed(0)
    module = SuperTokenAttention(4, 2, 2).double()
    image = torch.randn(1, 4, 4, 4, dtype=torch.float64)

    def output(*parameters: Tensor) -> Tensor:
        named = dict(zip(dict(module.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(module, named, (image,))

    parameters = [parameter.detach().requires_grad_() for parameter in module.parameters()]
    assert torch.autograd.gradcheck(output, parameters)


def test_memory_of_a_large_map_stays_linear() -> None:
    attention = SuperTokenAttention(2, 1, 16).attention(torch.randn(1, 2, 192, 192))
    assert attention.shape == (1, 1, 36_864, 36_864)
    assert attention.apply(torch.ones(1, 1, 36_864, 1)).shape == (1, 1, 36_864, 1)


@pytest.mark.parametrize(
    ("name", "count"), [("small", 25_495_624), ("base", 51_691_288), ("large", 94_971_096)]
)
def test_a_network_has_the_published_number_of_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        network = svit(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_a_network_runs_in_training_and_evaluation(dtype: torch.dtype, training: bool) -> None:
    network = SViT(**TINY, classes=5).to(dtype).train(training)
    logits = network(torch.randn(2, 3, 40, 32, dtype=dtype))
    assert (logits.shape, logits.dtype) == ((2, 5), dtype)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_it_keeps_the_contract_of_capture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = {"pixel_values": torch.randn(1, 3, 64, 64)}
    trace = assert_capture_keeps_the_contract(SViT(**TINY, classes=5), inputs, tmp_path)
    assert [site.path for site in trace.sites][-1] == "stages.3.1.attention.mixing"
    assert isinstance(trace.observations[0].attention, GroupedAttention)


def test_sizes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no SViT 'huge'; there are small, base, large"):
        svit("huge")


def test_heads_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="5 channels cannot be divided among 2 heads"):
        SuperTokenAttention(5, 2, 2)
