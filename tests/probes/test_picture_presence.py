"""Pictures without some of their patches."""

import torch

from attnscope.probes.picture_presence import blended_pictures, picture_runs
from attnscope.traces import Segment, Segments, TokenSequence


def sequence(*runs: Segment) -> TokenSequence:
    return TokenSequence(name="text", tokens=("x",) * 12, segments=Segments(runs))


def test_each_picture_has_its_own_mean_color() -> None:
    pictures = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    runs = [Segment(name="image", start=4 * n, stop=4 * n + 4, grid=(2, 2)) for n in range(2)]
    assert picture_runs(sequence(*runs), {"pixel_values": pictures}) == runs
    shares = [torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.ones(4)]
    found = blended_pictures(pictures, runs, shares)
    expected = pictures.clone()
    expected[0, :, 2:, :2] = pictures[0].mean((-2, -1))[:, None, None]
    torch.testing.assert_close(found, expected)


def test_listed_patches_go_by_the_positions_that_merge_them() -> None:
    patches = torch.randn(8, 3 * 4, generator=torch.Generator().manual_seed(1))
    run = Segment(name="image", start=1, stop=3)
    assert picture_runs(sequence(run), {"pixel_values": patches}) == [run]
    found = blended_pictures(patches, [run], [torch.tensor([0.0, 1.0])])
    torch.testing.assert_close(found[4:], patches[4:])
    color = patches.reshape(8, 3, 4).mean((0, 2))
    torch.testing.assert_close(found[:4].reshape(4, 3, 4), color[None, :, None].expand(4, 3, 4))


def test_pixels_that_no_position_owns_are_left() -> None:
    run = Segment(name="image", start=0, stop=4, grid=(2, 2))
    for pixels in (torch.ones(1, 3, 5, 4), torch.ones(1, 2, 3, 4, 4), torch.ones(2, 3, 4, 4)):
        assert picture_runs(sequence(run), {"pixel_values": pixels}) == []
    assert picture_runs(sequence(run), {}) == []
