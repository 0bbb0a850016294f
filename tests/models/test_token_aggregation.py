"""Token aggregation against loops over sub-groups, and what its centers do in training."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from attnscope.attention import SoftmaxAttention, WindowedAttention
from attnscope.models.token_aggregation import TokenAggregation, sub_groups
from attnscope.models.token_aggregation_centers import chunk_means, moved_centers
from attnscope.models.token_aggregation_network import CATANet
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = {"sizes": (8, 4, 6, 2), "centers": (3, 4), "groups": (8, 5), "patches": (4, 5)}


def block(centers: int = 3, group: int = 4, steps: int = 5) -> TokenAggregation:
    torch.manual_seed(0)
    module = TokenAggregation(8, 4, 6, 2, centers=centers, group=group, steps=steps).double()
    module.ready.fill_(True)
    return module.eval()


def features_of(rows: int, columns: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 8, rows, columns, dtype=torch.float64)


def read_by_loops(module: TokenAggregation, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return both attentions' maps for the normalized tokens of one image, `(head, token, key)`."""
    length, heads = len(tokens), module.heads
    units = normalize(module.centers, dim=-1)
    alike = (normalize(tokens, dim=-1) @ units.T).tolist()
    nearest = [max(range(len(units)), key=lambda center: row[center]) for row in alike]
    ordered = sorted(range(length), key=lambda token: nearest[token])
    size = min(length, module.group)
    count = -(-length // size)
    behind = count * size - length + size
    circle = ordered + ordered[length - behind :][::-1]
    near = torch.zeros(heads, length, length, dtype=tokens.dtype)
    far = torch.zeros(heads, length, len(module.centers), dtype=tokens.dtype)
    query, key = module.query(tokens), module.key(tokens)
    center_key = module.center_key(module.centers)
    for head, part in enumerate(torch.arange(query.shape[-1]).chunk(heads)):
        for place, token in enumerate(ordered):
            start = place // size * size
            seen = circle[start : start + 2 * size]
            one = query[token, part] / len(part) ** 0.5
            shares = torch.stack([one @ key[other, part] for other in seen]).softmax(0)
            for other, share in zip(seen, shares, strict=True):
                near[head, token, other] += share
            far[head, token] = (center_key[:, part] @ one).softmax(0)
    return near, far


def output_by_loops(module: TokenAggregation, image: Tensor) -> Tensor:
    tokens = image.flatten(1).T
    near, far = read_by_loops(module, module.norm(tokens))
    values = module.value(module.norm(tokens)).chunk(module.heads, dim=-1)
    center_values = module.center_value(module.centers).chunk(module.heads, dim=-1)
    mixed = [
        near[head] @ values[head] + far[head] @ center_values[head] for head in range(module.heads)
    ]
    mixed = module.projection(torch.cat(mixed, dim=-1)) @ module.pointwise.weight[..., 0, 0].T
    tokens = tokens + mixed
    grid = image.shape[-2], image.shape[-1]
    tokens = tokens + module.mlp(module.mlp_norm(tokens)[None], grid)[0]
    return tokens.T.reshape(image.shape)


@pytest.mark.parametrize(("rows", "columns", "group"), [(2, 5, 4), (3, 4, 4), (2, 3, 9)])
def test_it_is_what_loops_make_of_it(rows: int, columns: int, group: int) -> None:
    module = block(group=group)
    images = features_of(rows, columns)
    expected = torch.stack([output_by_loops(module, image) for image in images])
    torch.testing.assert_close(module(images), expected)


def test_the_operators_are_the_maps_of_tokens_in_their_own_order() -> None:
    module = block()
    tokens = module.norm(features_of(2, 5).flatten(2).mT)
    expected = [read_by_loops(module, item) for item in tokens]
    near = module.intra_attention(tokens, module.order(tokens, module.centers))
    far = module.center_attention(tokens, module.centers)
    assert isinstance(near, WindowedAttention)
    assert isinstance(far, SoftmaxAttention)
    torch.testing.assert_close(near.dense(), torch.stack([pair[0] for pair in expected]))
    torch.testing.assert_close(far.dense(), torch.stack([pair[1] for pair in expected]))
    for attention in (near, far):  # each row is a distribution of its own; their sum is not
        assert attention.stochastic
        torch.testing.assert_close(attention.row_mass(), torch.ones_like(attention.row_mass()))


def test_sub_groups_see_their_own_tokens_the_next_ones_and_a_mirror_image() -> None:
    queries, keys = sub_groups(torch.arange(10), 4)
    assert queries.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]]
    assert [len(set(row)) for row in keys.tolist()] == [8, 6, 6]
    assert [sorted(row).count(9) for row in keys.tolist()] == [0, 2, 2]
    assert [sorted(row).count(8) for row in keys.tolist()] == [0, 2, 2]


