"""The hypergraph block against loops over hyperedges and tokens, by hand and by its sizes."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope.attention import OperatorError
from attnscope.models.hyperace import (
    HyperedgeGeneration,
    HypergraphConvolution,
    token_relations,
)
from attnscope.models.hyperace_network import (
    VARIANTS,
    FullPAD,
    FullPADTunnel,
    HyperACE,
    HyperACEShape,
    HypergraphBranch,
    SeparableBlock,
)
from tests.attention.strategies import normal
from tests.models.capturing import assert_capture_keeps_the_contract

TINY = HyperACEShape(channels=(4, 6, 8), width=64, hyperedges=3, blocks=2)
GRIDS = [(8, 12), (4, 6), (2, 3)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def slow_participation(generation: HyperedgeGeneration, tokens: Tensor) -> Tensor:
    """Return `(hyperedge, token)` of one image, head by head and entry by entry."""
    length, dim = tokens.shape
    context = torch.cat([tokens.mean(0), tokens.max(0).values])
    prototypes = generation.prototypes + generation.context(context).reshape(-1, dim)
    projected, width = generation.project(tokens), dim // generation.heads
    rows = []
    for prototype in prototypes:
        logits = []
        for i in range(length):
            heads = [
                prototype[h : h + width] @ projected[i, h : h + width] / math.sqrt(width)
                for h in range(0, dim, width)
            ]
            logits.append(torch.stack(heads).mean())
        exponentials = torch.stack(logits).exp()
        rows.append(exponentials / exponentials.sum())
    return torch.stack(rows)


def test_hyperedges_and_messages_are_those_of_loops() -> None:
    module = HypergraphConvolution(6, 3, heads=2).double().eval()
    features = normal(0, 2, 6, 2, 4)
    with torch.no_grad():
        output = module(features)
        for image, read in zip(features, output, strict=True):
            tokens = image.flatten(1).mT
            expected = slow_participation(module.generation, tokens)
            found = module.generation(tokens[None])
            torch.testing.assert_close(found.dense()[0, 0], expected)
            edges = nn.functional.gelu(module.edge(expected @ tokens))
            nodes = nn.functional.gelu(module.node(expected.mT @ edges)) + tokens
            torch.testing.assert_close(read.flatten(1).mT, nodes)


def test_two_tokens_and_one_hyperedge_by_hand() -> None:
    """X = (0, 1), every width 1, prototype 1, identity projections: softmax of (0, 1)."""
    generation = HyperedgeGeneration(1, 1, heads=1).double().eval()
    with torch.no_grad():
        for parameter in generation.parameters():
            parameter.zero_()
        generation.prototypes.fill_(1.0)
        generation.project.weight.fill_(1.0)
        tokens = torch.tensor([[[0.0], [1.0]]]).double()
        participation = generation(tokens)
        edge = participation.apply(tokens[:, None])
        assert [round(float(x), 4) for x in participation.dense().flatten()] == [0.2689, 0.7311]
        assert round(float(edge), 4) == 0.7311
        torch.testing.assert_close(participation.T.apply(edge), participation.dense().mT * edge)


def test_a_hyperedge_is_a_distribution_and_a_token_is_not() -> None:
    participation = HyperedgeGeneration(8, 4, heads=2).eval()(torch.randn(1, 12, 8))
    assert participation.stochastic
    assert not participation.T.stochastic
    torch.testing.assert_close(participation.T.row_mass().sum(), torch.tensor(4.0))
    with pytest.raises(OperatorError, match="rows that are distributions"):
        participation.T.entropy()
    relations = token_relations(participation)
    pattern = participation.dense()
    pairs = pattern.mT @ pattern
    torch.testing.assert_close(relations.dense(), pairs / pairs.sum(-1, keepdim=True))
    assert relations.stochastic


def test_dropout_falls_on_logits_in_training_alone() -> None:
    generation, tokens = HyperedgeGeneration(8, 4, heads=2, dropout=1.0), torch.randn(1, 12, 8)
    uniform = torch.full((1, 1, 4, 12), 1 / 12)
    torch.testing.assert_close(generation.train()(tokens).dense(), uniform)
    assert not generation.eval()(tokens).dense().allclose(uniform)


def test_parameters_are_as_many_as_published() -> None:
    with torch.device("meta"):
        enhance = HyperACE(VARIANTS["n"])
    branch = enhance.branches[0]
    assert isinstance(branch, HypergraphBranch)
    hypergraph = branch.hypergraph
    assert isinstance(hypergraph, HypergraphConvolution)
    generation = hypergraph.generation
    parts = [
        generation.prototypes.numel(),
        count(generation.context),
        *(count(part) for part in (generation.project, hypergraph.edge, hypergraph.node)),
    ]
    assert parts == [256, 33_024, 4_160, 4_160, 4_160]
    assert sum(parts) == count(hypergraph) == 45_760
    assert count(enhance) == 273_536
    assert generation.heads == 4


@pytest.mark.parametrize(("name", "times"), [("n", 4), ("s", 4), ("l", 3), ("x", 3)])
def test_every_member_fuses_four_or_three_times_the_fine_width(name: str, times: int) -> None:
    with torch.device("meta"):
        enhance = HyperACE(VARIANTS[name])
    fused = enhance.fuse.convolution
    assert fused.in_channels == times * VARIANTS[name].channels[0]


def test_the_enhanced_map_has_the_middle_scale_and_everything_learns() -> None:
    enhance, spread = HyperACE(TINY), FullPAD(64, (64, 6, 8))
    scales = [torch.randn(2, c, *grid) for c, grid in zip(TINY.channels, GRIDS, strict=True)]
    enhanced = enhance(*scales)
    assert enhanced.shape == (2, 64, 4, 6)
    features = [torch.randn(2, c, *grid) for c, grid in zip((64, 6, 8), GRIDS, strict=True)]
    for tunnel in spread.tunnels:
        nn.init.ones_(tunnel.gamma)
    sum(feature.square().mean() for feature in spread(features, enhanced)).backward()
    for module in (enhance, spread):
        for name, parameter in module.named_parameters():
            gradient = parameter.grad
            assert gradient is not None, name
            assert gradient.isfinite().all(), name


def test_at_first_full_pad_changes_nothing() -> None:
    spread = FullPAD(4, (4, 4, 4))
    features = [torch.randn(1, 4, *grid) for grid in GRIDS]
    for before, after in zip(features, spread(features, torch.randn(1, 4, 4, 6)), strict=True):
        assert torch.equal(before, after)
    tunnel = FullPADTunnel()
    nn.init.constant_(tunnel.gamma, 0.5)
    assert tunnel(torch.ones(2), torch.tensor([2.0, 4.0])).tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match="2 scales were given; it takes fine, middle and coarse"):
        spread(features[:2], torch.randn(1, 4, 4, 6))


def test_gradients_reach_every_parameter() -> None:
    module = HypergraphConvolution(4, 2, heads=2).double().eval()
    names, parameters = zip(*module.named_parameters(), strict=True)

    def read(features: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), features)

    features = normal(3, 1, 4, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(read, (features, *parameters))


def test_low_order_blocks_keep_the_shape() -> None:
    assert SeparableBlock(8).double()(normal(4, 1, 8, 5, 3)).shape == (1, 8, 5, 3)


def test_capture_keeps_the_contract(tmp_path: Path) -> None:
    inputs = {
        name: torch.randn(1, channels, *grid)
        for name, channels, grid in zip(
            ("fine", "middle", "coarse"), TINY.channels, GRIDS, strict=True
        )
    }
    trace = assert_capture_keeps_the_contract(HyperACE(TINY), inputs, tmp_path)
    assert [(site.query_sequence, site.key_sequence) for site in trace.sites] == 2 * [
        ("hyperedge", "image"),
        ("image", "hyperedge"),
    ]
