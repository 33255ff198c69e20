"""Which rows stay and where they stand, against rules written out row by row."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.data.ordering import (
    CONFLICT,
    KEEP,
    OTHER_SPLIT,
    REPEAT,
    UNKNOWN,
    Rows,
    find_drops,
    in_proportion,
    positions,
)

ROW = st.tuples(
    st.integers(0, 2), st.integers(-1, 2), st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 1]), st.integers(-3, 3)
)


def rows_of(drawn: list[tuple[int, int, int, int]]) -> Rows:
    splits, labels, keys, texts = zip(*drawn, strict=True) if drawn else ((), (), (), ())
    return Rows(
        splits=np.array(splits, dtype=np.uint8), labels=np.array(labels, dtype=np.int64),
        keys=np.array(keys, dtype=np.uint64), texts=np.array(texts, dtype=np.int64),
        reasons=np.where(np.array(labels) < 0, UNKNOWN, KEEP).astype(np.uint8),
    )  # fmt: skip


def expected_drops(drawn: list[tuple[int, int, int, int]], official: bool, conflicts: bool, repeats: bool) -> list[int]:
    reasons = [UNKNOWN if label < 0 else KEEP for _, label, _, _ in drawn]

    def groups(*columns: int) -> list[list[int]]:
        found: dict[Any, list[int]] = defaultdict(list)
        for place, row in enumerate(drawn):
            if reasons[place] == KEEP:
                found[tuple(row[column] for column in columns)].append(place)
        return list(found.values())

    def drop_from_later_splits(column: int) -> None:
        for group in groups(column):
            first = min(drawn[place][0] for place in group)
            for place in group:
                reasons[place] = OTHER_SPLIT if drawn[place][0] > first else KEEP

    if official:
        drop_from_later_splits(2)
        drop_from_later_splits(3)
    if conflicts:
        for group in groups(3):
            if len({drawn[place][1] for place in group}) > 1:
                for place in group:
                    reasons[place] = CONFLICT
    if repeats:
        for group in groups(3, 1):
            kept = min(group, key=lambda place: (drawn[place][2], place))
            for place in group:
                reasons[place] = KEEP if place == kept else REPEAT
    if not (conflicts and repeats):
        drop_from_later_splits(3)
    return reasons


@settings(max_examples=300, deadline=None)
@given(drawn=st.lists(ROW, max_size=25), official=st.booleans(), conflicts=st.booleans(), repeats=st.booleans())
def test_drops_follow_the_rules(
    drawn: list[tuple[int, int, int, int]], official: bool, conflicts: bool, repeats: bool
) -> None:
    rows = rows_of(drawn)
    find_drops(rows, official=official, drop_conflicts=conflicts, drop_repeats=repeats)
    assert rows.reasons.tolist() == expected_drops(drawn, official, conflicts, repeats)


@settings(max_examples=200, deadline=None)
@given(drawn=st.lists(ROW, max_size=40), dropped=st.randoms(use_true_random=False))
def test_positions_spread_each_class_evenly_over_its_split(
    drawn: list[tuple[int, int, int, int]], dropped: Any
) -> None:
    rows = rows_of(drawn)
    rows.reasons[:] = [UNKNOWN if row[1] < 0 else dropped.choice([KEEP, KEEP, REPEAT]) for row in drawn]
    cells = defaultdict(list)
    for place, (split, label, key, _) in enumerate(drawn):
        if rows.reasons[place] == KEEP:
            cells[split, label].append((key, place))
    order = sorted(
        (split, Fraction(2 * rank - 1, 2 * len(cell)), label, place)
        for (split, label), cell in cells.items()
        for rank, (_, place) in enumerate(sorted(cell), 1)
    )
    expected = [0] * len(drawn)
    for position, (*_, place) in enumerate(order, 1):
        expected[place] = position
    assert positions(rows).tolist() == expected
    counts = rows.counts(3)
    assert {(s, c): n for (s, c), n in np.ndenumerate(counts) if n} == {key: len(cell) for key, cell in cells.items()}


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=4), seed=st.integers(0, 10**6))
def test_samples_are_nested_and_keep_the_class_shares(sizes: list[int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = len(labels)
    keys = draw.integers(0, 2**64, count, dtype=np.uint64)
    order = in_proportion(labels, keys)
    taken = np.zeros(len(sizes))
    for number, label in enumerate(labels[order], 1):
        taken[label] += 1
        assert np.abs(taken - number * np.array(sizes) / count).max() <= len(sizes) / 2 + 1e-9
