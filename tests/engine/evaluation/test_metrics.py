"""Point figures agree with scikit-learn, intervals with a row-by-row bootstrap; odd cases have defined values."""

from __future__ import annotations

import itertools
import json
import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from sentiment_hybrid import tables
from sentiment_hybrid.config.sections import METRICS
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.errors import ModelError

FIGURES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "mcc", "roc_auc", "ece")


def simulate(rows: int, classes: int, *, seed: int = 0, signal: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += signal
    odds = np.exp(logits)
    return labels, odds / odds.sum(axis=1, keepdims=True)


def names(classes: int) -> list[str]:
    return [f"class {i}" for i in range(classes)]


def measure(labels: np.ndarray, probabilities: np.ndarray, **options: float) -> metrics.Scores:
    options = {"confidence": 0.95, "resamples": 100, "seed": 0, **options}
    return metrics.score(labels, probabilities, names(probabilities.shape[1]), metrics.Level(**options))  # type: ignore[arg-type]


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    classes = draw(st.integers(2, 4))
    rows = draw(st.integers(1, 25))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    # Few distinct weights: ties and constant predictions are common.
    weights = draw(
        st.lists(st.lists(st.integers(1, 4), min_size=classes, max_size=classes), min_size=rows, max_size=rows)
    )
    odds = np.array(weights, dtype=np.float64)
    return np.array(labels), odds / odds.sum(axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(outcomes())
def test_point_figures_are_those_of_scikit_learn(outcome: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = outcome
    classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    scores = measure(labels, probabilities)
    macro = reference.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    each = reference.precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    assert scores.accuracy.value == pytest.approx(reference.accuracy_score(labels, predicted))
    ours = (scores.macro_precision.value, scores.macro_recall.value, scores.macro_f1.value)
    assert ours == pytest.approx(macro[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert scores.mcc.value == pytest.approx(reference.matthews_corrcoef(labels, predicted), abs=1e-9)
    for i, one in enumerate(scores.per_class):
        assert one.support == each[3][i]
        if one.support or (predicted == i).any():
            assert (one.precision, one.recall, one.f1) == pytest.approx((each[0][i], each[1][i], each[2][i]))
        else:
            assert math.isnan(one.precision) and math.isnan(one.recall) and math.isnan(one.f1)
    expected = reference.confusion_matrix(labels, predicted, labels=range(classes))
    assert np.array_equal(scores.confusion, expected)


@settings(max_examples=60, deadline=None)
@given(outcomes())
def test_roc_auc_is_that_of_scikit_learn_over_the_classes_that_have_rows(
    outcome: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, probabilities = outcome
    scores = measure(labels, probabilities)
    present = np.unique(labels)
    if len(present) < 2:
        assert math.isnan(scores.roc_auc.value)
        return
    expected = [reference.roc_auc_score(labels == c, probabilities[:, c]) for c in present]
    if probabilities.shape[1] == 2:
        expected = [reference.roc_auc_score(labels, probabilities[:, 1])]
    assert scores.roc_auc.value == pytest.approx(np.mean(expected))


@settings(max_examples=60, deadline=None)
@given(outcomes())
def test_every_interval_holds_its_value_and_json_has_no_nan(outcome: tuple[np.ndarray, np.ndarray]) -> None:
    scores = measure(*outcome)
    for figure in FIGURES:
        interval = getattr(scores, figure)
        if not math.isnan(interval.value):
            lowest = -1.0 if figure == "mcc" else 0.0
            assert lowest <= interval.low <= interval.value <= interval.high <= 1.0
    json.dumps(scores.to_dict(), allow_nan=False)


def test_ece_is_the_formula_of_guo_written_out() -> None:
    labels, probabilities = simulate(3000, 3)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    scores = measure(labels, probabilities)
    assert scores.ece.value == pytest.approx(expected)
    assert sum(part.rows for part in scores.reliability) == 3000
    assert len(scores.reliability) == 15


def test_a_confidence_of_exactly_one_lies_in_the_last_bin() -> None:
    scores = measure(np.array([1, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert scores.reliability[-1].rows == 2
    assert scores.ece.value == 0.0


def row_bootstrap(labels: np.ndarray, probabilities: np.ndarray, *, resamples: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(123)
    predicted = probabilities.argmax(axis=1)
    found: dict[str, list[float]] = {"accuracy": [], "macro_f1": [], "mcc": [], "roc_auc": []}
    for _ in range(resamples):
        rows = rng.integers(0, len(labels), len(labels))
        true, guess, scores = labels[rows], predicted[rows], probabilities[rows]
        point = metrics.quick(true, scores)
        found["accuracy"].append(point["accuracy"])
        found["macro_f1"].append(point["macro_f1"])
        found["mcc"].append(reference.matthews_corrcoef(true, guess))
        if probabilities.shape[1] == 2:
            found["roc_auc"].append(reference.roc_auc_score(true, scores[:, 1]))
        else:
            found["roc_auc"].append(reference.roc_auc_score(true, scores, multi_class="ovr"))
    return {name: np.quantile(values, [0.025, 0.975]) for name, values in found.items()}


@pytest.mark.parametrize(("rows", "classes"), [(300, 2), (3000, 2), (300, 3), (1500, 3)])
def test_intervals_agree_with_resampling_rows(rows: int, classes: int) -> None:
    labels, probabilities = simulate(rows, classes, seed=5)
    expected = row_bootstrap(labels, probabilities, resamples=300)
    scores = measure(labels, probabilities, resamples=2000)
    for figure, (low, high) in expected.items():
        interval = getattr(scores, figure)
        width = high - low
        assert interval.low == pytest.approx(low, abs=0.15 * width), figure
        assert interval.high == pytest.approx(high, abs=0.15 * width), figure


@pytest.mark.parametrize("classes", [2, 3])
def test_intervals_cover_the_truth_about_as_often_as_they_say(classes: int) -> None:
    labels, probabilities = simulate(400_000, classes, seed=99)
    truth = measure(labels, probabilities)
    covered = dict.fromkeys(FIGURES, 0)
    runs = 150
    for seed in range(runs):
        scores = measure(*simulate(300, classes, seed=seed), resamples=200, seed=seed)
        for figure in FIGURES:
            interval = getattr(scores, figure)
            covered[figure] += interval.low <= getattr(truth, figure).value <= interval.high
    for figure, count in covered.items():
        assert count / runs >= 0.89, (figure, count / runs)
        if figure != "ece":  # widened to hold its biased point, hence on the safe side
            assert count / runs <= 0.99, (figure, count / runs)


def test_a_calibrated_model_is_not_called_miscalibrated() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(50):
        positive = rng.uniform(size=800)
        labels = (rng.uniform(size=800) < positive).astype(int)
        scores = measure(labels, np.stack([1 - positive, positive], axis=1), resamples=200)
        held += scores.ece.low <= 0.005
    assert held >= 45


def test_same_seed_same_intervals_and_another_seed_others() -> None:
    labels, probabilities = simulate(500, 3)
    assert measure(labels, probabilities) == measure(labels, probabilities)
    assert measure(labels, probabilities, seed=1).accuracy != measure(labels, probabilities).accuracy


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    labels, probabilities = simulate(500, 2)
    wide = measure(labels, probabilities, confidence=0.99, resamples=2000).accuracy
    narrow = measure(labels, probabilities, confidence=0.8, resamples=2000).accuracy
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_row_and_constant_predictions_have_defined_values() -> None:
    one = measure(np.array([0]), np.array([[0.9, 0.1]]))
    assert one.accuracy == metrics.Interval(1.0, 1.0, 1.0)
    assert one.macro_f1.value == 1.0
    assert one.mcc.value == 0.0
    assert one.to_dict()["roc_auc"] == {"value": None, "low": None, "high": None}
    assert one.to_dict()["per_class"][1]["f1"] is None
    constant = measure(np.array([0, 1, 1, 0]), np.full((4, 2), 0.5))
    assert constant.mcc.value == 0.0
    assert constant.roc_auc.value == 0.5


def test_a_class_that_the_rows_lack_is_left_out_of_macro_figures() -> None:
    scores = measure(np.array([0, 1, 0, 1]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]] * 2))
    assert scores.macro_f1.value == 1.0
    assert scores.roc_auc.value == 1.0
    assert scores.per_class[2].support == 0


def test_probabilities_that_are_not_numbers_are_an_error_with_their_count() -> None:
    with pytest.raises(ModelError, match="1 of 2 texts"):
        measure(np.array([0, 1]), np.array([[0.5, 0.5], [math.nan, 0.5]]))


def test_quick_agrees_with_score_and_the_log_loss() -> None:
    labels, probabilities = simulate(500, 3)
    facts = metrics.quick(labels, probabilities)
    scores = measure(labels, probabilities)
    assert facts["accuracy"] == pytest.approx(scores.accuracy.value)
    assert facts["macro_f1"] == pytest.approx(scores.macro_f1.value)
    assert facts["loss"] == pytest.approx(reference.log_loss(labels, probabilities))


def test_every_metric_for_selection_is_measured_in_each_epoch() -> None:
    assert metrics.quick([0, 1], [[0.9, 0.1], [0.2, 0.8]]).keys() == METRICS.keys()


def test_quick_stays_finite_when_the_truth_has_probability_zero() -> None:
    assert math.isfinite(metrics.quick(np.array([0]), np.array([[0.0, 1.0]]))["loss"])


def surprise(labels: np.ndarray, probabilities: np.ndarray, heat: float) -> float:
    """Mean negative log likelihood of probabilities whose logits are divided by a temperature."""
    scaled = np.log(np.clip(probabilities, 1e-12, 1.0)) / heat
    scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return float(-scaled[np.arange(labels.size), labels].mean())


def posterior(labels: np.ndarray, probabilities: np.ndarray, heat: float) -> float:
    """The same with the prior on the logarithm of the temperature, of standard deviation 0.5."""
    return surprise(labels, probabilities, heat) + math.log(heat) ** 2 / (2 * 0.5**2) / labels.size


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 5))
def test_the_temperature_makes_the_labels_most_likely_given_the_prior(seed: int, classes: int) -> None:
    labels, probabilities = simulate(300, classes, seed=seed)
    found = metrics.temperature(labels, probabilities)
    for other in (0.1, 0.5 * found, 0.98 * found, 1.0, 1.02 * found, 2.0 * found, 10.0):
        assert posterior(labels, probabilities, found) <= posterior(labels, probabilities, other) + 1e-7


@pytest.mark.parametrize("heat", [0.4, 1.0, 2.5])
def test_with_many_rows_the_temperature_follows_the_scale_of_the_logits(heat: float) -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet((1.0, 1.0, 1.0), size=20_000)
    labels = (probabilities.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    scaled = probabilities**heat
    scaled /= scaled.sum(axis=1, keepdims=True)
    assert metrics.temperature(labels, scaled) == pytest.approx(heat, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 40))
def test_a_few_rows_cannot_make_a_model_much_surer_than_it_was(seed: int, rows: int) -> None:
    labels, probabilities = simulate(rows, 2, seed=seed)
    right = probabilities[np.arange(rows), labels] > 0.5
    found = metrics.temperature(labels[right], probabilities[right]) if right.any() else 1.0
    assert 0.25 < found < 2.0


@pytest.mark.parametrize("right", [True, False])
def test_a_temperature_stays_finite_for_probabilities_of_0_and_1(right: bool) -> None:
    labels = np.arange(50) % 2
    assert 0.1 <= metrics.temperature(labels, np.eye(2)[labels if right else 1 - labels]) <= 10.0


@pytest.mark.parametrize(
    ("rows", "errors", "reason"),
    [
        (12, 0, "12 validation texts with 0 errors"),
        (1, 1, "1 validation text with 1 error,"),
        (99, 50, "99 validation texts with 50 errors"),
        (5000, 9, "5,000 validation texts with 9 errors"),
        (100, 10, ""),
    ],
)
def test_few_rows_or_errors_are_too_few_to_calibrate(rows: int, errors: int, reason: str) -> None:
    labels = np.zeros(rows, dtype=np.int64)
    probabilities = np.tile([0.9, 0.1], (rows, 1))
    probabilities[:errors] = [0.1, 0.9]
    found = metrics.too_few_to_calibrate(labels, probabilities)
    assert found.startswith(reason) and bool(found) == bool(reason)


def test_no_temperature_is_made_of_what_is_no_probability() -> None:
    with pytest.raises(ModelError, match="not numbers"):
        metrics.temperature([0, 1], [[0.5, 0.5], [math.nan, 0.1]])


def test_mcnemar_is_the_exact_binomial_test_written_out() -> None:
    truth = np.zeros(30, dtype=int)
    first, second = truth.copy(), truth.copy()
    first[:2], second[2:12] = 1, 1
    result = metrics.compare(truth, first, second, metrics.Level(confidence=0.95, resamples=500, seed=0))
    expected = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12
    assert (result.only_a, result.only_b) == (10, 2)
    assert result.accuracy.p_value == pytest.approx(expected)
    assert result.better("accuracy") == 1
    assert result.accuracy.value == pytest.approx(8 / 30)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value", "differs_at"),
    [
        (10, 2, 0.03857421875, [0.8, 0.9, 0.95]),
        (9, 3, 0.14599609375, [0.8]),
        (8, 4, 0.387695312, []),
        (3, 2, 1.0, []),
        (4, 7, 0.548828125, []),
        (0, 5, 0.0625, [0.8, 0.9]),
    ],
)
def test_a_difference_is_beyond_chance_only_if_p_is_below_one_minus_the_confidence(
    only_a: int, only_b: int, p_value: float, differs_at: list[float]
) -> None:
    truth = np.zeros(60, dtype=int)
    first, second = truth.copy(), truth.copy()
    first[:only_b], second[only_b : only_b + only_a] = 1, 1
    for confidence in (0.8, 0.9, 0.95, 0.99):
        result = metrics.compare(truth, first, second, metrics.Level(confidence=confidence, resamples=100, seed=0))
        assert result.accuracy.p_value == pytest.approx(p_value)
        sign = 1 if only_a > only_b else -1
        assert result.better("accuracy") == (sign if confidence in differs_at else 0)


def test_equal_predictions_do_not_differ() -> None:
    labels, probabilities = simulate(200, 3)
    predicted = probabilities.argmax(axis=1)
    result = metrics.compare(labels, predicted, predicted, metrics.Level(confidence=0.95, resamples=200, seed=0))
    assert result.accuracy == result.macro_f1 == metrics.Difference(0.0, 0.0, 0.0, p_value=1.0)
    assert result.better("accuracy") == result.better("macro_f1") == 0


def test_the_paired_interval_agrees_with_resampling_row_pairs() -> None:
    labels, probabilities = simulate(800, 3, seed=2)
    a = probabilities.argmax(axis=1)
    b = (probabilities + np.random.default_rng(0).normal(size=probabilities.shape) * 0.2).argmax(axis=1)
    result = metrics.compare(labels, a, b, metrics.Level(confidence=0.95, resamples=4000, seed=0))
    rng, found = np.random.default_rng(1), []
    for _ in range(600):
        rows = rng.integers(0, 800, 800)
        true = labels[rows]
        one, other = (metrics.quick(true, np.eye(3)[guess[rows]]) for guess in (a, b))
        found.append((one["accuracy"] - other["accuracy"], one["macro_f1"] - other["macro_f1"]))
    for interval, values in zip((result.accuracy, result.macro_f1), np.array(found).T, strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        assert interval.low == pytest.approx(low, abs=0.15 * (high - low))
        assert interval.high == pytest.approx(high, abs=0.15 * (high - low))


def test_comparing_the_other_way_round_mirrors_the_result() -> None:
    labels, probabilities = simulate(300, 2)
    a, b = probabilities.argmax(axis=1), np.zeros(300, dtype=int)
    forth = metrics.compare(labels, a, b, metrics.Level(confidence=0.95, resamples=200, seed=0))
    back = metrics.compare(labels, b, a, metrics.Level(confidence=0.95, resamples=200, seed=0))
    assert forth.accuracy.value == -back.accuracy.value
    assert (forth.only_a, forth.accuracy.p_value) == (back.only_b, back.accuracy.p_value)
    assert forth.better("macro_f1") == -back.better("macro_f1") == 1
    written = json.loads(json.dumps(forth.to_dict(), allow_nan=False))
    assert metrics.Comparison.from_dict(written) == forth


def one_class_forgotten() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and two models that are right equally often; the second never predicts the rare class."""
    truth = np.array([0] * 180 + [1] * 20)
    first, second = truth.copy(), np.zeros(200, dtype=int)
    first[:18], second[:2] = 1, 1  # 18 and 2 + 20 errors
    return truth, first, second


def test_models_of_one_accuracy_that_differ_in_macro_f1_are_told_apart() -> None:
    result = metrics.compare(*one_class_forgotten(), metrics.Level(resamples=2000))
    assert result.accuracy.p_value > 0.5 and result.better("accuracy") == 0
    assert result.macro_f1.low > 0.0 and result.macro_f1.p_value < 0.01 and result.better("macro_f1") == 1
    said = tables.difference(result, "a", "b")
    assert said.startswith("A is better than b, beyond chance, in macro-F1, with no measurable difference in accuracy,")
    assert tables.difference(
        metrics.compare(*one_class_forgotten(), metrics.Level(resamples=200)), "a", "b"
    ).startswith("A is better")


def test_the_p_value_of_macro_f1_is_that_of_swapping_the_predictions_of_rows() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 120)
    a, b = (np.where(rng.random(120) < right, truth, rng.integers(0, 3, 120)) for right in (0.7, 0.55))

    def gap(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.subtract(*(metrics.quick(truth, np.eye(3)[guess])["macro_f1"] for guess in (one, other))))

    swaps = rng.random((1500, 120)) < 0.5
    as_large = [abs(gap(np.where(swap, b, a), np.where(swap, a, b))) >= abs(gap(a, b)) - 1e-12 for swap in swaps]
    found = metrics.compare(truth, a, b, metrics.Level(resamples=4000)).macro_f1.p_value
    assert 0.001 < found < 0.9
    assert found == pytest.approx(np.mean(as_large), abs=0.03)


def test_swapping_rows_finds_a_difference_no_more_often_than_its_level_where_there_is_none() -> None:
    rng = np.random.default_rng(11)
    p_values = []
    for _ in range(200):
        truth = rng.integers(0, 3, 90)
        a, b = (np.where(rng.random(90) < 0.6, truth, rng.integers(0, 3, 90)) for _ in range(2))
        p_values.append(metrics.compare(truth, a, b, metrics.Level(resamples=100)).macro_f1.p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.1
    assert 0.4 < np.mean(np.array(p_values) < 0.5) < 0.6


def holm_by_hand(p_values: list[float]) -> list[float]:
    """As the definition has it: the largest corrected value of all p-values up to the own one."""
    size, ordered = len(p_values), sorted(p_values)
    return [max(min(1.0, (size - rank) * p) for rank, p in enumerate(ordered) if p <= own) for own in p_values]


@given(p_values=st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)), max_size=8))
def test_holms_correction_is_that_of_the_pairs_of_a_table(p_values: list[tuple[float, float]]) -> None:
    pairs = [
        metrics.Comparison(
            10, 0.95, metrics.Difference(0.1, 0.0, 0.2, f1), metrics.Difference(0.1, 0.0, 0.2, accuracy), 3, 1
        )
        for f1, accuracy in p_values
    ]
    corrected = metrics.holm(pairs)
    assert [one.macro_f1.p_value for one in corrected] == pytest.approx(holm_by_hand([f1 for f1, _ in p_values]))
    assert [one.accuracy.p_value for one in corrected] == pytest.approx(holm_by_hand([acc for _, acc in p_values]))
    assert all(one.pairs == len(pairs) for one in corrected)


def contradicts(one: metrics.Comparison, metric: str) -> bool:
    """Whether the interval of a difference and what is said of it exclude each other."""
    found, sign = getattr(one, metric), one.better(metric)
    if not found.low <= found.value <= found.high:
        return True
    return found.low < 0.0 < found.high if sign else not found.low <= 0.0 <= found.high


@settings(max_examples=60, deadline=None)
@given(
    rights=st.lists(st.floats(0.3, 0.95), min_size=2, max_size=4),
    rows=st.integers(8, 400),
    classes=st.integers(2, 4),
    confidence=st.sampled_from([0.8, 0.95, 0.99]),
    seed=st.integers(0, 999),
)
def test_verdict_and_interval_never_contradict_each_other(
    rights: list[float], rows: int, classes: int, confidence: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    models = [np.where(rng.random(rows) < right, truth, rng.integers(0, classes, rows)) for right in rights]
    pairs = [
        metrics.compare(truth, a, b, metrics.Level(confidence=confidence, resamples=100, seed=seed))
        for a, b in itertools.combinations(models, 2)
    ]
    table = metrics.holm(pairs)
    for metric in metrics.COMPARED:
        assert not any(contradicts(one, metric) for one in [*pairs, *table])


@given(
    differences=st.lists(
        st.tuples(st.floats(0.0, 0.2), st.floats(-0.5, 0.5), st.floats(0.0, 0.3), st.floats(0.0, 0.3)), max_size=9
    )
)
def test_intervals_of_a_table_agree_with_its_p_values_and_are_no_narrower_than_alone(
    differences: list[tuple[float, float, float, float]],
) -> None:
    pairs = []
    for p_value, value, below, above in differences:
        gap = metrics.Difference(value, max(value - below, -1.0), min(value + above, 1.0), p_value if value else 1.0)
        pairs.append(metrics.Comparison(10, 0.95, gap, gap, 3, 1))
    for alone, one in zip(pairs, metrics.holm(pairs), strict=True):
        assert not contradicts(one, "accuracy")
        if not one.better("accuracy"):
            assert one.accuracy.low <= alone.accuracy.low + 1e-12
            assert one.accuracy.high >= alone.accuracy.high - 1e-12


def test_the_interval_of_each_pair_is_at_the_level_of_its_step() -> None:
    def pair(p_value: float) -> metrics.Comparison:
        gap = metrics.Difference(0.1, 0.1 - 0.0196, 0.1 + 0.0196, p_value)
        return metrics.Comparison(10, 0.95, gap, gap, 3, 1)

    corrected = metrics.holm([pair(0.9), pair(0.001), pair(0.02), pair(0.04)])
    # 0.001 is held against 5 % / 4; the others, of which none passes, against 5 % / 3.
    widths = [round(100 * (one.accuracy.high - one.accuracy.value), 2) for one in corrected]
    assert widths == [2.39, 2.5, 2.39, 2.39]


def test_three_hundred_thousand_rows_cost_seconds_not_minutes() -> None:
    labels, probabilities = simulate(300_000, 3)
    started = time.perf_counter()
    measure(labels, probabilities, resamples=2000)
    metrics.compare(
        labels, probabilities.argmax(axis=1), labels, metrics.Level(confidence=0.95, resamples=2000, seed=0)
    )
    assert time.perf_counter() - started < 20  # about 1.5 s; resampling rows would take many minutes
