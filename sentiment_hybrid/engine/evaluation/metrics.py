"""How good predictions are: point figures, bootstrap intervals, and the paired comparison of two models.

Every figure is a function of counts of rows per cell (true label x prediction, label x score bin, ...), so a
bootstrap resample of N rows is one multinomial draw over the cells: the same distribution as resampling rows,
at a cost that does not grow with N.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, TypeAdapter

from sentiment_hybrid.errors import ModelError, count
from sentiment_hybrid.reporting.results import jsonable

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
#: A figure, NaN if it is undefined, which is null in JSON.
Figure = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]

#: Minimum number of validation rows, and of errors among them, to fit the temperature.
LEAST_ROWS, LEAST_ERRORS = 100, 10
#: Standard deviation of the prior on log T: a factor of 1.6 up or down.
_PRIOR_DEVIATION = 0.5
#: Equal-width bins of the confidence, as in Guo et al. 2017.
RELIABILITY_BINS = 15
#: Subdivisions of each such bin; the bootstrap replaces confidences by the mean of their subdivision.
_ECE_SLICES = 20
#: Maximum number of score bins for the interval of ROC-AUC; fewer distinct scores are not binned.
_AUC_BINS = 1024
#: Bins of the influence of a row, for the interval of a multi-class ROC-AUC.
_INFLUENCE_BINS = 512
#: Counts drawn at once, to bound memory (8 bytes each).
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A figure and its bootstrap interval; all NaN if the figure is undefined."""

    value: Figure
    low: Figure
    high: Figure


@dataclass(frozen=True)
class ClassScores:
    """Figures of one class; NaN if the class is neither a true nor a predicted label of any row."""

    label: str
    precision: Figure
    recall: Figure
    f1: Figure
    support: int


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows with a confidence in (low, high]; confidence and accuracy are means, NaN without rows."""

    low: float
    high: float
    rows: int
    confidence: Figure
    accuracy: Figure


@dataclass(frozen=True)
class Scores:
    """All metrics on one set of rows; ``confusion[i][j]`` counts rows of class i predicted as j."""

    rows: int
    labels: tuple[str, ...]
    confidence: float
    resamples: int
    accuracy: Interval
    macro_precision: Interval
    macro_recall: Interval
    macro_f1: Interval
    mcc: Interval
    roc_auc: Interval
    ece: Interval
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts for JSON; an undefined figure (NaN) is None."""
        return cast(dict[str, Any], jsonable(asdict(self)))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Scores:
        """The inverse of ``to_dict``. Raises ValueError."""
        return _adapters()[0].validate_python(plain)


@dataclass(frozen=True)
class Difference(Interval):
    """A difference between two models with its interval, and the p-value of the hypothesis of no difference."""

    p_value: Figure


#: Metrics in which two models are compared; the first selects the best epoch by default.
COMPARED = ("macro_f1", "accuracy")


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows: differences are a - b; only_a counts rows that only a predicted correctly.

    P-values and intervals are corrected (Holm 1979) for ``pairs`` comparisons, those of one table. No interval
    contradicts its p-value: it contains 0 if there is no measurable difference, and otherwise 0 is at most its end.
    """

    rows: int
    confidence: float
    macro_f1: Difference
    accuracy: Difference
    only_a: int
    only_b: int
    pairs: int = 1

    def better(self, metric: str) -> int:
        """1 if a is significantly better in this metric, -1 if b is, else 0."""
        difference: Difference = getattr(self, metric)
        return int(np.sign(difference.value)) if difference.p_value < 1.0 - self.confidence else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts for JSON."""
        return cast(dict[str, Any], jsonable(asdict(self)))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Comparison:
        """The inverse of ``to_dict``. Raises ValueError."""
        return _adapters()[1].validate_python(plain)


@functools.cache
def _adapters() -> tuple[TypeAdapter[Scores], TypeAdapter[Comparison]]:
    return TypeAdapter(Scores), TypeAdapter(Comparison)


