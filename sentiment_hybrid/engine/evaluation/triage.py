"""Which answers to trust: accuracy of the most confident answers, for every share of them that is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class RiskCoverage:
    """For thresholds of falling confidence: the share of rows kept and their accuracy, each (K,), K >= 1.

    Rows of equal confidence are kept or left together (El-Yaniv and Wiener 2010).
    """

    thresholds: npt.NDArray[np.float64]
    coverage: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    def coverage_at(self, accuracy: float) -> float:
        """The largest share of rows whose accuracy is at least this; 0 if there is none."""
        enough = self.coverage[self.accuracy >= accuracy]
        return float(enough.max()) if enough.size else 0.0

    def thinned(self, points: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Coverage and accuracy at about this many points, evenly spaced by coverage, the last one among them."""
        wanted = np.linspace(self.coverage[0], 1.0, points)
        places = np.unique(np.searchsorted(self.coverage, wanted).clip(max=len(self.coverage) - 1))
        return self.coverage[places], self.accuracy[places]


def risk_coverage(confidence: npt.ArrayLike, right: npt.ArrayLike) -> RiskCoverage:
    """The curve of rows with this confidence (N,), of which these are ``right`` (N,) bool.

    Raises:
        ValueError: there are no rows, or the two have different lengths.
    """
    scores, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    if scores.ndim != 1 or scores.shape != hits.shape or not scores.size:
        raise ValueError(f"confidence {scores.shape} and right {hits.shape} must be (N,), with N > 0")
    order = np.argsort(-scores, kind="stable")
    scores, total = scores[order], np.cumsum(hits[order])
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])  # of each group of equal confidence
    kept = last + 1
    return RiskCoverage(scores[last], kept / scores.size, total[last] / kept)
