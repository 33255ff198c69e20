"""Thresholds that promise an accuracy keep it, say what cannot be had, and survive being stored."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.engine.evaluation.triage import GRID, Calibration, binomial


def answers(rows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and answers that are right as often as these say."""
    random = np.random.default_rng(seed)
    confidence = 0.5 + 0.5 * random.beta(2.0, 1.0, rows)
    return confidence, random.random(rows) < confidence


@pytest.mark.parametrize("target", [0.8, 0.95])
@pytest.mark.parametrize("rows", [300, 2000])
def test_a_promise_is_kept_in_19_of_20_samples(target: float, rows: int) -> None:
    confidence, right = answers(400_000, seed=0)
    broken = promised = 0
    for seed in range(100):
        threshold = Calibration.of(*answers(rows, seed=seed + 1)).threshold(target)
        if threshold is not None:
            promised += 1
            broken += right[confidence >= threshold.value].mean() < target
    assert broken <= 0.05 * 100 + 4  # two standard errors more than a risk of 5 % gives
    if rows == 2000 and target == 0.8:
        assert promised >= 99


def test_with_more_rows_more_answers_are_kept() -> None:
    found = [Calibration.of(*answers(rows, seed=3)).threshold(0.9) for rows in (500, 5000, 50_000)]
    values = [threshold.value for threshold in found if threshold]
    assert len(values) == 3
    assert values == sorted(values, reverse=True)


def test_a_target_that_cannot_be_had_gives_none_and_the_best_that_can() -> None:
    calibration = Calibration.of(*answers(1000, seed=5))
    assert calibration.threshold(0.999) is None
    best = calibration.best()
    assert best is not None and 0.8 < best < 0.999
    assert calibration.threshold(best) is not None
    assert calibration.threshold(best + 0.0011) is None
    assert Calibration.of([0.99] * 79, [True] * 79).threshold(0.95) is None  # 80 rows without an error are needed
    assert Calibration.of([0.99] * 80, [True] * 80).threshold(0.95) is not None


def test_counts_are_those_of_answers_at_or_above_each_threshold() -> None:
    confidence = np.array([0.9, 0.5, 0.95, 0.5])
    calibration = Calibration.of(confidence, [True, False, True, True])
    at = {round(float(value), 4): place for place, value in enumerate(GRID)}
    assert calibration.kept[[at[0.95], at[0.9], at[0.501], at[0.5]]].tolist() == [1, 2, 2, 4]
    assert calibration.wrong[[at[0.9], at[0.5]]].tolist() == [0, 1]


def test_it_survives_json_and_refuses_damage() -> None:
    calibration = Calibration.of(*answers(300, seed=1), fresh=False)
    document = json.loads(json.dumps(calibration.to_dict()))
    assert Calibration.from_dict(document).threshold(0.8) == calibration.threshold(0.8)
    for change in ({"kept": [1]}, {"thresholds": [0.5]}, {"rows": 0}):
        with pytest.raises(ValueError):
            Calibration.from_dict({**document, **change})


@given(st.integers(1, 500), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_the_exact_interval_contains_the_share(rows: int, share: float) -> None:
    value, low, high = binomial(round(rows * share), rows)
    assert 0.0 <= low <= value <= high <= 1.0
    assert high - low > 1.0 / (rows + 1)
