"""Flipped labels are found; near-duplicates never vouch for each other; too little data is said to be too little."""

from __future__ import annotations

import numpy as np

from sentiment_hybrid.engine.insight.label_errors import LEAST_ROWS, find_label_errors, out_of_fold


class Nearest:
    """A classifier by the distance to the means of the classes; ``seen`` collects what each was fitted on."""

    def __init__(self, values: np.ndarray, seen: list[np.ndarray], rows: np.ndarray, labels: np.ndarray) -> None:
        self.values = values
        self.means = np.array([values[rows[labels == label]].mean(axis=0) for label in range(labels.max() + 1)])
        seen.append(rows)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        scores = -np.square(self.values[rows][:, None] - self.means[None]).sum(axis=2)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)


def blobs(rows: int = 600, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    centres = 4.0 * np.eye(classes, 5)
    return centres[labels] + random.normal(size=(rows, 5)) * 0.7, labels


def test_flipped_labels_are_found_with_their_true_label() -> None:
    values, true = blobs()
    flipped = np.random.default_rng(1).choice(600, 30, replace=False)
    labels = true.copy()
    labels[flipped] = (labels[flipped] + 1) % 3
    answers = out_of_fold(lambda rows, codes: Nearest(values, [], rows, codes), np.arange(600), labels, np.arange(600))
    assert answers is not None
    found = find_label_errors(answers)
    places = {one.place for one in found}
    assert len(places & set(flipped.tolist())) >= 28
    assert len(places - set(flipped.tolist())) <= 3
    assert all(one.likely == true[one.place] for one in found if one.place in flipped)
    assert all(0.5 <= one.confidence <= 1 for one in found)


def test_each_row_is_judged_by_a_model_that_has_seen_neither_it_nor_its_group() -> None:
    values, labels = blobs(200)
    groups = np.arange(200) // 4
    seen: list[np.ndarray] = []
    answers = out_of_fold(lambda rows, codes: Nearest(values, seen, rows, codes), np.arange(200), labels, groups)
    assert answers is not None
    assert len(seen) == 5
    held_out = [np.setdiff1d(np.arange(200), rows) for rows in seen]
    assert sorted(np.concatenate(held_out).tolist()) == list(range(200))
    for out, rows in zip(held_out, seen, strict=True):
        assert not np.intersect1d(groups[out], groups[rows]).size


def test_row_numbers_and_absent_classes_are_kept_apart() -> None:
    values, labels = blobs(90)
    labels = np.where(labels == 1, 5, labels)
    labels[0] = 9  # alone in its class: nothing can be learned of it
    rows = np.arange(90) + 1000
    spread = np.zeros((1090, 5))
    spread[1000:] = values
    answers = out_of_fold(lambda some, codes: Nearest(spread, [], some, codes), rows, labels, np.arange(90))
    assert answers is not None
    assert answers.classes.tolist() == [0, 2, 5]
    assert 1000 not in answers.rows
    assert np.allclose(answers.probabilities.sum(axis=1), 1.0, atol=1e-5)


def test_one_class_or_a_handful_of_rows_is_too_little() -> None:
    values, labels = blobs(60)

    def fit(rows: np.ndarray, codes: np.ndarray) -> Nearest:
        return Nearest(values, [], rows, codes)

    assert out_of_fold(fit, np.arange(60), np.zeros(60, dtype=int), np.arange(60)) is None
    few = np.arange(LEAST_ROWS - 1)
    assert out_of_fold(fit, few, labels[few], few) is None
