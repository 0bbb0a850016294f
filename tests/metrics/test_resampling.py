"""Bootstrap intervals over images."""

import pandas
import pytest
import torch

from attnscope.metrics import MetricError, chair, confidence_table, paired_difference, pope


def polls(seed: int, count: int, accuracy: float) -> tuple[list[bool], list[bool]]:
    generator = torch.Generator().manual_seed(seed)
    truths = torch.rand(count, generator=generator) < 0.5
    right = torch.rand(count, generator=generator) < accuracy
    return (truths == right).tolist(), truths.tolist()


def test_an_interval_is_that_of_the_binomial() -> None:
    scores = pope(*polls(0, 400, 0.8))
    row = confidence_table(scores, samples=4000).loc["accuracy"]
    share = scores.measures["accuracy"]
    width = 2 * 1.96 * (share * (1 - share) / 400) ** 0.5
    assert row.value == share
    assert row.high - row.low == pytest.approx(width, rel=0.1)
    assert row.low < share < row.high


def test_the_same_seed_gives_the_same_interval() -> None:
    scores = pope(*polls(1, 50, 0.7))
    first = confidence_table(scores, seed=3)
    pandas.testing.assert_frame_equal(first, confidence_table(scores, seed=3))
    assert not first.equals(confidence_table(scores, seed=4))


def test_questions_of_one_image_are_drawn_together() -> None:
    said, truths = polls(2, 60, 0.7)
    images = [number // 6 for number in range(60)]
    six_times = [value for value in said[::6] for _ in range(6)]
    true_six = [value for value in truths[::6] for _ in range(6)]
    grouped = confidence_table(pope(six_times, true_six, images), seed=5)
    alone = confidence_table(pope(said[::6], truths[::6]), seed=5)
    pandas.testing.assert_frame_equal(grouped, alone)


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    said, truths = polls(3, 300, 0.7)
    better = [*truths[:15], *said[15:]]
    difference = paired_difference(pope(better, truths), pope(said, truths)).loc["accuracy"]
    spread = confidence_table(pope(said, truths)).loc["accuracy"]
    assert difference.value > 0
    assert difference.high - difference.low < (spread.high - spread.low) / 2
    none = paired_difference(pope(said, truths), pope(said, truths))
    assert (none == 0).all(axis=None)
    back = paired_difference(pope(said, truths), pope(better, truths)).loc["accuracy"]
    assert back.low == pytest.approx(-difference.high)


def test_captions_are_compared_too() -> None:
    truths = [{"dog"}, {"cat"}, {"dog"}, {"cat"}]
    good, bad = chair(["a dog", "a cat"] * 2, truths), chair(["a dog and a cat"] * 4, truths)
    table = paired_difference(good, bad)
    assert table.value.round(6).to_dict() == {
        "chair_s": -1.0,
        "chair_i": -0.5,
        "recall": 0.0,
        "f1": round(1 - 2 / 3, 6),
        "length": -3.0,
    }
    assert (table.high["chair_s"], table.low["chair_s"]) == (-1.0, -1.0)


def test_draws_without_a_value_are_left_out() -> None:
    scores = chair(["a dog", "nothing"], [{"dog"}, {"cat"}])
    row = confidence_table(scores).loc["chair_i"]
    assert (row.value, row.low, row.high) == (0.0, 0.0, 0.0)


def test_refuses_what_does_not_fit() -> None:
    one, two = pope([True], [True]), pope([True, False], [True, True])
    with pytest.raises(MetricError, match="same counts on the same images"):
        paired_difference(one, two)
    with pytest.raises(MetricError, match="same counts on the same images"):
        paired_difference(one, chair(["a dog"], [{"dog"}]))
    with pytest.raises(MetricError, match="a level between 0 and 1"):
        confidence_table(one, level=1.0)
    with pytest.raises(MetricError, match="1 images, 0 samples"):
        confidence_table(one, samples=0)
