"""Which rows are worth labelling next: uncertain ones, in different places of the encoder's space (BADGE)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Candidates for each row that is chosen: the least sure ones. Distant rows that a model is sure of teach it little.
CANDIDATES = 3


def choose(states: npt.ArrayLike, probabilities: npt.ArrayLike, rows: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Places (``rows``,) of rows that are uncertain and far from each other, in the order of choice.

    BADGE (Ash et al. 2020): k-means++ over the gradients that each row would give the last layer if its answer were
    right, which are long where the answer is unsure. The gradient of a linear layer is an outer product,
    (p - onehot(answer)) x state, so distances need no gradient of C * H values. Candidates should be the least sure
    rows of a pool (`CANDIDATES` times as many; Citovsky et al. 2021 choose among such, too).

    Args:
        states: (N, H) mean token states; they are standardised here.
        probabilities: (N, C).
        rows: at most N.
    """
    hidden, residuals = np.array(states, dtype=np.float64), np.array(probabilities, dtype=np.float64)
    if not rows:
        return np.empty(0, dtype=np.int64)
    hidden = (hidden - hidden.mean(0)) / np.maximum(hidden.std(0), 1e-6)
    residuals[np.arange(len(residuals)), residuals.argmax(1)] -= 1.0
    lengths = (residuals**2).sum(1) * (hidden**2).sum(1)  # (N,) squared

    def distances(place: int) -> npt.NDArray[np.float64]:
        """Squared distances of all gradients from one, (N,)."""
        products = (residuals @ residuals[place]) * (hidden @ hidden[place])
        found: npt.NDArray[np.float64] = np.maximum(lengths + lengths[place] - 2.0 * products, 0.0)
        return found

    random = np.random.default_rng(seed)
    chosen = [int(lengths.argmax())]
    nearest = distances(chosen[0])
    free = np.ones(len(hidden), dtype=bool)
    while len(chosen) < rows:
        free[chosen[-1]] = False
        weights = np.where(free, nearest, 0.0)
        weights = weights if weights.sum() > 1e-9 else free.astype(np.float64)  # only repeats are left
        chosen.append(int(random.choice(len(hidden), p=weights / weights.sum())))
        nearest = np.minimum(nearest, distances(chosen[-1]))
    return np.array(chosen, dtype=np.int64)
