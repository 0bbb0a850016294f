"""Where the tokens of each kind of attention module in timm stand: one function per kind."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from attnscope.probes.adapters.timm_layouts import (
    Grid,
    Placement,
    Scene,
    numbered_padding,
    patch_grid,
    strided_windows,
    windows,
)

__all__ = [
    "blocks_of_nest",
    "channels",
    "halos",
    "heads_in_batch",
    "inner_pixels",
    "local_groups",
    "mask_units",
    "own_grid",
    "partitions",
    "partitions_of_channels_first",
    "plain_windows",
    "pooled_windows",
    "probes",
    "reduced",
    "runs",
    "shifted_windows",
    "spread_pixels",
    "tokens",
    "windows_of_channels_first",
    "windows_of_own",
    "windows_with_heads",
]

# --- everything in one window ---------------------------------------------------------------


def tokens(scene: Scene) -> Placement:
    """Place class and register tokens before a grid of patches, for queries and keys."""
    grid, key_grid = patch_grid(scene.queries, scene), patch_grid(scene.keys, scene)
    # A class token that reads itself and the patches, not a grid of one patch.
    alone = scene.queries == 1 and key_grid is not None and scene.keys > key_grid[0] * key_grid[1]
    return Placement(
        grid=None if alone else grid,
        key_grid=key_grid,
        query_axis="probe" if alone else "patch",
    )


def probes(scene: Scene) -> Placement:
    """Place learned queries that read all tokens."""
    return Placement(key_grid=patch_grid(scene.keys, scene), query_axis="probe")


def channels(scene: Scene) -> Placement:
    """Place channels, which have no place on the picture."""
    return Placement(query_axis="channel", key_axis="channel")


def heads_in_batch(scene: Scene) -> Placement:
    """Place patches of a module that counts its heads as items."""
    placed = tokens(scene)
    axes = "(batch window head) slot dim"
    return Placement(grid=placed.grid, key_grid=placed.key_grid, axes=axes)


def reduced(scene: Scene) -> Placement:
    """Place keys that were reduced to a coarser grid, or pooled to a fixed one."""
    pool = getattr(scene.module, "pool", None)
    if pool is None:
        return tokens(scene)
    return Placement(grid=patch_grid(scene.queries, scene), key_grid=_pair(pool.output_size))


def own_grid(scene: Scene) -> Placement:
    """Place the grid `(batch, row, column, channel)` that enters the module."""
    _, rows, columns, _ = scene.arguments[0].shape
    return Placement(grid=(rows, columns), key_grid=(rows, columns))


def runs(scene: Scene) -> Placement:
    """Place keys that average runs of tokens in raster order, which are no grid."""
    grid = patch_grid(scene.queries, scene)
    if scene.keys == scene.queries:
        return Placement(grid=grid, key_grid=grid)
    return Placement(grid=grid, key_axis="memory")


# --- windows --------------------------------------------------------------------------------


def _in_windows(grid: Grid, table: Tensor, axes: str | None = None) -> Placement:
    """Return the placement of windows that see themselves, with padding tokens put in front."""
    options = {} if axes is None else {"axes": axes}
    table = numbered_padding(table)
    return Placement(grid=grid, key_grid=grid, query_table=table, key_table=table, **options)


def _pair(size: Any) -> Grid:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def shifted_windows(scene: Scene) -> Placement:
    """Place the windows of Swin: the grid is rolled, then filled up at its end."""
    _, rows, columns, _ = scene.shape_above()
    block = scene.above()
    shift = _pair(block.shift_size)
    return _in_windows((rows, columns), windows((rows, columns), _pair(block.window_size), shift))


def plain_windows(scene: Scene) -> Placement:
    """Place windows cut from a block's grid `(batch, row, column, channel)`."""
    _, rows, columns, _ = scene.shape_above()
    table = windows((rows, columns), _pair(scene.above().window_size))
    return _in_windows((rows, columns), table)


def windows_of_channels_first(scene: Scene) -> Placement:
    """Place windows cut from a block's grid `(batch, channel, row, column)`."""
    _, _, rows, columns = scene.shape_above()
    table = windows((rows, columns), _pair(scene.above().window_size))
    return _in_windows((rows, columns), table)


def windows_with_heads(scene: Scene) -> Placement:
    """Place the windows of the segment-anything encoder, or its whole grid."""
    _, rows, columns, _ = scene.shape_above()
    size, axes = scene.above().window_size, "(batch window head) slot dim"
    if not size:
        return Placement(grid=(rows, columns), key_grid=(rows, columns), axes=axes)
    return _in_windows((rows, columns), windows((rows, columns), _pair(size)), axes)


