"""Slices of the tested rows by what their texts are like."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sentiment_hybrid.engine.evaluation.slices import KINDS, LEAST_ROWS, MOST_VALUES, Membership


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("length", "", "1-5 words"),
        ("length", "one two three four five", "1-5 words"),
        ("length", "one two three four five six", "6-10 words"),
        ("length", "word " * 101, "over 100 words"),
        ("negation", "I don’t like it", "with a negation"),
        ("negation", "NOT good", "with a negation"),
        ("negation", "a notable knot", None),
        ("emoji", "so good 😍", "with an emoji"),
        ("emoji", "❤", "with an emoji"),
        ("emoji", "naïve café, 東京", None),
        ("emoticon", "great :)", "with an emoticon"),
        ("emoticon", "at 10:30 (sharp)", None),
        ("question", "why?", "with a question mark"),
        ("mention", "@user hi", "with a mention"),
        ("mention", "me@example.org", None),
        ("link", "see http", "with a link"),
        ("capitals", "so BAD", "with a word in capitals"),
        ("capitals", "the UK is OK", None),
    ],
)
def test_a_text_is_in_the_slice_of_what_it_holds(kind: str, text: str, wanted: str | None) -> None:
    assert KINDS[kind](text) == wanted


def membership(texts: list[str], values: list[str] | None = None) -> Membership:
    found = Membership()
    for place, text in enumerate(texts):
        found.add(text, {"airline": values[place]} if values else None)
    return found


def test_a_slice_has_its_accuracy_with_wilsons_interval_beside_that_of_all_other_rows() -> None:
    right = np.array([True] * 15 + [False] * 5 + [True] * 60)
    (found,) = [
        one for one in membership(["why?"] * 20 + ["fine"] * 60).slices(right) if one.name == "with a question mark"
    ]
    assert (found.rows, found.accuracy.value, found.rest) == (20, 0.75, 1.0)
    z, p, n = 1.959964, 0.75, 20
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((middle - half, middle + half), abs=1e-4)
    # The only slice, so its p-value is that of Fisher's test: all 5 errors among 20 of 80 rows.
    assert found.p_value == pytest.approx(math.comb(20, 5) / math.comb(80, 5))
    assert found.differs


def test_p_values_are_corrected_for_the_number_of_slices() -> None:
    right = np.array([False] * 4 + [True] * 16 + [True] * 60)
    alone = membership(["why?"] * 20 + ["fine"] * 60).slices(right)
    values = ["a"] * 30 + ["b"] * 50
    among_more = membership(["why?"] * 20 + ["fine"] * 60, values).slices(right)
    p_values = {one.name: one.p_value for one in among_more}
    assert len(among_more) == 3
    assert p_values["with a question mark"] == pytest.approx(3 * alone[0].p_value)


def test_slices_come_with_the_least_accurate_first_and_small_ones_not_at_all() -> None:
    values = ["x"] * 30 + ["y"] * 30 + ["z"] * (LEAST_ROWS - 1) + ["w"] * 30
    right = np.array([True] * 30 + [False] * 30 + [False] * (LEAST_ROWS - 1) + [True, False] * 15)
    found = membership(["fine"] * len(values), values).slices(right)
    assert [one.name for one in found] == ["y", "w", "x"]
    assert [one.accuracy.value for one in found] == [0.0, 0.5, 1.0]


def test_of_a_column_with_very_many_values_the_most_frequent_are_shown() -> None:
    values = [str(value) for value in range(MOST_VALUES + 10) for _ in range(LEAST_ROWS + (value < MOST_VALUES))]
    found = membership(["fine"] * len(values), values).slices(np.arange(len(values)) % 3 > 0)
    assert {one.name for one in found} == {str(value) for value in range(MOST_VALUES)}
