"""Columns and positions: where queries and keys stand, by hand."""

import pytest
import torch

from attnscope.interventions import InterventionError, Standing
from attnscope.interventions.standing import prompt_length
from attnscope.traces import Segment, Segments, TokenSequence


def _sequence(length, *runs):
    segments = Segments(
        tuple(Segment(name=name, start=start, stop=stop) for name, start, stop in runs)
    )
    return TokenSequence(name="text", tokens=("x",) * length, segments=segments)


LONG = _sequence(5, ("system", 0, 1), ("image", 1, 3), ("prompt", 3, 5))
SHORT = _sequence(3, ("image", 0, 1), ("prompt", 1, 3))


def _standing(first_query, queries, first_key, keys, sequences=(LONG, SHORT)):
    return Standing(
        sequences=sequences,
        padding=(0, 2),
        first_query=first_query,
        queries=queries,
        first_key=first_key,
        keys=keys,
        device=torch.device("cpu"),
    )


def test_a_prompt_is_read_in_one_pass():
    standing = _standing(0, 5, 0, 5)
    assert standing.positions().tolist() == [[0, 1, 2, 3, 4], [-2, -1, 0, 1, 2]]
    assert standing.predicting().int().tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert standing.keys_in("image").int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 0, 0]]
    assert standing.queries_after("image").int().tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    assert standing.keys_in((0, 2)).int().tolist() == [[1, 0, 1, 0, 0], [0, 0, 1, 0, 1]]


def test_a_step_sees_the_answer_grow():
    standing = _standing(6, 1, 0, 7)
    assert standing.predicting().tolist() == [[True], [True]]
    assert standing.keys_in("response").int().tolist() == [[0, 0, 0, 0, 0, 1, 1]] * 2
    assert standing.queries_in("response").tolist() == [[True], [True]]


def test_a_cache_may_have_dropped_the_first_keys():
    standing = _standing(6, 1, 4, 3)
    assert standing.keys_in("prompt").int().tolist() == [[1, 0, 0], [1, 0, 0]]
    assert standing.keys_after("image").all()


def test_what_was_found_out_serves_all_layers_of_a_pass():
    standing, calls = _standing(0, 5, 0, 5), []
    for _ in range(3):
        standing.known("once", lambda: calls.append(1))
    assert calls == [1]


def test_a_response_in_the_input_ends_the_prompt():
    answered = _sequence(6, ("prompt", 0, 3), ("response", 3, 5), ("special", 5, 6))
    assert prompt_length(answered) == 3
    assert prompt_length(LONG) == 5


def test_what_is_not_known_is_asked_for():
    with pytest.raises(InterventionError, match=r"no image segment .* it has \['prompt'\]"):
        _standing(0, 1, 0, 1, (_sequence(1, ("prompt", 0, 1)),) * 2).keys_in("image")
    with pytest.raises(InterventionError, match="encoded="):
        _standing(0, 1, 0, 1, ()).predicting()
