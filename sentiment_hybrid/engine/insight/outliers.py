"""Outliers: texts far from those of every class, by Mahalanobis distance in states (Lee et al. 2018)."""

from __future__ import annotations

import numpy as np

from sentiment_hybrid.engine.insight.features import States
from sentiment_hybrid.engine.insight.table import OUTLIER, Finding

#: Robust standard deviations of the log distance beyond which a text is an outlier, and the largest share of them.
DEVIATIONS = 4.0
MOST = 0.01
#: Rows from which the covariance is estimated; with fewer per dimension, the estimate is useless.
_SAMPLE = 100_000
_ROWS_PER_DIMENSION = 2
_CHUNK = 50_000


def find_outliers(states: States, rows: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> list[Finding] | None:
    """Texts far from all classes; None if there are too few to tell.

    Args:
        rows: (K,) those to look at.
        labels: (K,) their classes.
        seed: of the sample behind the covariance.
    """
    sample = np.arange(len(rows))
    if len(rows) > _SAMPLE:
        sample = np.sort(np.random.default_rng(seed).choice(len(rows), _SAMPLE, replace=False))
    values = states[rows[sample]].astype(np.float64)
    if len(values) < _ROWS_PER_DIMENSION * values.shape[1]:
        return None
    of_sample = labels[sample]
    means = np.array([values[of_sample == label].mean(axis=0) for label in np.unique(of_sample)])  # (C, H)
    centred = values - means[np.searchsorted(np.unique(of_sample), of_sample)]
    covariance = centred.T @ centred / len(centred)
    covariance += np.eye(len(covariance)) * 1e-3 * np.trace(covariance) / len(covariance)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T.astype(np.float32)
    logs = np.log(_distances(states, rows, means.astype(np.float32), whitening))
    middle = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - middle)) or 1.0
    scores = (logs - middle) / spread
    far = np.flatnonzero(scores > DEVIATIONS)
    far = far[np.argsort(-scores[far], kind="stable")][: max(1, int(MOST * len(rows)))]
    found = []
    for place, score in zip(rows[far].tolist(), scores[far].tolist(), strict=True):
        detail = f"{score:.1f} standard deviations farther from the other texts than usual"
        found.append(Finding(place, OUTLIER, 1.0 - DEVIATIONS / (2 * score), detail=detail))
    return found


def _distances(states: States, rows: np.ndarray, means: np.ndarray, whitening: np.ndarray) -> np.ndarray:
    """Distance of each text to the nearest class, (K,)."""
    centres = means @ whitening
    result = np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        values = states[rows[start : start + _CHUNK]] @ whitening
        nearest = [np.square(values - centre).sum(axis=1) for centre in centres]
        result[start : start + len(values)] = np.sqrt(np.min(nearest, axis=0))
    return np.maximum(result, 1e-6)
