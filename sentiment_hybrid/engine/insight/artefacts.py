"""Tokens that give a label away: mutual information between a token's presence and the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import rel_entr
from scipy.stats import binomtest

from sentiment_hybrid.engine.evaluation.baseline import TOKEN_PATTERN

#: Texts that are counted at most; more do not change the order of the tokens.
_SAMPLE = 200_000
_LEAST_TEXTS = 10
_SHOWN = 20
_EXAMPLES = 3
#: A token whose texts have one label, all but so few, is marked: the lower end of a Wilson interval of 95 %.
GIVES_AWAY = 0.95
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Artefact:
    """A token, the label of most texts with it, its share and lower bound there, mutual information in bits."""

    token: str
    label: str
    texts: int
    share: float
    at_least: float
    information: float
    examples: tuple[str, ...]

    @property
    def gives_away(self) -> bool:
        """Whether practically all texts with it have one label."""
        return self.at_least >= GIVES_AWAY

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"gives_away": self.gives_away}


def find_artefacts(
    texts: Sequence[str], rows: np.ndarray, labels: np.ndarray, names: Sequence[str], *, seed: int = 0
) -> list[Artefact]:
    """The tokens that reveal most about the label, the most informative first; none where there is one class.

    Args:
        rows: (K,) those to look at.
        labels: (K,) their classes.
    """
    if len(rows) > _SAMPLE:
        some = np.sort(np.random.default_rng(seed).choice(len(rows), _SAMPLE, replace=False))
        rows, labels = rows[some], labels[some]
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(binary=True, token_pattern=TOKEN_PATTERN, dtype=np.int32)
    try:
        present = vectorizer.fit_transform(texts[at] for at in rows.tolist()).tocsc()  # (K, V)
    except ValueError:  # no token at all
        return []
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return []
    one_hot = np.eye(len(classes), dtype=np.int32)[codes]
    counts = np.asarray(present.T @ one_hot, dtype=np.float64)  # (V, C)
    information = mutual_information(counts, np.bincount(codes))
    information[counts.sum(axis=1) < _LEAST_TEXTS] = 0.0
    best = [at for at in np.argsort(-information, kind="stable")[:_SHOWN] if information[at] > 0]
    tokens = vectorizer.get_feature_names_out()
    found = []
    for at in best:
        most = int(counts[at].argmax())
        holders = present.indices[present.indptr[at] : present.indptr[at + 1]]
        shown = holders[codes[holders] == most][:_EXAMPLES]
        total, share = int(counts[at].sum()), float(counts[at, most] / counts[at].sum())
        least = binomtest(int(counts[at, most]), total).proportion_ci(_CONFIDENCE, method="wilson").low
        found.append(
            Artefact(
                str(tokens[at]), names[int(classes[most])], total, share, float(least), float(information[at]),
                tuple(texts[rows[place]] for place in shown),
            )
        )  # fmt: skip
    return found


def mutual_information(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Bits that the presence of each token gives about the class, (V,).

    Args:
        counts: (V, C) texts of each class with each token.
        sizes: (C,) texts of each class.
    """
    total = sizes.sum()
    information = np.zeros(len(counts))
    for joint in (counts / total, (sizes - counts) / total):
        expected = joint.sum(axis=1, keepdims=True) * (sizes / total)
        information += rel_entr(joint, expected).sum(axis=1) / np.log(2.0)
    return np.maximum(information, 0.0)
