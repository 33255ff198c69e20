"""Near-duplicates become conflicts, leaks and repeats, each in the row that should change."""

from __future__ import annotations

from typing import get_args

import numpy as np

from sentiment_hybrid.data.store import Split
from sentiment_hybrid.engine.insight.duplicates import find_duplicates
from sentiment_hybrid.engine.insight.repeats import find_repeats
from sentiment_hybrid.engine.insight.table import CONFLICT, LEAK, REPEAT, Finding, Table

TEXT = "the long flight to the coast was late again and nobody told us a thing"


def found_in(*rows: tuple[str, int, str], chosen: tuple[str, ...] = ("train", "valid")) -> list[Finding]:
    """Findings about rows given as text, class and split; their numbers are their places."""
    texts, labels, splits = zip(*rows, strict=True)
    numbers = np.array([get_args(Split).index(name) for name in splits])
    codes = np.array(labels)
    table = Table(
        ("negative", "positive"), list(texts), list(texts), codes, codes, np.arange(len(rows)), numbers,
        np.isin(splits, chosen),
    )  # fmt: skip
    return find_repeats(table, find_duplicates(texts))


def kinds(findings: list[Finding]) -> list[tuple[int, str]]:
    return sorted((one.place, one.why) for one in findings)


def test_the_row_against_the_majority_is_in_conflict() -> None:
    found = found_in((TEXT, 0, "train"), (f"{TEXT}!", 0, "train"), (f"{TEXT}!!", 1, "train"))
    conflicts = [one for one in found if one.why == CONFLICT]
    assert [(one.place, one.likely) for one in conflicts] == [(2, 0)]
    assert conflicts[0].detail.startswith("train row 0 is negative: the long flight")


def test_two_rows_against_each_other_are_both_in_conflict_without_a_likely_label() -> None:
    conflicts = [one for one in found_in((TEXT, 0, "train"), (f"{TEXT}.", 1, "valid")) if one.why == CONFLICT]
    assert [(one.place, one.likely) for one in conflicts] == [(0, -1), (1, -1)]


def test_a_negation_or_an_emoticon_explains_another_label() -> None:
    for turned in (f"{TEXT} :)", TEXT.replace("was late", "was not late"), f"{TEXT} \U0001f600"):
        assert not [one for one in found_in((TEXT, 0, "train"), (turned, 1, "train")) if one.why == CONFLICT]


def test_leaks_are_flagged_where_they_can_be_removed() -> None:
    rows = ((TEXT, 0, "test"), (f"{TEXT}!", 0, "train"), (f"{TEXT}?", 0, "valid"))
    assert kinds(found_in(*rows)) == [(1, LEAK), (2, LEAK)]


def test_a_label_of_the_test_split_is_not_reported() -> None:
    found = found_in((TEXT, 1, "test"), (f"{TEXT}!", 0, "train"))
    assert kinds(found) == [(1, LEAK)]
    assert "positive" not in found[0].detail


def test_all_but_the_first_of_a_split_are_repeats() -> None:
    rows = ((TEXT, 0, "train"), (f"{TEXT}!", 0, "train"), ("quite another text about cats", 1, "train"))
    assert kinds(found_in(*rows)) == [(1, REPEAT)]


def test_large_groups_take_no_longer_than_their_size() -> None:
    rows = [(f"{TEXT}{'!' * (at % 7)}", at % 2, ("train", "valid", "test")[at % 3]) for at in range(3000)]
    found = found_in(*rows)
    assert {one.why for one in found} == {CONFLICT, LEAK}
    assert len({one.place for one in found}) == 2000
