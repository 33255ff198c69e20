"""What texts are for a linear model: mean token states of an encoder, or TF-IDF of words where there is none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentiment_hybrid.engine.evaluation import baseline
from sentiment_hybrid.engine.inference.evaluate import pooled, pooling
from sentiment_hybrid.engine.inference.session import EncodedDataset, Session

#: Rows that are held as float32 at once.
_CHUNK = 50_000
#: Of the analysis of TF-IDF: texts, and dimensions.
_SAMPLE = 50_000
_DIMENSIONS = 64


@dataclass(frozen=True)
class States:
    """Mean token states (N, H) float16 in a temporary file; standardised by ``mean`` and ``scale`` (H,) when read."""

    values: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Standardised states of some rows, (K, H) float32."""
        values: np.ndarray = (self.values[rows].astype(np.float32) - self.mean) / self.scale
        return values


def mean_states(
    session: Session, dataset: EncodedDataset, folder: Path, *, progress: Callable[[int], object] = lambda texts: None
) -> States:
    """The mean token state of each text, all its windows together.

    Args:
        session: a classifier whose encoder is used; its head is not.
        folder: where the temporary file is made.

    Raises:
        TrainingError: there is no memory for a single text.
    """
    values = _in_file(folder, (len(dataset), session.classifier.encoder.hidden_size))
    with pooling(session.single):
        session.predict(
            dataset, progress=progress, take=lambda output: pooled(output).clamp(-65_000, 65_000).half(), out=values
        )
    return States(values, *_moments(values))


def reduced_tfidf(texts: Sequence[str], folder: Path, *, seed: int = 0) -> States | None:
    """Latent semantic analysis of TF-IDF, (N, up to 64), in place of states; None if the texts have too few words."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    sample = np.random.default_rng(seed).permutation(len(texts))[:_SAMPLE]
    vectorizer = TfidfVectorizer(token_pattern=baseline.TOKEN_PATTERN, sublinear_tf=True, min_df=2, max_features=50_000)
    try:
        vectors = vectorizer.fit_transform(texts[at] for at in sample.tolist())
    except ValueError:  # no word occurs twice
        return None
    if min(vectors.shape) <= _DIMENSIONS:
        return None
    analysis = TruncatedSVD(_DIMENSIONS, random_state=seed).fit(vectors)
    values = _in_file(folder, (len(texts), _DIMENSIONS))
    for start in range(0, len(texts), _CHUNK):
        values[start : start + _CHUNK] = analysis.transform(vectorizer.transform(texts[start : start + _CHUNK]))
    return States(values, *_moments(values))


def _in_file(folder: Path, shape: tuple[int, int]) -> np.ndarray:
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype=np.float16, mode="w+", shape=shape)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, (H,) float32."""
    total, squares = (np.zeros(values.shape[1]) for _ in range(2))
    for start in range(0, len(values), _CHUNK):
        some = values[start : start + _CHUNK].astype(np.float64)
        total += some.sum(axis=0)
        squares += (some * some).sum(axis=0)
    mean = total / len(values)
    deviation = np.sqrt(np.maximum(squares / len(values) - mean * mean, 0.0))
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)


def fit_states(states: States, rows: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regression on mean token states, as `label_errors.Fit`."""
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(C=0.1, max_iter=200, tol=1e-3).fit(states[rows], labels)

    def probabilities(rows: np.ndarray) -> np.ndarray:
        chunks = np.split(rows, range(_CHUNK, len(rows), _CHUNK))
        return np.concatenate([model.predict_proba(states[chunk]).astype(np.float32) for chunk in chunks])

    return probabilities


def fit_words(texts: Sequence[str], rows: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """TF-IDF and logistic regression, as beside every test, as `label_errors.Fit`."""
    model = baseline.fit([texts[at] for at in rows.tolist()], labels, num_classes=int(labels.max()) + 1)
    return lambda rows: model.predict_proba([texts[at] for at in rows.tolist()])
