"""Risk and coverage: how accurate the most confident answers are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentiment_hybrid.engine.evaluation.triage import risk_coverage

ANSWERS = st.lists(st.tuples(st.sampled_from([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]), st.booleans()), min_size=1)


@given(ANSWERS)
def test_each_point_is_the_accuracy_of_all_rows_at_least_as_confident(answers: list[tuple[float, bool]]) -> None:
    curve = risk_coverage(*zip(*answers, strict=True))
    for threshold, coverage, accuracy in zip(curve.thresholds, curve.coverage, curve.accuracy, strict=True):
        kept = [right for confidence, right in answers if confidence >= threshold]
        assert coverage == pytest.approx(len(kept) / len(answers))
        assert accuracy == pytest.approx(sum(kept) / len(kept))
    assert curve.coverage[-1] == 1.0
    assert len(curve.thresholds) == len({confidence for confidence, _ in answers})


def test_the_coverage_at_an_accuracy_is_the_largest_that_reaches_it() -> None:
    curve = risk_coverage([0.9, 0.8, 0.7, 0.6], [True, False, True, True])
    assert curve.coverage_at(1.0) == 0.25
    assert curve.coverage_at(0.75) == 1.0
    assert risk_coverage([0.9], [False]).coverage_at(0.5) == 0.0


def test_a_thinned_curve_has_few_points_and_ends_at_all_rows() -> None:
    confidence = np.random.default_rng(1).random(5_000)
    coverage, accuracy = risk_coverage(confidence, confidence > 0.3).thinned(50)
    assert len(coverage) == len(accuracy) <= 50
    assert coverage[-1] == 1.0
    assert accuracy[-1] == pytest.approx((confidence > 0.3).mean())
