import pytest
import torch

from attnscope import capture
from attnscope.interventions import InterventionError, PositionalGate, intervening
from attnscope.probes import Subject


@pytest.fixture(scope="module")
def convit():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.models.convit.ConVit(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, local_up_to_layer=2
    ).eval()


@pytest.mark.parametrize("gate", [0.0, 0.5, 1.0])
def test_gated_heads_read_content_and_place_in_the_share_named(convit, gate):
    picture = {"pixel_values": torch.randn(1, 3, 32, 32)}
    before = [m.gating_param.clone() for m in convit.modules() if hasattr(m, "gating_param")]
    with intervening(Subject(convit), PositionalGate(gate=gate, heads=[0, -1], layers=[0])):
        trace = capture(Subject(convit), picture)
        module = convit.blocks[0].attn
        assert torch.sigmoid(module.gating_param)[[0, 3]].tolist() == pytest.approx([gate] * 2)
        assert torch.equal(module.gating_param[1:3], before[0][1:3])
    plain = capture(Subject(convit), picture)
    stack = trace.sites[0].stack
    content, place = plain.attention[stack, 0].operands[0].operands
    share = torch.sigmoid(before[0])[:, None, None]
    expected = (1 - gate) * content.dense() / (1 - share) + gate * place.dense() / share
    torch.testing.assert_close(
        trace.attention[stack, 0].dense()[[0, 3]], expected[[0, 3]], atol=1e-5, rtol=1e-4
    )
    after = [m.gating_param for m in convit.modules() if hasattr(m, "gating_param")]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_what_has_no_gate_is_refused(made, convit):
    with pytest.raises(InterventionError, match="no gated positional attention"):
        _enter(made("Llama")[0], PositionalGate(gate=0.5))
    with pytest.raises(InterventionError, match="no gated layer 2: there are 2"):
        _enter(Subject(convit), PositionalGate(gate=0.5, layers=[2]))
    with pytest.raises(InterventionError, match="no head 4 in gated layer 0"):
        _enter(Subject(convit), PositionalGate(gate=0.5, heads=[4]))
    with pytest.raises(InterventionError, match="between 0 and 1"):
        _enter(Subject(convit), PositionalGate(gate=2.0))


def _enter(subject, intervention):
    with intervening(subject, intervention):
        pass
