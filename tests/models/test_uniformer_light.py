"""UniFormer's pruning against loops over tokens in the order of the released code."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnscope.models.uniformer_light import UNIFORMER_LIGHT_VARIANTS, UniFormerLight
from attnscope.models.uniformer_network import UniFormerVariant
from attnscope.models.uniformer_pruning import PlacedAttention, PruningBlock, pooled_score
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = UniFormerVariant(depths=(1, 1, 2, 1), widths=(4, 4, 8, 8), head_width=4, ratio=2)
State = tuple[Tensor, Tensor, Tensor]


def attended(module: PlacedAttention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output of plain attention among the tokens, and the first one's mean map."""
    query, key, value = module.query_key_value(tokens).chunk(3, dim=-1)
    parts, looks = [], []
    for part in torch.arange(tokens.shape[-1]).chunk(module.heads):
        pattern = (query[:, part] @ key[:, part].T / len(part) ** 0.5).softmax(-1)
        parts.append(pattern @ value[:, part])
        looks.append(pattern[0])
    return module.output(torch.cat(parts, dim=-1)), torch.stack(looks).mean(0)


def released(block: PruningBlock, class_token: Tensor, image: Tensor, score: Tensor) -> State:
    """Return class token, image and scores of one item: sort, split, update, put back."""
    image = image + block.position(image[None])[0]
    patches = image.flatten(1).T
    order = sorted(range(len(score)), key=lambda place: -float(score[place]))
    kept = order[: int(block.keep * len(order))]
    dropped = order[len(kept) :]
    tokens = [class_token, *patches[kept]]
    if dropped:
        share = score[dropped] / score[dropped].sum()
        tokens.append((share[:, None] * patches[dropped]).sum(0))
    stacked = torch.stack(tokens)
    read, looks = attended(block.attention, block.attention_norm(stacked))
    made = block.mlp(block.mlp_norm(stacked + read))
    result, renewed = patches.clone(), score.clone()
    for slot, place in enumerate(kept, start=1):
        result[place] = (stacked + read + made)[slot]
        renewed[place] = (1 - block.renewal) * score[place] + block.renewal * looks[slot]
    for place in dropped:
        result[place] = patches[place] + read[-1] + made[-1]
    return (stacked + read + made)[0], result.T.reshape(image.shape), renewed


def random_state(patches: tuple[int, int], batch: int = 2) -> State:
    torch.manual_seed(0)
    rows, columns = patches
    score = torch.rand(batch, rows * columns, dtype=torch.float64)
    features = torch.randn(batch, 4, rows, columns, dtype=torch.float64)
    return torch.randn(batch, 1, 4, dtype=torch.float64), features, score


@pytest.mark.parametrize(
    ("patches", "keep", "renewal"), [((3, 4), 1.0, 1.0), ((3, 4), 0.5, 0.5), ((3, 3), 0.5, 0.3)]
)
def test_a_block_is_the_released_one(patches: tuple[int, int], keep: float, renewal: float) -> None:
    class_token, features, score = random_state(patches)
    block = PruningBlock(4, 2, 2, keep=keep, renewal=renewal).double()
    found = block(class_token, features, score)
    for item in range(2):
        token, image, renewed = released(block, class_token[item, 0], features[item], score[item])
        torch.testing.assert_close(found[0][item, 0], token)
        torch.testing.assert_close(found[1][item], image)
        torch.testing.assert_close(found[2][item], renewed)


def test_the_captured_map_stands_at_the_patches_own_positions() -> None:
    class_token, features, _ = random_state((2, 2), batch=1)
    block = PruningBlock(4, 2, 2, keep=0.5, renewal=0.5).double()
    score, seen = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64), []
    block.attention.mixing.register_forward_hook(
        lambda module, args, output: seen.append((args[0], output))
    )
    block(class_token, features, score)
    attention, output = seen[0]
    pattern = attention.dense()[0]  # class, representative, then patches 0 to 3, of which 1 and 3
    assert pattern.shape == (2, 6, 6)
    assert (pattern != 0).any(0).int().tolist() == [
        [1, 1, 0, 1, 0, 1],
        [1, 1, 0, 1, 0, 1],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 1],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 1],
    ]
    torch.testing.assert_close(pattern.sum(-1)[:, [0, 1, 3, 5]].min(), torch.tensor(1.0).double())
    assert not output[:, :, [2, 4]].any()


def test_scores_keep_their_sum_when_pooled() -> None:
    score = torch.tensor([[1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0]])
    assert pooled_score(score, (2, 4)).tolist() == [[4.0, 4.0]]
    assert float(pooled_score(torch.rand(1, 15), (3, 5)).shape[1]) == 2


def test_gradients_are_those_of_finite_differences() -> None:
    class_token, features, score = (tensor[:1] for tensor in random_state((2, 2)))
    block = PruningBlock(4, 2, 1, keep=0.5, renewal=0.5).double()
    inputs = tuple(tensor.requires_grad_() for tensor in (class_token, features, score))
    assert torch.autograd.gradcheck(block, inputs)


@pytest.mark.parametrize(("variant", "count"), [("xxs", 10_215_280), ("xs", 16_509_264)])
def test_published_sizes(variant: str, count: int) -> None:
    with torch.device("meta"):
        network = UniFormerLight(UNIFORMER_LIGHT_VARIANTS[variant])
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_calls_and_items_of_a_batch_know_nothing_of_each_other() -> None:
    torch.manual_seed(0)
    network = UniFormerLight(TINY, classes=3).double().eval()
    first, second = torch.randn(2, 1, 3, 64, 96, dtype=torch.float64)
    together = network(torch.cat([first, second]))
    torch.testing.assert_close(torch.cat([network(second), network(first)]), together.flip(0))
    torch.testing.assert_close(network(first), together[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_trains_both_heads(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = UniFormerLight(TINY, classes=3).to(dtype)
    patches, token = network.both_logits(torch.randn(2, 3, 64, 64, dtype=dtype))
    assert patches.shape == token.shape == (2, 3)
    (patches.square().sum() + token.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UniFormerLight(TINY, classes=3)
    trace = assert_capture_keeps_the_contract(
        network, {"pixel_values": torch.randn(1, 3, 64, 64)}, tmp_path
    )
    whole, pruned = (trace.attention["stages.2.blocks.attention.mixing", i] for i in (0, 1))
    assert whole.shape == pruned.shape == (2, 18, 18)
    assert int(whole.valid_queries.sum()) == 17  # no representative where nothing is dropped
    assert int(pruned.valid_queries.sum()) == 1 + 1 + 8
