"""Windows of every cut, put back on the picture: values and outputs in raster order."""

from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from timm.models.nest import deblockify
from torch import nn

from attnscope import capture
from attnscope.probes import Subject
from attnscope.probes.adapters.timm_places import _raster_order
from benchmarks.timm_models import small

GRID = "batch row column width -> (batch row column) width"
GRID_OF_CHANNELS_FIRST = "batch width row column -> (batch row column) width"
FLAT = "batch patch width -> (batch patch) width"


class Notes:
    """What entered and left the modules of a model while it ran."""

    def __init__(self, model: nn.Module) -> None:
        self.given: dict[nn.Module, torch.Tensor] = {}
        self.made: dict[nn.Module, torch.Tensor] = {}
        for module in model.modules():
            module.register_forward_hook(self._note)

    def _note(self, module, args, output):
        if args and isinstance(output, torch.Tensor):
            self.given[module], self.made[module] = args[0], output


def as_rows(tensor: torch.Tensor, axes: str) -> torch.Tensor:
    return rearrange(tensor, axes)


def of_swin(block, notes):
    added = as_rows(notes.given[block.norm2], FLAT) - as_rows(notes.given[block], GRID)
    return as_rows(notes.made[block.norm1], GRID), added


def of_swin_v2(block, notes):
    added = as_rows(notes.given[block.mlp], FLAT) - as_rows(notes.given[block], GRID)
    return as_rows(notes.given[block], GRID), added


def of_davit(block, notes):
    before = as_rows(notes.made[block.cpe1], GRID_OF_CHANNELS_FIRST)
    after = as_rows(notes.given[block.cpe2], GRID_OF_CHANNELS_FIRST)
    return as_rows(notes.made[block.norm1], FLAT), after - before


def of_grid_block(block, notes):
    added = as_rows(notes.given[block.norm2], GRID) - as_rows(notes.given[block], GRID)
    return as_rows(notes.made[block.norm1], GRID), added


def of_nest(block, notes):
    def raster(blocks):
        return as_rows(deblockify(blocks, round(blocks.shape[2] ** 0.5)), GRID)

    added = raster(notes.given[block.norm2]) - raster(notes.given[block])
    return raster(notes.made[block.norm1]), added


def of_sam(block, notes):
    added = as_rows(notes.given[block.norm2], FLAT) - as_rows(notes.given[block], GRID)
    return as_rows(notes.made[block.norm1], GRID), added


def of_tiny_vit(block, notes):
    after = as_rows(notes.given[block.local_conv], GRID_OF_CHANNELS_FIRST)
    entered = as_rows(notes.given[block], GRID)
    return block.attn.norm(entered), after - entered


def of_twins(block, notes):
    return as_rows(notes.given[block.attn], FLAT), as_rows(notes.made[block.attn], FLAT)


def thirds(projected, heads):
    return rearrange(projected, "patch (part head dim) -> part head patch dim", part=3, head=heads)[
        2
    ]


def heads_first(projected, heads):
    return rearrange(projected, "patch (head part dim) -> part head patch dim", part=3, head=heads)[
        2
    ]


CASES: dict[str, tuple[str, str, Callable, Callable]] = {
    "shifted": ("Swin", "layers.0.blocks.1", of_swin, thirds),
    "not shifted": ("Swin", "layers.0.blocks.0", of_swin, thirds),
    "shifted and padded": ("Swin, padded", "layers.0.blocks.1", of_swin, thirds),
    "one padded window": ("Swin, padded", "layers.1.blocks.1", of_swin, thirds),
    "cosine": ("Swin V2", "layers.0.blocks.1", of_swin_v2, thirds),
    "spatial, padded": ("DaViT", "stages.1.blocks.1.0", of_davit, thirds),
    "windows": ("MaxViT", "stages.0.blocks.0.attn_block", of_grid_block, heads_first),
    "spread grid": ("MaxViT", "stages.0.blocks.0.attn_grid", of_grid_block, heads_first),
    "of the segmenter, padded": ("SAM", "blocks.0", of_sam, thirds),
    "padded before the norm": ("TinyViT", "stages.2.blocks.1", of_tiny_vit, heads_first),
    "blocks": ("NesT", "levels.0.transformer_encoder.0", of_nest, thirds),
    "of the global context": ("GC ViT", "stages.1.blocks.0", of_grid_block, thirds),
    "cut inside": ("Twins", "blocks.1.0", of_twins, thirds),
}


@pytest.mark.parametrize("case", CASES)
def test_windows_are_put_back_where_the_block_puts_them(case):
    family, path, read, third = CASES[case]
    model, picture = small(family)
    notes = Notes(model)
    trace = capture(Subject(model), {"x": picture})
    block = model.get_submodule(path)
    (seen,) = (one for one in trace.observations if one.site.path == f"{path}.attn")
    entered, added = read(block, notes)
    heads, patches = seen.attention.heads, len(entered)
    value = third(nn.functional.linear(entered, block.attn.qkv.weight), heads)
    bias = getattr(block.attn.qkv, "bias", None)
    if bias is None and hasattr(block.attn, "v_bias"):
        bias = torch.cat([block.attn.q_bias, block.attn.k_bias, block.attn.v_bias])
    if bias is not None:
        value = value + third(bias[None], heads)
    torch.testing.assert_close(seen.value[:, -patches:], value, rtol=1e-4, atol=1e-5)
    width = "(dim head)" if family == "NesT" else "(head dim)"
    merged = rearrange(seen.attention.apply(seen.value), f"head patch dim -> patch {width}")
    written = block.attn.proj(merged[-patches:])
    written = block.norm1(written) if case == "cosine" else written
    torch.testing.assert_close(written, added, rtol=1e-4, atol=1e-4)


