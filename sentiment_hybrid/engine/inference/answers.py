"""Answers among some of a model's labels: their probabilities, renormalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sentiment_hybrid.data.labels import canonical, finder
from sentiment_hybrid.errors import LabelError


def places_of(labels: tuple[str, ...], wanted: Sequence[str]) -> tuple[int, ...]:
    """Places of the wanted labels, in the model's order; case does not matter.

    Raises:
        LabelError: the model does not have one of them, or fewer than two are wanted.
    """
    find = finder(labels)
    found = {canonical(name): find(name) for name in wanted}
    strangers = [name for name, place in found.items() if place is None]
    if strangers:
        raise LabelError(
            f"the model has no label {', '.join(map(repr, strangers))}; its labels are {', '.join(labels)}",
            hint="Name two or more of these.",
        )
    places = tuple(sorted({place for place in found.values() if place is not None}))
    if len(places) < 2:
        only = repr(labels[places[0]]) if places else "no label"
        raise LabelError(
            f"answers among {only} alone would always be the same",
            hint=f"Name two or more of the model's labels: {', '.join(labels)}.",
        )
    return places


def among(probabilities: np.ndarray, places: Sequence[int]) -> np.ndarray:
    """Probabilities (N, C) of these places alone, (N, k), each row summing to 1 again; NaN stays NaN."""
    chosen = probabilities[:, list(places)]
    total = chosen.sum(axis=1, keepdims=True)
    # Where all of them are 0 in this precision, none is preferred.
    shares = np.where(total == 0.0, 1.0 / len(places), chosen / np.where(total == 0.0, 1.0, total))
    return np.asarray(shares, dtype=probabilities.dtype)