def pooled_windows(scene: Scene) -> Placement:
    """Place windows whose queries are pooled inside them, or a whole grid."""
    block = scene.above()
    _, rows, columns, _ = scene.shape_above()
    stride = _pair(block.q_stride or 1)
    small = rows // stride[0], columns // stride[1]
    if not block.is_windowed:
        return Placement(grid=small, key_grid=(rows, columns))
    size = _pair(block.window_size)
    return Placement(
        grid=small,
        key_grid=(rows, columns),
        query_table=numbered_padding(windows(small, (size[0] // stride[0], size[1] // stride[1]))),
        key_table=numbered_padding(windows((rows, columns), size)),
    )


def partitions(scene: Scene) -> Placement:
    """Place the windows or the spread grid of MaxViT."""
    _, rows, columns, _ = scene.shape_above()
    return _partition(scene, (rows, columns))


def partitions_of_channels_first(scene: Scene) -> Placement:
    """Place the same of blocks that keep channels first, or a block that sees everything."""
    block = scene.above()
    if not hasattr(block, "partition_size"):
        return tokens(scene)
    _, _, rows, columns = scene.shape_above()
    return _partition(scene, (rows, columns))


def _partition(scene: Scene, grid: Grid) -> Placement:
    block, name = scene.above(), scene.path.rpartition(".")[2]
    spread = name == "attn_grid" or not getattr(block, "partition_block", True)
    cut = strided_windows if spread else windows
    return _in_windows(grid, cut(grid, _pair(block.partition_size)))


def local_groups(scene: Scene) -> Placement:
    """Place the windows of Twins, which cuts them inside the module."""
    rows, columns = scene.arguments[1]
    table = windows((rows, columns), _pair(scene.module.ws))
    return _in_windows((rows, columns), table, "batch window head slot dim")


def windows_of_own(scene: Scene) -> Placement:
    """Place the windows that a module cuts from its own input, or its whole grid."""
    _, _, rows, columns = scene.arguments[0].shape
    if not scene.module.window_size:
        return Placement(grid=(rows, columns), key_grid=(rows, columns))
    table = windows((rows, columns), _pair(scene.module.window_size))
    return _in_windows((rows, columns), table)


def blocks_of_nest(scene: Scene) -> Placement:
    """Place the blocks of NesT, squares of a square grid."""
    _, count, length, _ = scene.arguments[0].shape
    side, size = round((count * length) ** 0.5), round(length**0.5)
    table = windows((side, side), (size, size))
    return _in_windows((side, side), table, "batch head window slot dim")


def mask_units(scene: Scene) -> Placement:
    """Place the tokens of Hiera, which it keeps in an order of its own.

    The model's own way back to raster order is asked where each token stands.
    """
    number = int(scene.path.split(".")[-2])
    model = scene.above(3)
    orders = [_raster_order(model, block) for block in (number, max(0, number - 1))]
    tables = [order.flatten().argsort() for order in orders]
    grids: list[Any] = [tuple(order.shape) for order in orders]
    options: dict[str, Any] = {}
    units = 1
    if scene.module.use_mask_unit_attn:
        options["axes"] = "batch head window slot dim"
        units = len(tables[1]) // scene.keys
    query, key = (rearrange(table, "(slot unit) -> unit slot", unit=units) for table in tables)
    return Placement(grid=grids[0], key_grid=grids[1], query_table=query, key_table=key, **options)


def _raster_order(model: Any, block: int) -> Tensor:
    """Return for each place of the grid after a block the number of the token there."""
    _, sizes = model.reroll.schedule[block]
    numbers = torch.arange(sizes[0] * sizes[1]).reshape(1, -1, 1)
    return model.reroll(numbers, block)[0, ..., 0]


def spread_pixels(scene: Scene) -> Placement:
    """Place plain tokens, or in MobileViT the pixels that stand at one place of every patch."""
    block: Any = scene.above(3) if scene.path.count(".") >= 3 else None
    if type(block).__name__ != "MobileVitBlock":
        return tokens(scene)
    size = _pair(block.patch_size)
    _, _, rows, columns = scene.shape_above(3)
    grid = rows + -rows % size[0], columns + -columns % size[1]
    slots = (grid[0] // size[0], grid[1] // size[1])
    return _in_windows(grid, strided_windows(grid, slots).reshape(-1, slots[0] * slots[1]))


def inner_pixels(scene: Scene) -> Placement:
    """Place the tokens of TNT, or the pixels of each patch that its inner blocks mix."""
    if not scene.path.endswith("attn_in"):
        return tokens(scene)
    count, side = scene.arguments[0].shape[0], round(scene.queries**0.5)
    grid = patch_grid(count, scene)
    if grid is None:
        return tokens(scene)
    fine = grid[0] * side, grid[1] * side
    return _in_windows(fine, windows(fine, (side, side)))


def halos(scene: Scene) -> Placement:
    """Place blocks of queries and the wider windows of keys around them, which leave the grid."""
    module = scene.module
    _, _, rows, columns = scene.arguments[0].shape
    size, halo, stride = module.block_size, module.halo_size, module.block_stride
    places = torch.arange(rows * columns).reshape(rows, columns)
    padded = nn.functional.pad(places, (halo, halo, halo, halo), value=-1)
    wide = padded.unfold(0, module.win_size, size).unfold(1, module.win_size, size)
    small = rows // stride, columns // stride
    return Placement(
        grid=small,
        key_grid=(rows, columns),
        query_table=windows(small, (size // stride, size // stride)),
        key_table=rearrange(wide, "above left row column -> (above left) (row column)"),
        axes="(batch head) window slot dim",
    )