def test_padding_tokens_stand_before_the_patches_as_special_tokens():
    model, picture = small("Swin, padded")  # 14 x 14 patches, then 7 x 7, in windows of 4 x 4
    trace = capture(Subject(model), {"x": picture})
    padded = trace.observations[-1]
    assert padded.attention.shape == (4, 64, 64)
    assert [(run.name, run.start, run.stop) for run in padded.queries.segments] == [
        ("special", 0, 15),
        ("image", 15, 64),
    ]
    assert padded.queries.segments.runs[-1].grid == (7, 7)
    assert padded.attention.stochastic
    assert float(padded.attention.columns(range(15)).sum()) > 0  # nobody masks them


def test_the_padding_around_a_halo_takes_a_share_that_is_missing_from_the_rows():
    model, picture = small("HaloNet")
    trace = capture(Subject(model), {"x": picture})
    attention = trace.observations[0].attention  # 16 x 16 patches, blocks of 2, halo of 1
    mass = attention.row_mass().unflatten(1, (16, 16))
    assert not attention.stochastic
    assert bool((mass[:, 2:-2, 2:-2] > 0.9999).all())
    assert bool((mass[:, 0] < 0.9999).all())
    reads = attention.rows([3 * 16 + 5])[0, 0].nonzero().flatten().tolist()
    assert reads == [row * 16 + column for row in range(1, 5) for column in range(3, 7)]


def test_a_block_of_equal_scores_loses_nine_sixteenths_less_than_all_in_its_corner():
    """Where queries are 0 and tables are 0, each key of the 4 x 4 around a block gets 1/16."""
    model, picture = small("HaloNet")
    module = model.get_submodule("stages.0.0.self_attn")
    with torch.no_grad():
        module.q.weight.zero_()
    trace = capture(Subject(model), {"x": picture})
    attention = trace.observations[0].attention
    corner = attention.rows([0])[0, 0].unflatten(0, (16, 16))
    torch.testing.assert_close(corner[:3, :3], torch.full((3, 3), 1 / 16))
    assert float(corner.sum()) == pytest.approx(9 / 16)
    assert float(attention.normalized().rows([0])[0, 0, 0]) == pytest.approx(1 / 9)


def test_pixels_of_mobilevit_read_those_at_the_same_place_of_all_patches():
    model, picture = small("MobileViT")  # 12 x 12 pixels in patches of 2 x 2
    trace = capture(Subject(model), {"x": picture})
    reads = trace.observations[0].attention.dense()[0].reshape(12, 12, 12, 12) > 0
    for row, column in ((0, 0), (3, 4), (11, 11)):
        expected = torch.zeros(12, 12, dtype=torch.bool)
        expected[row % 2 :: 2, column % 2 :: 2] = True
        assert torch.equal(reads[row, column], expected)


def test_inner_pixels_of_tnt_read_their_own_patch():
    model, picture = small("TNT")  # 4 x 4 patches of 4 x 4 pixels
    trace = capture(Subject(model), {"x": picture})
    inner = next(one for one in trace.observations if one.site.path == "blocks.0.attn_in")
    reads = inner.attention.dense()[0].reshape(4, 4, 4, 4, 4, 4, 4, 4) > 0
    assert bool(reads[1, :, 2, :, 1, :, 2, :].all())
    assert int(reads[1, 3, 2, 0].sum()) == 16


def test_hiera_tokens_are_carried_back_to_raster_order():
    model, _ = small("Hiera")
    raster = torch.arange(256).reshape(1, 256, 1)
    unrolled = model.unroll(raster.float()).flatten().long()
    assert torch.equal(_raster_order(model, 0).flatten().argsort(), unrolled)


def test_a_pooled_query_of_hiera_reads_the_mask_unit_that_it_was_pooled_from():
    model, picture = small("Hiera")
    trace = capture(Subject(model), {"x": picture})
    pooled = trace.observations[1]  # 8 x 8 queries of 16 x 16 keys, in units of 8 x 8 keys
    assert (pooled.queries.segments.runs[-1].grid, pooled.keys.segments.runs[-1].grid) == (
        (8, 8),
        (16, 16),
    )
    reads = pooled.attention.dense()[0].reshape(8, 8, 16, 16) > 0
    for row, column in ((0, 0), (3, 4), (7, 7)):
        expected = torch.zeros(16, 16, dtype=torch.bool)
        top, left = 2 * row // 8 * 8, 2 * column // 8 * 8
        expected[top : top + 8, left : left + 8] = True
        assert torch.equal(reads[row, column], expected)


def test_the_grid_of_a_picture_that_is_not_square_has_its_shape():
    import timm

    model = timm.create_model("test_vit", num_classes=3, img_size=(32, 64)).eval()
    trace = capture(Subject(model), {"pixel_values": torch.randn(1, 3, 32, 64)})
    image = trace.sequences["image"]
    assert image.segments.runs[-1].grid == (2, 4)
    assert image.tokens[:3] == ("[0]", "r0c0", "r0c1")
