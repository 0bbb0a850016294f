import json
from typing import Any

import pytest
import torch

from attnscope.app.map_answers import (
    cells_of_view,
    packet,
    read_question,
    scale_facts,
    tiles_of_view,
)
from attnscope.attention import SoftmaxAttention
from attnscope.figures import CellWindow, TilePyramid, maximum, pattern_map, view_scale


@pytest.fixture(scope="module")
def pyramid() -> TilePyramid:
    zeros = torch.zeros(1, 1500, 4)
    return TilePyramid(source=pattern_map(SoftmaxAttention(zeros, zeros)))


def asked(**changes: Any) -> dict[str, Any]:
    whole = {"map": "own", "view": [0, 1500, 0, 1500], "level": 3, "want": [[0, 0]], "serial": 7}
    return whole | changes


def test_a_question_is_read_as_it_was_asked(pyramid: TilePyramid) -> None:
    question = read_question(asked(), pyramid)
    assert question is not None
    assert (question.part, question.level) == ((0, 1500, 0, 1500), 3)
    assert (question.wanted, question.serial) == (((0, 0),), 7)


def test_a_view_is_cut_to_the_map(pyramid: TilePyramid) -> None:
    question = read_question(asked(view=[-5, 9999, 1499, 1000]), pyramid)
    assert question is not None
    assert question.part == (0, 1500, 1499, 1500)


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        {},
        "text",
        asked(view=[1, 2, 3]),
        asked(view=["a", "b", "c", "d"]),
        asked(level=-1),
        asked(level=99),
        asked(level=None),
        asked(want=[[0, 5]]),
        asked(want=[[0]]),
        asked(want=5),
        asked(view=[float("inf"), 1, 2, 3]),
    ],
)
def test_what_makes_no_sense_is_no_question(nonsense: Any, pyramid: TilePyramid) -> None:
    assert read_question(nonsense, pyramid) is None


def test_more_than_a_screenful_is_not_answered() -> None:
    zeros = torch.zeros(1, 32768, 1)
    long = TilePyramid(source=pattern_map(SoftmaxAttention(zeros, zeros)))
    assert read_question(asked(view=[0, 32768, 0, 32768], level=0), long) is None


def test_tiles_behind_all_their_queries_are_not_sent(pyramid: TilePyramid) -> None:
    question = read_question(asked(level=1, want=[]), pyramid)
    assert question is not None
    assert tiles_of_view(pyramid, question) == [
        (row, column) for row in range(3) for column in range(row + 1)
    ]


def test_a_view_covers_cells_that_it_shows_in_part(pyramid: TilePyramid) -> None:
    question = read_question(asked(view=[7, 9, 16, 17]), pyramid)
    assert question is not None
    assert cells_of_view(pyramid, question) == (range(2), range(2, 3))


def test_a_packet_holds_facts_and_numbers() -> None:
    single, joined = torch.tensor([[0.1, torch.nan]]), torch.tensor([[0.1], [0.2]])
    content = packet({"map": "é"}, [((0, 1, 2), True, single), ((3, 0, 0), False, joined)])
    length = int.from_bytes(content[:4], "little")
    facts = json.loads(content[4 : 4 + length])
    assert facts["map"] == "é"
    assert facts["tiles"][0] == {
        **{"level": 0, "row": 1, "column": 2},
        **{"rows": 1, "columns": 2, "final": True},
    }
    numbers = bytearray(content[4 + length :])
    assert len(numbers) == 2 * 4 + 2 * 2
    exact = torch.frombuffer(numbers, dtype=torch.float32, count=2)
    torch.testing.assert_close(exact, single[0], rtol=0, atol=0, equal_nan=True)
    half = torch.frombuffer(numbers, dtype=torch.bfloat16, offset=8)
    torch.testing.assert_close(half.float(), joined[:, 0], rtol=1 / 256, atol=0)


def test_a_scale_is_sent_with_its_colors_and_ticks(pyramid: TilePyramid) -> None:
    values = torch.tensor([[0.03, torch.nan]])
    window = CellWindow(
        source=pyramid.source,
        level=0,
        rows=range(1),
        columns=range(2),
        reduction=maximum,
        values=values,
    )
    facts = scale_facts(view_scale(window, contrast=1, logarithmic=False))
    assert (facts["low"], facts["high"], facts["logarithmic"]) == (0.0, 0.05, False)
    assert (len(facts["colors"]), facts["colors"][0], facts["colors"][-1]) == (
        256,
        "#440154",
        "#fde725",
    )
    assert json.loads(json.dumps(facts["ticks"]))[0] == [0.0, "0"]