def test_a_list_that_cannot_be_mirrored_far_enough_is_refused() -> None:
    with pytest.raises(ValueError, match=r"it takes 4 tokens or less, or 6 or more"):
        sub_groups(torch.arange(5), 4)
    assert sub_groups(torch.arange(6), 4)[1].tolist()[1] == [4, 5, 5, 4, 3, 2, 1, 0]
    assert sub_groups(torch.arange(4), 4)[1].tolist() == [[0, 1, 2, 3, 3, 2, 1, 0]]


def test_tokens_of_one_center_stay_in_raster_order() -> None:
    module = block()
    order = module.order(torch.ones(1, 12, 8, dtype=torch.float64), module.centers)
    assert order.tolist() == [list(range(12))]


def test_first_centers_are_means_of_chunks_of_the_whole_batch() -> None:
    tokens = torch.stack([torch.arange(5.0), torch.arange(5.0) + 10]).unsqueeze(-1)
    # Filled up to 0 1 2 3 4 4 and the same plus 10, in chunks of 3 tokens of either image.
    assert chunk_means(tokens, 2).flatten().tolist() == pytest.approx([6, 8 + 2 / 3])
    with pytest.raises(ValueError, match="6 centers cannot start from 5 tokens"):
        chunk_means(tokens, 6)


def test_a_step_moves_centers_to_the_direction_of_their_tokens() -> None:
    torch.manual_seed(0)
    tokens = normalize(torch.randn(2, 9, 3), dim=-1)
    centers = normalize(torch.randn(4, 3), dim=-1)
    centers[3] = -tokens.flatten(0, 1).mean(0)  # far from all: it keeps its place
    expected = centers.clone()
    members = (tokens @ centers.mT).argmax(-1)
    for center in range(4):
        own = tokens[members == center]
        if len(own):
            expected[center] = own.sum(0) / own.sum(0).norm()
    torch.testing.assert_close(moved_centers(tokens, centers), expected)


def test_training_moves_the_centers_and_keeps_their_moving_average() -> None:
    module, images = block(steps=3), features_of(3, 4)
    module.ready.fill_(False)
    module.train()(images)
    tokens = module.norm(images.flatten(2).mT)
    expected = chunk_means(tokens, 3)
    for _ in range(3):
        expected = moved_centers(normalize(tokens, dim=-1), normalize(expected, dim=-1))
    assert module.ready
    torch.testing.assert_close(module.centers, expected.detach())
    module(images)
    moved = expected
    for _ in range(3):
        moved = moved_centers(normalize(tokens, dim=-1), normalize(moved, dim=-1))
    torch.testing.assert_close(module.centers, (0.999 * expected + 0.001 * moved).detach())
    kept = module.centers.clone()
    module.eval()(images)
    assert torch.equal(module.centers, kept)
    assert "centers" in module.state_dict()


def test_an_untrained_module_depends_on_the_batch_and_a_trained_one_does_not() -> None:
    module, images = block(), features_of(3, 4)
    torch.testing.assert_close(module(images)[:1], module(images[:1]))
    module.ready.fill_(False)
    assert not torch.allclose(module(images)[:1], module(images[:1]))


def test_gradients_are_those_of_finite_differences() -> None:
    module, images = block(), features_of(2, 4, batch=1).requires_grad_()
    assert torch.autograd.gradcheck(module, (images,), fast_mode=True)


@pytest.mark.parametrize(
    ("factor", "count"), [(1, 419_675), (2, 477_435), (3, 549_635), (4, 535_195)]
)
def test_a_network_has_the_released_number_of_parameters(factor: int, count: int) -> None:
    assert sum(parameter.numel() for parameter in CATANet(factor).parameters()) == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_network_enlarges_images(factor: int, training: bool, dtype: torch.dtype) -> None:
    network = CATANet(factor, **TINY).to(dtype).train(training)
    images = network(torch.randn(2, 3, 9, 7, dtype=dtype))
    assert (images.shape, images.dtype) == ((2, 3, 9 * factor, 7 * factor), dtype)
    images.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_an_image_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="patches of 5 tokens do not fit into 4"):
        CATANet(2, **TINY)(torch.zeros(1, 3, 4, 8))
    with pytest.raises(
        ValueError, match=r"there is no CATANet of factor 5; there are \[1, 2, 3, 4\]"
    ):
        CATANet(5)


def test_it_keeps_the_contract_of_capture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = {"pixel_values": torch.randn(1, 3, 9, 11)}
    trace = assert_capture_keeps_the_contract(CATANet(2, **TINY), inputs, tmp_path)
    assert [site.path for site in trace.sites][:3] == [
        "blocks.0.aggregation.intra_mixing",
        "blocks.0.aggregation.center_mixing",
        "blocks.0.local.mixing",
    ]
