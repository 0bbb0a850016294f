import pytest
import torch

from attnscope.interventions import VHR, reinforced_heads, reinforced_layers
from attnscope.metrics.vision_divergence import vision_head_divergence
from attnscope.probes.image_removal import with_blank_image, without_image


def test_the_sheet_of_the_paper_by_hand():
    seen = torch.tensor([[10.0], [1.0], [2.0], [3.0]])
    unseen = torch.zeros(4, 1)
    assert reinforced_heads(seen, unseen).tolist() == [True, False, False, True]
    surging = torch.tensor([[-3.0], [1.0], [1.0], [1.0]])  # TA 9, 1, 1, 1
    moved = surging + torch.tensor([[10.0], [1.0], [2.0], [3.0]])  # VHD 10, 1, 2, 3
    assert reinforced_heads(moved, surging).tolist() == [False, False, True, True]
    kept = reinforced_heads(moved, surging, removes_outliers=False)
    assert kept.tolist() == [True, False, False, True]
    assert not reinforced_heads(seen, seen).any()


@pytest.mark.parametrize(("depth", "layers"), [(1, [0]), (2, [1]), (16, [1, *range(9, 16)])])
def test_layers_keep_their_share_of_smaller_models(depth, layers):
    assert reinforced_layers(depth) == layers
    assert reinforced_layers(32) == [1, *range(18, 32)]


@pytest.mark.parametrize("remove", [without_image, with_blank_image])
def test_heads_that_mind_the_image_are_doubled_with_earlier_layers_reinforced(made, heard, remove):
    subject, encoded = made("LLaVA")
    change = VHR(layers=[0, 1], removes_outliers=False, remove=remove)
    plain, changed = heard(subject, encoded), heard(subject, encoded, change)
    blind = heard(subject, remove(subject, encoded))
    for layer in (0, 1):
        # what the change saw in layer 1 came out of a reinforced layer 0
        first = heard(subject, encoded, VHR(layers=[0], removes_outliers=False, remove=remove))
        seen = (plain, first)[layer][layer].output[0, :, -1]
        divergence = vision_head_divergence(seen, blind[layer].output[0, :, -1])
        chosen = divergence > divergence.quantile(0.5)
        assert int(chosen.sum()) == 2
        expected = seen * torch.where(chosen, 2.0, 1.0)[:, None]
        torch.testing.assert_close(changed[layer].output[0, :, -1], expected)
    assert torch.equal(changed[0].output[:, :, :-1], plain[0].output[:, :, :-1])


def test_the_whole_prompt_may_be_scaled(made, heard):
    subject, encoded = made("LLaVA")
    plain = heard(subject, encoded)[0].output
    changed = heard(subject, encoded, VHR(layers=[0], whole_prompt=True))[0].output
    ratio = (changed[0] / plain[0]).flatten(1)
    assert {round(float(row.mean()), 4) for row in ratio} == {1.0, 2.0}