def quick(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> dict[str, float]:
    """Point figures for validation: accuracy, macro_f1, loss (mean negative log likelihood, in nats).

    Shapes: labels (N,) class indices, probabilities (N, C). Raises ModelError for probabilities that are not numbers.
    """
    truth, scores = _checked(labels, probabilities)
    figures = _figures(_margins(_confusion(truth, scores.argmax(axis=1), scores.shape[1])))
    loss = -np.log(np.clip(scores[np.arange(truth.size), truth], 1e-12, 1.0)).mean()
    return {name: float(figures[name][0]) for name in ("accuracy", "macro_f1")} | {"loss": float(loss)}


def temperature(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The temperature T that makes softmax(logits / T) most likely (Guo et al. 2017, section 4.2), 0.1 to 10.

    A normal prior on log T with mean 0 and standard deviation 0.5 keeps T near 1 unless there is evidence against it.
    Shapes: labels (N,) class indices, probabilities (N, C) at T = 1; the logarithm of these is logits but for a
    constant. The posterior has one maximum. Raises ModelError for probabilities that are not numbers.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    truth, scores = _checked(labels, probabilities)
    logits = np.log(np.clip(scores, 1e-12, 1.0))
    rows = np.arange(truth.size)

    def surprise(log_temperature: float) -> float:
        likelihood = log_softmax(logits / math.exp(log_temperature), axis=1)[rows, truth].sum()
        return float((log_temperature / _PRIOR_DEVIATION) ** 2 / 2.0 - likelihood)

    bounds = math.log(0.1), math.log(10.0)
    return math.exp(minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x)


def too_few_to_calibrate(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> str:
    """Why a temperature fitted on these rows would be meaningless; empty if it is not.

    Only errors show overconfidence: without any, the most likely temperature is 0 for every model.
    """
    truth, scores = _checked(labels, probabilities)
    errors = int((scores.argmax(axis=1) != truth).sum())
    if truth.size >= LEAST_ROWS and errors >= LEAST_ERRORS:
        return ""
    return (
        f"{count(truth.size, 'validation text')} with {count(errors, 'error')}, and calibration needs at least "
        f"{LEAST_ROWS} with {LEAST_ERRORS}"
    )


@dataclass(frozen=True)
class Level:
    """Settings of intervals and tests; each figure has its own random stream."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def draws(self, counts: npt.NDArray[Any], *, stream: int) -> Iterator[FloatArray]:
        """Resampled counts (r, K) of K cells, in blocks of bounded size."""
        total = int(counts.sum())
        shares = counts / total
        rng = np.random.default_rng([self.seed, stream])
        block = max(1, _DRAWS_AT_ONCE // counts.size)
        for start in range(0, self.resamples, block):
            size = min(block, self.resamples - start)
            yield rng.multinomial(total, shares, size=size).astype(np.float64)

    def interval(self, value: float, resampled: FloatArray) -> Interval:
        """Percentile interval, widened if necessary to contain the value."""
        kept = resampled[~np.isnan(resampled)]
        if math.isnan(value) or not kept.size:
            return Interval(value, math.nan, math.nan)
        tail = (1.0 - self.confidence) / 2.0
        low, high = (float(bound) for bound in np.quantile(kept, [tail, 1.0 - tail]))
        return Interval(value, min(low, value), max(high, value))


def score(labels: npt.ArrayLike, probabilities: npt.ArrayLike, names: Sequence[str], level: Level = Level()) -> Scores:
    """Measure predictions: labels (N,) class indices, probabilities (N, C), names of the C classes.

    The prediction is the most probable class (the first of equals). Macro figures average over the classes that
    occur among the true or the predicted labels, and 0 / 0 counts as 0, as in scikit-learn. MCC is
    Gorodkin's R_K (2004), 0 where a margin is constant. ROC-AUC is that of the last class for two classes, else the
    mean of one-versus-rest over the classes that have rows; NaN if there is only one class. ECE is Guo et
    al. 2017, eq. 3, with 15 equal-width bins.

    Intervals are percentile bootstrap, ECE's the basic bootstrap (see ``_ece_interval``); each contains its point.
    Deterministic for a seed. Raises ModelError for probabilities that are not numbers.
    """
    truth, scores = _checked(labels, probabilities)
    predicted = scores.argmax(axis=1)
    confusion = _confusion(truth, predicted, len(names))
    top = scores[np.arange(truth.size), predicted]
    bins = _reliability(top, predicted == truth)
    return Scores(
        rows=int(truth.size),
        labels=tuple(names),
        confidence=level.confidence,
        resamples=level.resamples,
        **_confusion_intervals(confusion, level),
        roc_auc=_roc_auc(truth, scores, level),
        ece=_ece(top, predicted == truth, bins, level),
        per_class=_per_class(confusion, names),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        reliability=bins,
    )


def compare(
    labels: npt.ArrayLike,
    predicted_a: npt.ArrayLike,
    predicted_b: npt.ArrayLike,
    level: Level = Level(),
) -> Comparison:
    """Compare two models on the same rows: all three (N,) class indices.

    Differences (a - b) with percentile intervals of the paired bootstrap, made compatible with the tests: an interval
    contains 0 unless its test excludes it. The p-value of accuracy is that of the exact McNemar test, the two-sided
    binomial test on the rows that only one of them predicted correctly (1.0 without any). That of macro-F1 is from
    ``level.resamples`` random swaps of the two models' predictions in each row (Noreen 1989).
    """
    from scipy.stats import binomtest

    truth, first, second = (np.asarray(values, dtype=np.int64) for values in (labels, predicted_a, predicted_b))
    right_a, right_b = first == truth, second == truth
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    cells, confidence = _Cells.of(truth, first, second), level.confidence
    point = cells.differences(cells.counts[None].astype(np.float64))[:, 0]
    resampled = np.concatenate([cells.differences(drawn) for drawn in level.draws(cells.counts, stream=1)], axis=1)
    accuracy, macro_f1 = (level.interval(float(point[i]), resampled[i]) for i in range(2))
    mcnemar = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    swaps = _p_value_of_swaps(cells, macro_f1.value, level)
    return Comparison(
        rows=int(truth.size),
        confidence=confidence,
        macro_f1=_compatible(Difference(**vars(macro_f1), p_value=swaps), confidence),
        accuracy=_compatible(Difference(**vars(accuracy), p_value=mcnemar), confidence),
        only_a=only_a,
        only_b=only_b,
    )


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one table, p-values and intervals of each metric corrected for their number (Holm 1979).

    An interval is at the level of its step of Holm's procedure: of m pairs of which k differ, the i-th smallest p-value
    of those (from 0) is held against alpha / (m - i), the others against alpha / (m - k). It is stretched to that level
    as a normal one would be.
    """
    corrected = list(comparisons)
    for metric in COMPARED:
        differences = [getattr(one, metric) for one in comparisons]
        p_values = holm_p_values([one.p_value for one in differences])
        order = sorted(range(len(differences)), key=lambda place: differences[place].p_value)
        found = sum(p < 1.0 - one.confidence for p, one in zip(p_values, comparisons, strict=True))
        for step, place in enumerate(order):
            one, difference = corrected[place], differences[place]
            wide = _stretched(difference, one.confidence, tests=len(order) - min(step, found))
            changed: dict[str, Any] = {"pairs": len(order)}
            changed[metric] = _compatible(replace(wide, p_value=p_values[place]), one.confidence)
            corrected[place] = replace(one, **changed)
    return corrected


def _stretched(difference: Difference, confidence: float, *, tests: int) -> Difference:
    """Its interval at the level that is left for each of several tests."""
    alpha, quantile = 1.0 - confidence, NormalDist().inv_cdf
    ratio = quantile(1.0 - alpha / tests / 2.0) / quantile(1.0 - alpha / 2.0)
    value = difference.value
    low, high = value - ratio * (value - difference.low), value + ratio * (difference.high - value)
    return replace(difference, low=max(low, -1.0), high=min(high, 1.0))


def _compatible(difference: Difference, confidence: float) -> Difference:
    """Its interval without what its test excludes, and with 0 where the test does not exclude that.

    Test and bootstrap are made differently, and disagree where it is close (cf. Strassburger and Bretz 2008).
    """
    if difference.p_value >= 1.0 - confidence:
        return replace(difference, low=min(difference.low, 0.0), high=max(difference.high, 0.0))
    if difference.value > 0.0:
        return replace(difference, low=max(difference.low, 0.0))
    return replace(difference, high=min(difference.high, 0.0))


def holm_p_values(p_values: Sequence[float]) -> list[float]:
    """The p-values of one family of tests, corrected for multiple tests (Holm 1979)."""
    corrected, least = list(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(corrected)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(corrected) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def _checked(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    truth, scores = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    broken = int((~np.isfinite(scores)).any(axis=1).sum())
    if broken:
        raise ModelError(
            f"the model gave probabilities that are not numbers for {broken:,} of {truth.size:,} texts",
            hint="its weights are damaged or its training diverged; train again with a lower learning_rate",
        )
    return truth, scores


# --- figures of the confusion matrix, from its margins


@dataclass(frozen=True)
class _Margins:
    """Of r confusion matrices: hits (r, C), rows truly of each class (r, C), rows predicted as it (r, C)."""

    hits: FloatArray
    true: FloatArray
    predicted: FloatArray


def _confusion(truth: IntArray, predicted: IntArray, classes: int) -> IntArray:
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def _margins(confusion: IntArray) -> _Margins:
    exact = confusion.astype(np.float64)
    return _Margins(np.diag(exact)[None], exact.sum(axis=1)[None], exact.sum(axis=0)[None])


def _cell_margins(counts: FloatArray, truth: IntArray, predicted: IntArray, classes: int) -> _Margins:
    """Margins of resampled counts (r, K) whose cells have these true and predicted classes (K,)."""
    from scipy.sparse import csr_array

    cells = np.arange(truth.size)

    def per_class(classes_of: IntArray, where: npt.NDArray[np.bool_]) -> FloatArray:
        members = csr_array((where.astype(np.float64), (cells, classes_of)), shape=(truth.size, classes))
        return cast(FloatArray, (members.T @ counts.T).T)

    every = np.ones(truth.size, dtype=np.bool_)
    return _Margins(per_class(truth, truth == predicted), per_class(truth, every), per_class(predicted, every))


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Elementwise division, with 0 / 0 = 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _class_figures(margins: _Margins) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F1, each (r, C)."""
    return (
        _ratio(margins.hits, margins.predicted),
        _ratio(margins.hits, margins.true),
        _ratio(2.0 * margins.hits, margins.true + margins.predicted),
    )


def _figures(margins: _Margins) -> dict[str, FloatArray]:
    """Accuracy, macro figures over the classes that occur as true or predicted, and MCC, each (r,).

    MCC is Gorodkin's R_K (2004): 0 if all rows have one true or one predicted class.
    """
    hits, true, predicted = margins.hits.sum(axis=1), margins.true, margins.predicted
    rows, occurring = true.sum(axis=1), ((true + predicted) > 0).sum(axis=1)
    precision, recall, f1 = (figure.sum(axis=1) / occurring for figure in _class_figures(margins))
    covariance = hits * rows - (true * predicted).sum(axis=1)
    spread = np.sqrt(rows**2 - (true**2).sum(axis=1)) * np.sqrt(rows**2 - (predicted**2).sum(axis=1))
    macro = {"macro_precision": precision, "macro_recall": recall, "macro_f1": f1}
    return {"accuracy": _ratio(hits, rows), **macro, "mcc": np.clip(_ratio(covariance, spread), -1.0, 1.0)}


def _confusion_intervals(confusion: IntArray, level: Level) -> dict[str, Any]:
    truth, predicted = np.nonzero(confusion)
    blocks = [
        _figures(_cell_margins(counts, truth, predicted, len(confusion)))
        for counts in level.draws(confusion[truth, predicted], stream=0)
    ]
    return {
        name: level.interval(float(point[0]), np.concatenate([block[name] for block in blocks]))
        for name, point in _figures(_margins(confusion)).items()
    }


def _per_class(confusion: IntArray, names: Sequence[str]) -> tuple[ClassScores, ...]:
    margins = _margins(confusion)
    occurs = (margins.true + margins.predicted) > 0
    precision, recall, f1 = (np.where(occurs, figure, math.nan)[0] for figure in _class_figures(margins))
    return tuple(
        ClassScores(name, float(precision[i]), float(recall[i]), float(f1[i]), int(margins.true[0, i]))
        for i, name in enumerate(names)
    )


@dataclass(frozen=True)
class _Cells:
    """Counts (K,) of the rows that have this label, prediction of a model and prediction of another, each (K,)."""

    counts: IntArray
    truth: IntArray
    first: IntArray
    second: IntArray
    classes: int

    @classmethod
    def of(cls, truth: IntArray, first: IntArray, second: IntArray) -> _Cells:
        classes = int(max(truth.max(), first.max(), second.max())) + 1
        cells, counts = np.unique((truth * classes + first) * classes + second, return_counts=True)
        pair, of_second = np.divmod(cells, classes)
        return cls(counts, *np.divmod(pair, classes), of_second, classes)

    def differences(self, drawn: FloatArray) -> FloatArray:
        """Differences of accuracy and macro-F1, (2, r), for counts (r, K)."""
        a, b = (_figures(_cell_margins(drawn, self.truth, of, self.classes)) for of in (self.first, self.second))
        return np.stack([a[name] - b[name] for name in ("accuracy", "macro_f1")])


def _p_value_of_swaps(cells: _Cells, value: float, level: Level) -> float:
    """How often the macro-F1 difference is as large if each row's predictions are swapped with probability 1/2."""
    rng = np.random.default_rng([level.seed, 4])
    # Each cell, followed by each with the predictions swapped.
    first, second = np.r_[cells.first, cells.second], np.r_[cells.second, cells.first]
    pairs = _Cells(np.tile(cells.counts, 2), np.tile(cells.truth, 2), first, second, cells.classes)
    block = max(1, _DRAWS_AT_ONCE // pairs.counts.size)
    as_large = 0
    for start in range(0, level.resamples, block):
        swapped = rng.binomial(cells.counts, 0.5, size=(min(block, level.resamples - start), cells.counts.size))
        drawn = np.hstack([cells.counts - swapped, swapped]).astype(np.float64)
        as_large += int((np.abs(pairs.differences(drawn)[1]) >= abs(value) - 1e-12).sum())
    return (1 + as_large) / (1 + level.resamples)


# --- ROC-AUC


def _roc_auc(truth: IntArray, scores: FloatArray, level: Level) -> Interval:
    present = np.unique(truth)
    if present.size < 2:
        return Interval(math.nan, math.nan, math.nan)
    if scores.shape[1] == 2:
        return _binary_auc(truth == 1, scores[:, 1], level)
    tied = [np.unique(scores[:, c], return_inverse=True)[1] for c in present]
    positives = [truth == c for c in present]
    value = float(np.mean([_exact_auc(*_class_counts(*pair)) for pair in zip(positives, tied, strict=True)]))
    return level.interval(value, _resampled_auc(positives, tied, value, level))


def _class_counts(positive: npt.NDArray[np.bool_], bins: IntArray) -> tuple[FloatArray, FloatArray]:
    """Rows of the positive and of the negative class per bin, each (1, B), bins in rising order of the score."""
    size = int(bins.max()) + 1
    ups = np.bincount(bins[positive], minlength=size).astype(np.float64)
    downs = np.bincount(bins[~positive], minlength=size).astype(np.float64)
    return ups[None], downs[None]


def _auc(positives: FloatArray, negatives: FloatArray) -> FloatArray:
    """P(score of a positive > of a negative) + half the ties, (r,), from counts (r, B); NaN without one of them."""
    below = np.cumsum(negatives, axis=1) - negatives / 2.0
    wins = np.einsum("rb,rb->r", positives, below)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return np.divide(wins, pairs, out=np.full_like(wins, math.nan), where=pairs > 0)


def _exact_auc(positives: FloatArray, negatives: FloatArray) -> float:
    return float(_auc(positives, negatives)[0])


def _binary_auc(positive: npt.NDArray[np.bool_], scores: FloatArray, level: Level) -> Interval:
    tied = np.unique(scores, return_inverse=True)[1]
    value = _exact_auc(*_class_counts(positive, tied))
    ups, downs = _class_counts(positive, _score_bins(tied))
    size = ups.shape[1]
    counts = np.concatenate([ups[0], downs[0]])
    cells = np.flatnonzero(counts)
    # Rows of the same bin count as ties; the shift corrects the resulting bias.
    shift = value - _exact_auc(ups, downs)
    blocks = []
    for drawn in level.draws(counts[cells], stream=2):
        full = np.zeros((len(drawn), 2 * size))
        full[:, cells] = drawn
        blocks.append(_auc(full[:, :size], full[:, size:]) + shift)
    return level.interval(value, np.clip(np.concatenate(blocks), 0.0, 1.0))


def _score_bins(tied: IntArray) -> IntArray:
    """Bins of about equally many rows; equal scores share one. ``tied`` numbers the distinct scores from 0."""
    counts = np.bincount(tied)
    if counts.size <= _AUC_BINS:
        return tied
    before = np.cumsum(counts) - counts
    bins = before * _AUC_BINS // tied.size
    return np.unique(bins, return_inverse=True)[1][tied]


def _resampled_auc(
    positives: list[npt.NDArray[np.bool_]], tied: list[IntArray], value: float, level: Level
) -> FloatArray:
    """Macro one-versus-rest AUC of resampled rows, (R,), to first order in the rows (DeLong et al. 1988).

    The influence of a row on the AUC of a class is its placement among the rows of the other side; the sum over classes
    is one number per row, whose resampled mean needs few cells for any N and C.
    """
    influence = np.zeros(tied[0].size)
    for positive, bins in zip(positives, tied, strict=True):
        influence += _influence(positive, bins) / len(tied)
    order = np.argsort(influence, kind="stable")
    slices = np.array_split(influence[order], min(_INFLUENCE_BINS, order.size))
    counts = np.array([part.size for part in slices])
    means = np.array([part.mean() for part in slices])
    resampled = np.concatenate([drawn @ means for drawn in level.draws(counts, stream=2)]) / counts.sum()
    return np.clip(value + resampled, 0.0, 1.0)


def _influence(positive: npt.NDArray[np.bool_], bins: IntArray) -> FloatArray:
    """First-order effect of each row on the AUC of one class, (N,), with mean 0."""
    ups, downs = _class_counts(positive, bins)
    auc = _exact_auc(ups, downs)
    wins_of_up = (np.cumsum(downs[0]) - downs[0] / 2.0) / downs.sum()
    wins_of_down = 1.0 - (np.cumsum(ups[0]) - ups[0] / 2.0) / ups.sum()
    share = positive.mean()
    return np.where(positive, (wins_of_up[bins] - auc) / share, (wins_of_down[bins] - auc) / (1.0 - share))


# --- calibration


def _fine_bins(top: FloatArray, number: int) -> IntArray:
    """Index of the (low, high] bin of width 1 / number; a confidence of 0 belongs to the first."""
    return np.clip(np.ceil(top * number).astype(np.int64) - 1, 0, number - 1)


def _reliability(top: FloatArray, right: npt.NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    bins = _fine_bins(top, RELIABILITY_BINS)
    rows = np.bincount(bins, minlength=RELIABILITY_BINS)
    confidence = np.bincount(bins, weights=top, minlength=RELIABILITY_BINS)
    hits = np.bincount(bins, weights=right, minlength=RELIABILITY_BINS)
    return tuple(
        ReliabilityBin(
            low=i / RELIABILITY_BINS,
            high=(i + 1) / RELIABILITY_BINS,
            rows=int(rows[i]),
            confidence=float(confidence[i] / rows[i]) if rows[i] else math.nan,
            accuracy=float(hits[i] / rows[i]) if rows[i] else math.nan,
        )
        for i in range(RELIABILITY_BINS)
    )


def _ece(top: FloatArray, right: npt.NDArray[np.bool_], bins: tuple[ReliabilityBin, ...], level: Level) -> Interval:
    value = sum(part.rows * abs(part.accuracy - part.confidence) for part in bins if part.rows) / top.size
    coarse = _fine_bins(top, RELIABILITY_BINS)
    slices = np.clip(((top * RELIABILITY_BINS - coarse) * _ECE_SLICES).astype(np.int64), 0, _ECE_SLICES - 1)
    cells, cell_of, counts = np.unique(
        (coarse * _ECE_SLICES + slices) * 2 + right, return_inverse=True, return_counts=True
    )
    gaps = np.bincount(cell_of, weights=right - top) / top.size / counts  # (K,) a row's share of its bin's gap
    bin_of = np.eye(RELIABILITY_BINS)[cells // (2 * _ECE_SLICES)]  # (K, 15)
    resampled = np.concatenate([(drawn * gaps) @ bin_of for drawn in level.draws(counts, stream=3)])  # (R, 15)
    return _ece_interval(float(value), (counts * gaps) @ bin_of, resampled, level)


def _ece_interval(value: float, gaps: FloatArray, resampled: FloatArray, level: Level) -> Interval:
    """Basic bootstrap interval from the gaps of the bins (15,) and of their resamples (R, 15).

    A resample adds noise, and an absolute value makes every noise an error: the percentile interval is biased upwards,
    and excludes 0 even for a calibrated model. The basic interval corrects that bias. Its lower end assumes the largest
    bias: bins whose gap is within two standard deviations of 0 count as calibrated.
    """
    noise = resampled - gaps
    real = np.where(gaps**2 > 4.0 * noise.var(axis=0), gaps, 0.0)
    tail = (1.0 - level.confidence) / 2.0
    excess = np.abs(resampled).sum(axis=1) - value
    cautious = np.abs(real + noise).sum(axis=1) - np.abs(real).sum()
    low = value - max(np.quantile(excess, 1.0 - tail), np.quantile(cautious, 1.0 - tail))
    high = value - np.quantile(excess, tail)
    return Interval(value, max(0.0, min(float(low), value)), min(1.0, max(float(high), value)))
