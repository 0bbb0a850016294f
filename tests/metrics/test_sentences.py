"""Sentence spans on tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.metrics import sentence_spans

TOKENS = st.lists(st.sampled_from([" a", ".", "!", "\n", " 3", "4", " b.\n", "?"]), max_size=12)


@pytest.mark.parametrize(
    ("tokens", "sentences"),
    [
        ([], []),
        ([" a", " b"], [" a b"]),
        ([" a", ".", " b", "."], [" a.", " b."]),
        ([" a.", " b?"], [" a.", " b?"]),
        ([" 3", ".", "14", ".", " b"], [" 3.14.", " b"]),
        ([" a", "?", "!", " b"], [" a?!", " b"]),
        ([" a", ".", "\n\n", " b"], [" a.\n\n", " b"]),
        ([" a\n", " b"], [" a\n", " b"]),
        (["\u4f60", "\u3002", "\u597d"], ["\u4f60\u3002", "\u597d"]),
    ],
)
def test_a_sentence_ends_with_a_mark_or_a_line_break(
    tokens: list[str], sentences: list[str]
) -> None:
    assert ["".join(tokens[a:b]) for a, b in sentence_spans(tokens)] == sentences


def test_only_the_asked_positions_are_split() -> None:
    assert sentence_spans(["a.", "b.", "c.", "d."], 1, 3) == ((1, 2), (2, 3))


@given(TOKENS)
def test_every_position_belongs_to_one_sentence(tokens: list[str]) -> None:
    spans = sentence_spans(tokens)
    assert [i for start, stop in spans for i in range(start, stop)] == list(range(len(tokens)))
