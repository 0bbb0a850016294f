"""Strip self-attention against loops, and against plain attention where it is that."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnscope.models.factorization_spread import spread_over_patches
from attnscope.models.strip import HybridPerceptionBlock, StripAttention
from attnscope.models.strip_network import StripNetwork
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = {"channels": (4, 6, 6, 8), "depths": (1, 1, 1, 2), "heads": (1, 2, 3, 2)}


def looped(module: StripAttention, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output for one image and its maps, pixel by pixel and head by head."""
    size, heads = module.reduce.stride[0], module.heads
    patches = []
    for top in range(0, image.shape[1] - size + 1, size):
        for left in range(0, image.shape[2] - size + 1, size):
            patch = image[:, top : top + size, left : left + size]
            summed = torch.einsum("ocij,cij->o", module.reduce.weight, patch)
            patches.append(module.norm(summed + module.reduce.bias))
    tokens = image.flatten(1).T
    queries, maps, outputs = module.query(tokens), [], []
    keys = module.key(torch.stack(patches)).chunk(heads, dim=-1)
    values = module.value(torch.stack(patches)).chunk(heads, dim=-1)
    for query, key, value in zip(queries.chunk(heads, dim=-1), keys, values, strict=True):
        rows = [(key @ one / math.sqrt(len(one))).softmax(0) for one in query]
        maps.append(torch.stack(rows))
        outputs.append(torch.stack([row @ value for row in rows]))
    output = module.projection(torch.cat(outputs, dim=-1))
    return output.T.reshape(image.shape), torch.stack(maps)


@pytest.mark.parametrize(("reduction", "strip"), [(2, 1), (3, 2), (1, 1)])
def test_it_is_what_loops_make_of_it(reduction: int, strip: int) -> None:
    torch.manual_seed(0)
    module = StripAttention(6, 2, reduction, strip).double()
    images = torch.randn(2, 6, 6, 7, dtype=torch.float64)
    expected = [looped(module, image) for image in images]
    torch.testing.assert_close(module(images), torch.stack([output for output, _ in expected]))
    tokens = images.flatten(2).mT
    patches = module.norm(module.reduce(images).flatten(2).mT)
    attention = module.attention(tokens, patches)
    torch.testing.assert_close(attention.dense(), torch.stack([maps for _, maps in expected]))
    assert attention.stochastic


def test_a_row_is_an_exponential_tilt_of_the_keys() -> None:
    module = StripAttention(1, 1, 1)
    for projection in (module.query, module.key):
        torch.nn.init.ones_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    tokens, patches = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[0.0], [math.log(3)]]])
    rows = module.attention(tokens, patches).dense()[0, 0]
    torch.testing.assert_close(rows, torch.tensor([[0.5, 0.5], [0.25, 0.75]]))


def test_the_scores_of_a_head_have_rank_one() -> None:
    torch.manual_seed(0)
    attention = StripAttention(8, 2, 1).attention(torch.randn(1, 9, 8), torch.randn(1, 9, 8))
    scores = attention.dense().log() + attention.log_normalizer().unsqueeze(-1)
    assert torch.linalg.matrix_rank(scores, rtol=1e-4).tolist() == [[1, 1]]


def test_without_shrinking_it_is_plain_attention() -> None:
    torch.manual_seed(0)
    module = StripAttention(8, 2, 1, strip=4).double()
    torch.nn.init.dirac_(module.reduce.weight)
    torch.nn.init.zeros_(module.reduce.bias)
    images = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    tokens = images.flatten(2).mT
    normal = module.norm(tokens)
    query, key, value = (
        part.unflatten(-1, (2, 4)).transpose(1, 2)
        for part in (module.query(tokens), module.key(normal), module.value(normal))
    )
    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    expected = module.projection(plain.transpose(1, 2).flatten(2)).mT.reshape(images.shape)
    torch.testing.assert_close(module(images), expected)


def test_a_key_stands_for_its_patch() -> None:
    torch.manual_seed(0)
    attention = StripAttention(4, 1, 2).attention(torch.randn(1, 16, 4), torch.randn(1, 4, 4))
    spread = spread_over_patches(attention, (4, 4), 2).dense()[0, 0]
    share = attention.columns([0])[0, 0] / 4
    torch.testing.assert_close(spread[:, [0, 1, 4, 5]], share.expand(-1, 4))


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    block = HybridPerceptionBlock(4, 2, 2).double()
    images = torch.randn(1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (images,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_a_network_runs_in_training_and_evaluation(dtype: torch.dtype, training: bool) -> None:
    network = StripNetwork(**TINY, classes=5).to(dtype).train(training)
    logits = network(torch.randn(2, 3, 64, 64, dtype=dtype))
    assert (logits.shape, logits.dtype) == ((2, 5), dtype)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_it_keeps_the_contract_of_capture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = {"pixel_values": torch.randn(1, 3, 64, 64)}
    trace = assert_capture_keeps_the_contract(StripNetwork(**TINY, classes=5), inputs, tmp_path)
    assert [site.path for site in trace.sites][-1] == "stages.3.1.attention.mixing"


def test_heads_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="5 channels cannot be divided among 2 heads"):
        StripAttention(5, 2, 2)
