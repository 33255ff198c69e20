"""Tokens that give a label away stand out from those that merely go with it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sentiment_hybrid.engine.insight.artefacts import find_artefacts, mutual_information

NAMES = ("negative", "positive")


def test_a_token_of_one_label_is_marked_and_has_examples_of_it() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(600) % 2
    texts = [
        f"{random.choice(['one', 'two', 'three'])} day {'#sponsored' if label else 'plain'}"
        + (" good" if random.random() < (0.7 if label else 0.3) else "")
        for label in labels
    ]
    found = {one.token: one for one in find_artefacts(texts, np.arange(600), labels, NAMES)}
    assert found["sponsored"].label == "positive"
    assert found["sponsored"].information == pytest.approx(1.0)
    assert found["sponsored"].gives_away
    assert not found["good"].gives_away
    assert all("sponsored" in text for text in found["sponsored"].examples)
    assert next(iter(found.values())).information == max(one.information for one in found.values())


def test_mutual_information_is_that_of_the_textbook() -> None:
    counts = np.array([[30.0, 10.0], [50.0, 50.0], [0.0, 0.0]])
    found = mutual_information(counts, np.array([50, 50]))
    joint = [[0.3, 0.1], [0.2, 0.4]]
    expected = sum(p * math.log2(p / (sum(row) * 0.5)) for row in joint for p in row)
    assert found == pytest.approx([expected, 0.0, 0.0])


def test_one_class_or_no_token_has_no_artefacts() -> None:
    assert find_artefacts(["a b", "b c"], np.arange(2), np.zeros(2, dtype=int), NAMES) == []
    assert find_artefacts([" ", "  "], np.arange(2), np.array([0, 1]), NAMES) == []
