"""Rows worth labelling next: uncertain and different from each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.engine.insight.spread import choose


def probabilities(scores: np.ndarray) -> np.ndarray:
    return np.stack([scores, 1.0 - scores], axis=1)


def test_of_many_rows_alike_few_are_chosen_and_the_rare_ones_are_found() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(5)[np.r_[np.zeros(96, dtype=int), 1, 2, 3, 4]] * 10.0
    states = centres + 0.01 * random.normal(size=(100, 5))
    found = choose(states, probabilities(np.full(100, 0.55)), 5)
    assert {96, 97, 98, 99} <= set(found.tolist())


def test_of_rows_in_the_same_places_the_unsure_ones_are_chosen() -> None:
    states = np.repeat(np.eye(4), 2, axis=0)
    sure = np.tile([0.99, 0.51], 4)
    for seed in range(5):
        assert sum(place % 2 for place in choose(states, probabilities(sure), 4, seed=seed)) >= 3


@settings(max_examples=30, deadline=None)
@given(total=st.integers(1, 30), seed=st.integers(0, 9), kinds=st.integers(1, 3))
def test_as_many_as_wanted_none_twice_and_the_same_again(total: int, seed: int, kinds: int) -> None:
    states = np.eye(kinds)[np.arange(total) % kinds]
    sure = probabilities(np.full(total, 0.7))
    for rows in (0, 1, total):
        found = choose(states, sure, rows, seed=seed)
        assert len(set(found.tolist())) == len(found) == rows
        assert np.array_equal(found, choose(states, sure, rows, seed=seed))
