"""Label errors by confident learning (Northcutt et al. 2021), over out-of-fold probabilities."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sentiment_hybrid.engine.insight.table import LABEL_ERROR, Finding

log = logging.getLogger(__name__)

FOLDS = 5
#: Rows that a model of one fold learns from: more of them do not move a linear model, and would not fit into memory.
MOST_ROWS = 200_000
#: Rows below which there is nothing to learn from.
LEAST_ROWS = 20


#: Fits a model to rows and their classes (K,), 0 to C - 1, each of which occurs; it gives probabilities (K, C) of rows.
Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class OutOfFold:
    """Probabilities (K, C) of ``rows`` (K,), each from a model that has not seen it, for the ``classes`` (C,)."""

    rows: np.ndarray
    classes: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def out_of_fold(
    fit: Fit,
    rows: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
    progress: Callable[[int], object] = lambda folds: None,
) -> OutOfFold | None:
    """Cross-validate; None if there are too few rows, or too few of all classes but one.

    Args:
        rows: (K,) numbers of the rows.
        labels: (K,) their classes.
        groups: (K,) rows of a group share a fold: a model must not have seen a near-duplicate of what it judges.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    classes = classes[sizes >= 2]
    kept = np.isin(labels, classes)
    if len(classes) < 2 or kept.sum() < LEAST_ROWS:
        return None
    rows, groups, codes = rows[kept], groups[kept], np.searchsorted(classes, labels[kept])
    folds = min(FOLDS, int(np.bincount(codes).min()))
    random = np.random.default_rng(seed)
    fold_of = _folds(codes, groups, folds, random)
    result = np.zeros((len(rows), len(classes)), dtype=np.float32)
    for fold in range(folds):
        held_out, train = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
        if len(train) > MOST_ROWS:
            train = np.sort(random.choice(train, MOST_ROWS, replace=False))
        seen = np.unique(codes[train])
        if len(held_out) and len(seen) > 1:
            model = fit(rows[train], np.searchsorted(seen, codes[train]))
            result[np.ix_(held_out, seen)] = model(rows[held_out])
        elif len(held_out):
            result[held_out] = 1.0 / len(classes)
        progress(1)
    return OutOfFold(rows, classes, codes, result)


def _folds(codes: np.ndarray, groups: np.ndarray, folds: int, random: np.random.Generator) -> np.ndarray:
    """The fold of each row, (K,): groups stay together, classes are spread evenly."""
    _, first, of_row = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((random.random(len(first)), codes[first]))
    fold_of_group = np.empty(len(first), dtype=np.int64)
    fold_of_group[order] = np.arange(len(first)) % folds
    return fold_of_group[of_row]


def find_label_errors(answers: OutOfFold) -> list[Finding]:
    """Rows whose label is probably wrong, with the label that is more likely; the confidence is 0.5 for a tie.

    From the probabilities, cleanlab estimates how many rows of each class belong to which other one. It takes as many
    with the largest margin against the given label, if they are also among the least probable rows of their class.
    """
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that no row is predicted as
        flagged = find_label_issues(answers.labels, answers.probabilities, filter_by="both", n_jobs=1, verbose=False)
    found = []
    for at in np.flatnonzero(flagged):
        chances = answers.probabilities[at]
        given, likely = answers.labels[at], int(chances.argmax())
        if likely != given:
            confidence = 0.5 + (float(chances[likely]) - float(chances[given])) / 2
            found.append(Finding(int(answers.rows[at]), LABEL_ERROR, confidence, int(answers.classes[likely])))
    return found
