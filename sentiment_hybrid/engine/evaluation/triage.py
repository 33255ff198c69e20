"""Which answers to trust: accuracy of the most confident answers, and the threshold that promises an accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, betaincinv

#: Thresholds that are tested, from the safest on; fixed in advance, since no test may depend on the labels.
GRID = np.concatenate([[0.9999, 0.9998, 0.9995], np.arange(999, -1, -1) / 1000.0])
#: Shares of the rows that are kept where a sequence of tests starts.
_STARTS = (0.0, 0.05, 0.25)
#: How often a promise may be broken.
RISK = 0.05


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
    """The curve of rows with this confidence (N,), N > 0, of which these are ``right`` (N,) bool."""
    scores, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    order = np.argsort(-scores, kind="stable")
    scores, total = scores[order], np.cumsum(hits[order])
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])  # of each group of equal confidence
    kept = last + 1
    return RiskCoverage(scores[last], kept / scores.size, total[last] / kept)


def binomial(right: int, rows: int) -> list[float]:
    """An accuracy with its exact interval (Clopper and Pearson 1934): value, low, high."""
    low = betaincinv(right, rows - right + 1, RISK / 2.0) if right else 0.0
    high = betaincinv(right + 1, rows - right, 1.0 - RISK / 2.0) if right < rows else 1.0
    return [right / rows, float(low), float(high)]


@dataclass(frozen=True)
class Threshold:
    """Answers with a probability of ``value`` or more have the accuracy ``target`` with probability 1 - RISK.

    ``coverage`` is the share of the calibration rows that they are.
    """

    target: float
    value: float
    coverage: float


@dataclass(frozen=True)
class Calibration:
    """Rows that an accuracy can be promised from: at each threshold of GRID, how many are kept, and wrong; each (K,).

    ``fresh`` says that no row had a part in the training, selection or calibration of the model; None is unknown.
    """

    rows: int
    kept: npt.NDArray[np.int64]
    wrong: npt.NDArray[np.int64]
    fresh: bool | None = True

    @classmethod
    def of(cls, confidence: npt.ArrayLike, right: npt.ArrayLike, *, fresh: bool | None = True) -> Calibration:
        """From rows with this confidence (N,), of which these are ``right`` (N,) bool."""
        scores, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.bool_)
        order = np.argsort(-scores, kind="stable")
        kept = np.searchsorted(-scores[order], -GRID, side="right")
        wrong = np.concatenate([[0], np.cumsum(~hits[order])])[kept]
        return cls(len(scores), kept.astype(np.int64), wrong.astype(np.int64), fresh)

    def threshold(self, target: float) -> Threshold | None:
        """The lowest threshold that promises an accuracy; None if none can.

        Learn then test (Angelopoulos et al. 2021) with fixed-sequence testing from several starts: from a safe
        threshold on, the hypothesis that the accuracy is below the target is tested by the exact binomial tail, up to
        the first one that stands; each sequence has its share of the risk. A sequence starts where enough rows are kept
        for a test to succeed, the others where more are, since the first tests of few rows fail easily.
        """
        risk = RISK / len(_STARTS)
        p_values = bdtr(self.wrong, self.kept, 1.0 - target)  # the lower tail
        ends = []
        for share in _STARTS:
            able = np.flatnonzero((target**self.kept <= risk) & (self.kept >= share * self.rows))
            if able.size:
                stands = np.flatnonzero(p_values[able[0] :] > risk)
                ends.append((able[0] + stands[0] if stands.size else len(GRID), able[0]))
        last = max((end - 1 for end, start in ends if end > start), default=None)
        if last is None:
            return None
        return Threshold(target, float(GRID[last]), float(self.kept[last] / self.rows))

    def best(self) -> float | None:
        """The largest accuracy that can be promised, in steps of 0.1 %; None if there is none above 50 %."""
        targets = (step / 1000.0 for step in range(999, 500, -1))
        return next((target for target in targets if self.threshold(target)), None)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        counts = {"kept": self.kept.tolist(), "wrong": self.wrong.tolist()}
        return {"rows": self.rows, "fresh": self.fresh, "thresholds": GRID.tolist(), **counts}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Calibration:
        """The reverse. Raises KeyError, TypeError or ValueError."""
        if document["thresholds"] != GRID.tolist():
            raise ValueError("it has other thresholds")
        kept, wrong = (np.array(document[name], dtype=np.int64) for name in ("kept", "wrong"))
        if not (kept.shape == wrong.shape == GRID.shape) or document["rows"] < 1:
            raise ValueError("it is incomplete")
        return cls(int(document["rows"]), kept, wrong, document["fresh"])
