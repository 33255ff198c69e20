"""What is made of probabilities: those of some labels only, renormalised, and answers that are withheld."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sentiment_hybrid.data.labels import canonical, finder
from sentiment_hybrid.errors import LabelError, UsageError

#: What answers below a threshold become.
UNSURE = "unsure"


def places_of(labels: tuple[str, ...], wanted: Sequence[str]) -> tuple[int, ...]:
    """Indices of the wanted labels, in the model's order; case-insensitive.

    Raises:
        LabelError: the model does not have one of them, or fewer than two are wanted.
    """
    find = finder(labels)
    found = {canonical(name): find(name) for name in wanted}
    unknown = [name for name, place in found.items() if place is None]
    if unknown:
        raise LabelError(
            f"the model has no label {', '.join(map(repr, unknown))}; its labels are {', '.join(labels)}",
            hint="Choose two or more of these.",
        )
    places = tuple(sorted({place for place in found.values() if place is not None}))
    if len(places) < 2:
        only = repr(labels[places[0]]) if places else "no label"
        raise LabelError(
            f"with {only} alone, every prediction would be the same",
            hint=f"Choose two or more of the model's labels: {', '.join(labels)}.",
        )
    return places


def among(probabilities: np.ndarray, places: Sequence[int]) -> np.ndarray:
    """Probabilities (N, C) restricted to these columns, (N, k), renormalised; NaN stays NaN."""
    chosen = probabilities[:, list(places)]
    total = chosen.sum(axis=1, keepdims=True)
    # If all are 0 in this precision, none is preferred.
    shares = np.where(total == 0.0, 1.0 / len(places), chosen / np.where(total == 0.0, 1.0, total))
    return np.asarray(shares, dtype=probabilities.dtype)


def check_abstaining(labels: Sequence[str]) -> None:
    """Raises UsageError if a withheld answer would look like a label."""
    if UNSURE in labels:
        raise UsageError(f"the model has a label {UNSURE!r} of its own", hint="Filter by the score instead.")


def label_or_unsure(label: str | None, score: float | None, below: float | None) -> str | None:
    """The label, or ``unsure`` if its probability is below the threshold."""
    return label if below is None or score is None or score >= below else UNSURE
