"""The figures that mini is to reach: of rows and probabilities (N, 3) of LABELS, with 95 % bootstrap intervals.

from mini_figures import MEASURES, against, calibration_error, apart, macro_f1, right
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mini_rows import LABELS, NEGATIVE, POLAR, POSITIVE, THREE, Rows, identity_terms

from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.evaluation.metrics import Interval

_RESAMPLES = 2000
#: Of a difference between two contestants: p-values are no smaller than two in this many, times the number of sets.
_PAIRED_RESAMPLES = 10_000


@dataclass(frozen=True)
class Measure:
    """A figure of one sample of rows, and what mini is to reach: a value, or a distance above lr."""

    name: str
    sample: str
    of: Callable[[Rows, np.ndarray], Interval]
    needs_neutral: bool = False
    least: float | None = None
    most: float | None = None
    above_lr: float = 0.0


def of_classes(figure: str, classes: Sequence[int]) -> Callable[[Rows, np.ndarray], Interval]:
    """A figure of `metrics.Scores` over the rows of some classes, probabilities renormalised over these."""

    def value(rows: Rows, probabilities: np.ndarray) -> Interval:
        names = [LABELS[at] for at in classes]
        scores = metrics.score(*restricted(rows, probabilities, classes), names, metrics.Level(resamples=_RESAMPLES))
        found: Interval = getattr(scores, figure)
        return found

    return value


def restricted(rows: Rows, probabilities: np.ndarray, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels (M,) and renormalised probabilities (M, K) of the rows of K classes."""
    kept = np.isin(rows.labels, classes)
    chosen = probabilities[kept][:, classes] + 1e-12
    return np.searchsorted(classes, rows.labels[kept]), chosen / chosen.sum(1, keepdims=True)


def calibration_error(rows: Rows, probabilities: np.ndarray) -> Interval:
    return of_classes("ece", THREE)(rows, probabilities)


def macro_f1(rows: Rows, probabilities: np.ndarray) -> float:
    """Over the classes that the rows have."""
    return metrics.quick(*restricted(rows, probabilities, rows.classes()))["macro_f1"]


def resampled(values: np.ndarray, figure: Callable[[np.ndarray], float] = np.mean) -> Interval:
    """A figure of ``values``; its interval from resampling their first axis."""
    drawn = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.nanquantile([figure(values[rows]) for rows in drawn], [0.025, 0.975])
    return Interval(float(figure(values)), float(low), float(high))


def balanced(classes: Sequence[int], *, copies: int = 1) -> Callable[[Rows, np.ndarray], Interval]:
    """The mean recall of negative and positive, answers from ``classes``; ``copies`` rows in turn are of one item."""

    def value(rows: Rows, probabilities: np.ndarray) -> Interval:
        hits = np.array(classes)[probabilities[:, classes].argmax(1)] == rows.labels
        return resampled(np.column_stack([hits.reshape(-1, copies).mean(1), rows.labels[::copies]]), mean_recall)

    return value


def mean_recall(items: np.ndarray) -> float:
    """Of items (N, 2): the share that is right, and the label."""
    return float(np.mean([items[items[:, 1] == label, 0].mean() for label in POLAR if label in items[:, 1]]))


def right(rows: Rows, probabilities: np.ndarray) -> np.ndarray:
    """Whether the most probable of three labels is the row's, (N,)."""
    hits: np.ndarray = probabilities.argmax(1) == rows.labels
    return hits


def directed(_: Rows, probabilities: np.ndarray) -> np.ndarray:
    """Of negative and positive sides in turn: whether p_positive - p_negative is higher on the positive one, (P,)."""
    polarity = probabilities[:, POSITIVE] - probabilities[:, NEGATIVE]
    return polarity[1::2] > polarity[::2]


def pairs_right(rows: Rows, probabilities: np.ndarray) -> np.ndarray:
    """As `directed`, and the answer to the positive side is the higher one in the order of LABELS, too, (P,)."""
    answer = probabilities.argmax(1)
    return directed(rows, probabilities) & (answer[1::2] > answer[::2])


def share(hits: Callable[[Rows, np.ndarray], np.ndarray]) -> Callable[[Rows, np.ndarray], Interval]:
    return lambda rows, probabilities: resampled(hits(rows, probabilities))


