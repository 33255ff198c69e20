"""Points far from every class are outliers; too few points have none."""

from __future__ import annotations

import numpy as np

from sentiment_hybrid.engine.insight.features import States, _moments
from sentiment_hybrid.engine.insight.outliers import find_outliers


def states(values: np.ndarray) -> States:
    values = values.astype(np.float16)
    return States(values, *_moments(values))


def test_points_far_from_both_classes_are_found_and_ranked() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(1000) % 2
    values = random.normal(size=(1000, 8)) + 6.0 * labels[:, None]
    values[[10, 20]] = 3.0 + np.array([[9.0, -9.0] * 4, [30.0, -30.0] * 4])
    found = find_outliers(states(values), np.arange(1000), labels)
    assert found is not None
    assert [one.place for one in found[:2]] == [20, 10]
    assert len(found) <= 10
    assert all(0.5 <= one.confidence < 1.0 for one in found)


def test_fewer_rows_than_dimensions_say_nothing() -> None:
    values = np.random.default_rng(0).normal(size=(12, 8))
    assert find_outliers(states(values), np.arange(12), np.arange(12) % 2) is None
