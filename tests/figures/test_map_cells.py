import pytest
import torch
from torch import Tensor

from attnscope.attention import (
    AttentionOperator,
    DenseAttention,
    KernelAttention,
    Mask,
    OuterAttention,
    SoftmaxAttention,
    WindowedAttention,
)
from attnscope.figures import cells_of, map_cells, pattern_map


def softmax(length: int, mask: Mask | None = None, heads: int = 1) -> SoftmaxAttention:
    generator = torch.Generator().manual_seed(length)
    query, key = (torch.randn(heads, length, 4, generator=generator) for _ in range(2))
    return SoftmaxAttention(query, key, mask=mask)


def with_gaps(attention: AttentionOperator) -> Tensor:
    """Return the dense mean over heads with NaN at what does not exist."""
    dense = attention.dense().mean(0)
    query, key = torch.arange(attention.queries)[:, None], torch.arange(attention.keys)
    missing = ~attention.valid_queries.any(-2)[..., None].reshape(-1, 1)
    if attention.causal:
        assert attention.offset is not None
        missing = missing | (key > query + attention.offset)
    return dense.masked_fill(missing, torch.nan)


def by_hand(dense: Tensor, step: int, reduce: str) -> Tensor:
    """Reduce cell by cell, with lists."""
    cells = []
    for top in range(0, dense.shape[0], step):
        row = []
        for left in range(0, dense.shape[1], step):
            block = dense[top : top + step, left : left + step].flatten().tolist()
            known = [value for value in block if value == value]
            if not known:
                row.append(float("nan"))
            else:
                row.append(max(known, key=abs) if reduce == "max" else sum(known) / len(known))
        cells.append(row)
    return torch.tensor(cells)


EVEN_AND_ODD = torch.arange(12).reshape(6, 2).T

OPERATORS = {
    "softmax": softmax(37),
    "heads": softmax(24, heads=3),
    "window": softmax(40, Mask(after=0, before=6)),
    "late queries": SoftmaxAttention(torch.randn(1, 7, 4), torch.randn(1, 19, 4), causal=True),
    "bidirectional": SoftmaxAttention(torch.randn(1, 11, 4), torch.randn(1, 11, 4), causal=False),
    "linear": KernelAttention(torch.rand(1, 21, 4), torch.rand(1, 21, 4)),
    "even and odd": WindowedAttention(
        SoftmaxAttention(torch.randn(2, 1, 6, 4), torch.randn(2, 1, 6, 4), causal=False),
        EVEN_AND_ODD,
        EVEN_AND_ODD,
        12,
        12,
    ),
    "signed": OuterAttention(torch.randn(1, 13, 3), torch.randn(1, 18, 3), offset=None),
}


@pytest.mark.parametrize("step", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("name", OPERATORS)
def test_cells_equal_the_reduction_of_the_dense_map(name: str, step: int) -> None:
    attention = OPERATORS[name]
    dense = with_gaps(attention).float()
    cells = cells_of(pattern_map(attention), range(attention.queries), range(attention.keys), step)
    torch.testing.assert_close(cells.max, by_hand(dense, step, "max"), equal_nan=True)
    torch.testing.assert_close(cells.mean, by_hand(dense, step, "mean"), equal_nan=True)


@pytest.mark.parametrize("name", OPERATORS)
def test_coarser_cells_equal_those_of_the_entries(name: str) -> None:
    source = pattern_map(OPERATORS[name])
    queries, keys = range(source.queries), range(source.keys)
    joined = cells_of(source, queries, keys, 2).coarser().coarser()
    direct = cells_of(source, queries, keys, 8)
    torch.testing.assert_close(joined.max, direct.max, equal_nan=True)
    torch.testing.assert_close(joined.mean, direct.mean, equal_nan=True)


def test_strips_of_any_size_give_the_same_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    source = pattern_map(softmax(50, heads=2))
    whole = cells_of(source, range(50), range(50), 4)
    for entries in (1, 100, 999):
        monkeypatch.setattr(map_cells, "STRIP_ENTRIES", entries)
        parts = cells_of(source, range(50), range(50), 4)
        torch.testing.assert_close(parts.mean, whole.mean, equal_nan=True)
        torch.testing.assert_close(parts.max, whole.max, equal_nan=True)


def test_blocks_stay_small_and_the_future_is_never_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []
    tile = SoftmaxAttention.tile

    def watched(self: SoftmaxAttention, queries: slice, keys: slice, **_: object) -> Tensor:
        asked.append((queries.stop - queries.start, keys.stop - keys.start))
        return tile(self, queries, keys)

    monkeypatch.setattr(SoftmaxAttention, "tile", watched)
    monkeypatch.setattr(map_cells, "STRIP_ENTRIES", 2048)
    cells_of(pattern_map(softmax(512)), range(512), range(512), 8)
    sizes = [rows * columns for rows, columns in asked]
    assert max(sizes) <= 2048
    assert sum(sizes) <= 1.1 * 512 * 512 / 2


def test_queries_that_see_nothing_are_missing_and_not_zero() -> None:
    pattern = torch.eye(4)
    pattern[2] = 0
    cells = cells_of(pattern_map(DenseAttention(pattern[None])), range(4), range(4), 1)
    assert bool(cells.max[2].isnan().all())
    assert not bool(cells.max[3].isnan().any())