def apart(probabilities: np.ndarray) -> np.ndarray:
    """p_positive of every template with every term, less the template's mean, (templates, terms)."""
    positive = probabilities[:, POSITIVE].reshape(-1, len(identity_terms()))
    return positive - positive.mean(1, keepdims=True)


def identity_gap(_: Rows, probabilities: np.ndarray) -> Interval:
    """How far p_positive is from the mean of its template, in the mean over templates and terms."""
    return resampled(np.abs(apart(probabilities)).mean(1))


MEASURES = (
    Measure("tweets, 2 classes: accuracy", "tweets", of_classes("accuracy", POLAR), least=0.86),
    Measure("SemEval, 3 classes: macro-recall", "semeval", of_classes("macro_recall", THREE), True, above_lr=0.06),
    Measure("SemEval, 2 classes: macro-recall", "semeval", of_classes("macro_recall", POLAR), least=0.90),
    Measure("airline, 2 classes: macro-F1", "airline", of_classes("macro_f1", POLAR), least=0.87),
    Measure("airline, 3 classes: macro-F1", "airline", of_classes("macro_f1", THREE), True, least=0.71),
    Measure("sst5, 2 classes: accuracy", "set: sst5_train", of_classes("accuracy", POLAR), least=0.86),
    Measure("emoji: balanced accuracy", "emoji", balanced(THREE), least=0.95),
    Measure("emoji, better of 2 classes", "emoji", balanced(POLAR)),
    Measure("emoji after a neutral sentence", "emoji_after", balanced(THREE, copies=20), least=0.95),
    Measure("the same, better of 2 classes", "emoji_after", balanced(POLAR, copies=20)),
    Measure("lexicon words: balanced accuracy", "lexicon", balanced(POLAR), least=0.80),
    Measure("plainest words", "words", share(right), least=0.98),
    Measure("facts that are neutral", "facts", share(right), True, least=0.90),
    Measure("negation pairs, answers differ", "negation", share(pairs_right), least=0.85),
    Measure("negation pairs, polarity differs", "negation", share(directed)),
    Measure("behaviour", "behaviour", share(right), least=0.95),
    Measure("identity terms: gap in p_positive", "identity", identity_gap, most=0.05),
)


# --- two contestants on the same rows


def against(sets: Sequence[tuple[str, Rows, np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Differences in macro-F1 by the paired bootstrap, of name, rows, my probabilities and theirs for each set.

    Of each set with its p-value (Holm over the sets), of their mean, and the sets on which mine is significantly lower.
    """
    drawn = {name: paired_differences(rows, mine, theirs) for name, rows, mine, theirs in sets}
    p_values = holm({name: two_sided(values[1:]) for name, values in drawn.items()})
    differences = {name: {**vars(percentiles(values)), "p": p_values[name]} for name, values in drawn.items()}
    return {
        "sets": differences,
        "mean": vars(percentiles(np.mean(list(drawn.values()), axis=0))) if drawn else None,
        "below": [name for name, one in differences.items() if one["value"] < 0 and one["p"] < 0.05],
    }


def paired_differences(rows: Rows, mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Macro-F1, mine less theirs: of all rows, then of each resample of them, (1 + R,)."""
    classes = rows.classes()
    (truth, first), (_, second) = restricted(rows, mine, classes), restricted(rows, theirs, classes)
    size = len(classes)
    cells = (truth * size + first.argmax(1)) * size + second.argmax(1)
    counts = np.bincount(cells, minlength=size**3)
    drawn = np.random.default_rng(0).multinomial(len(truth), counts / len(truth), size=_PAIRED_RESAMPLES)
    tables = np.concatenate([counts[None], drawn]).reshape(-1, size, size, size)
    return macro_f1_of(tables.sum(3)) - macro_f1_of(tables.sum(2))


def macro_f1_of(confusions: np.ndarray) -> np.ndarray:
    """Macro-F1 (R,) of confusion matrices (R, C, C)."""
    hits = np.einsum("rcc->rc", confusions)
    f1: np.ndarray = 2 * hits / np.maximum(confusions.sum(1) + confusions.sum(2), 1)
    return f1.mean(1)


def percentiles(values: np.ndarray) -> Interval:
    """The first value, with the percentile interval of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))


def two_sided(differences: np.ndarray) -> float:
    """The bootstrap p-value of no difference."""
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(differences) + 1)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for their number (Holm 1979)."""
    adjusted, highest = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[name] * (len(p_values) - place)))
        adjusted[name] = highest
    return adjusted
