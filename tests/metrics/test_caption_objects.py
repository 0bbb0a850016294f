"""CHAIR."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.metrics import CaptionScores, MetricError, chair, mentioned_objects

TABLE = {"dog": "dog", "puppy": "dog", "cat": "cat", "tree": "tree", "fire hydrant": "fire hydrant"}


def rounded(scores: CaptionScores) -> dict[str, float]:
    return {name: round(value, 6) for name, value in scores.measures.items()}


def test_a_case_counted_by_hand() -> None:
    captions = ["A dog and a puppy under a tree.", "A fire hydrant.", "A cat, a cat"]
    scores = chair(captions, [{"dog", "cat"}, {"fire hydrant"}, {"cat", "tree"}], TABLE)
    assert scores.mentioned == (("dog", "dog", "tree"), ("fire hydrant",), ("cat", "cat"))
    assert scores.hallucinated == (("tree",), (), ())
    precision, recall = 5 / 6, 3 / 5
    assert rounded(scores) == {
        "chair_s": round(1 / 3, 6),
        "chair_i": round(1 / 6, 6),
        "recall": recall,
        "f1": round(2 * precision * recall / (precision + recall), 6),
        "length": round((8 + 3 + 4) / 3, 6),
    }
    table = scores.to_pandas()
    assert table.made_up.tolist() == ["tree", "", ""]
    assert table.mentions.tolist() == [3, 1, 2]


def test_captions_that_say_nothing_hallucinate_nothing() -> None:
    scores = chair(["", "Just colors."], [{"dog"}, {"cat"}], TABLE)
    assert rounded(scores)["chair_s"] == 0.0
    assert rounded(scores)["recall"] == 0.0
    assert rounded(scores)["length"] == 1.0
    assert math.isnan(scores.measures["chair_i"])
    assert math.isnan(scores.measures["f1"])


def test_all_wrong_is_the_worst() -> None:
    assert rounded(chair(["a cat"], [{"dog"}], TABLE)) == {
        "chair_s": 1.0,
        "chair_i": 1.0,
        "recall": 0.0,
        "f1": 0.0,
        "length": 2.0,
    }
    assert math.isnan(chair(["a cat"], [set()], TABLE).measures["recall"])


def test_objects_outside_the_table_are_neither_right_nor_wrong() -> None:
    scores = chair(["a dog and a unicorn"], [{"dog"}], TABLE)
    assert rounded(scores)["chair_i"] == 0.0
    with pytest.raises(MetricError, match=r"no synonyms for \['unicorn'\]"):
        chair(["a dog"], [{"unicorn"}], TABLE)


def test_without_a_table_objects_go_by_their_own_names() -> None:
    alone = chair(["a Fire Hydrant, a dog"], [{"Dog"}])
    assert alone.mentioned == (("Dog",),)
    both = chair(["a Fire Hydrant, a dog", "a puppy"], [{"Dog"}, {"fire hydrant"}])
    assert both.hallucinated == (("fire hydrant",), ())


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([*TABLE, "of"]), max_size=5).map(" and ".join),
            st.sets(st.sampled_from([*TABLE])),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_agrees_with_counting_one_by_one(pairs: list[tuple[str, set[str]]]) -> None:
    captions, truths = [list(side) for side in zip(*pairs, strict=True)]
    wrong = mentions = bad = found = objects = 0
    for caption, truth in pairs:
        said = mentioned_objects(caption, TABLE)
        true = {TABLE[name] for name in truth}
        misses = sum(name not in true for name in said)
        wrong, mentions, bad = wrong + misses, mentions + len(said), bad + (misses > 0)
        found, objects = found + len(true.intersection(said)), objects + len(true)
    measures = chair(captions, truths, TABLE).measures
    assert measures["chair_s"] == pytest.approx(bad / len(pairs))
    for name, (part, whole) in {"chair_i": (wrong, mentions), "recall": (found, objects)}.items():
        expected = part / whole if whole else math.nan
        assert measures[name] == pytest.approx(expected, nan_ok=True)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(MetricError, match="got 1 captions and 2 sets of objects"):
        chair(["a dog"], [{"dog"}, {"cat"}])
    with pytest.raises(MetricError, match="got 0 captions"):
        chair([], [])
    with pytest.raises(MetricError, match="are a set of names; got 'dog'"):
        chair(["a dog"], ["dog"])
