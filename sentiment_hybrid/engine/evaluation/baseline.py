"""TF-IDF + logistic regression on a model's own training rows: what any model must beat. Stored without pickle."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sentiment_hybrid import paths
from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.files import atomic_dir, mark_used, recover, sha256, written

log = logging.getLogger(__name__)

#: Increased when the format or the fit changes; stored baselines of other versions are refitted.
FORMAT_VERSION = 1
_META, _VOCABULARY, _WEIGHTS = paths.BASELINE_JSON, "vocabulary.json", "weights.npz"
#: Texts vectorised at once in prediction, to bound memory.
_CHUNK = 20_000

#: Words with their apostrophes ("can't" stays one token), emoticons, runs of ! and ?, every other sign and emoji.
TOKEN_PATTERN = r"\w+(?:['’]\w+)*|[:;=8xX][-o*']?[)(\[\]dDpPsS/\\|]+|<3+|[!?]+|\.{2,}|[^\w\s]"
#: Found on 100,000 tweets of Sentiment140 (C 1, 2, 4; words, 1-2, 1-3 and character n-grams).
INVERSE_REGULARISATION = 2.0
MAX_FEATURES = 500_000
#: From this many texts on, n-grams of a single text are dropped.
_MANY_TEXTS = 1000


@dataclass(frozen=True)
class _Weights:
    """Fitted weights of F n-grams; ``seen`` lists the K classes of the training rows, out of num_classes."""

    vocabulary: list[str]
    idf: npt.NDArray[np.float64]  # (F,)
    coefficients: npt.NDArray[np.float64]  # (K, F), or (1, F) for two classes
    intercept: npt.NDArray[np.float64]  # (K,), or (1,) for two classes
    seen: npt.NDArray[np.int64]  # (K,)


class Baseline:
    """A fitted baseline."""

    def __init__(self, weights: _Weights, *, num_classes: int) -> None:
        self.num_classes = num_classes
        self._weights = weights
        self._vectorizer = _vectorizer(weights) if weights.vocabulary else None

    def predict_proba(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Probabilities (N, C) of cleaned texts; 0 for a class without training rows."""
        result = np.zeros((len(texts), self.num_classes))
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            result[start : start + len(chunk), self._weights.seen] = self._probabilities(chunk)
        return result

    def _probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        from scipy.special import softmax

        logits = np.tile(self._weights.intercept, (len(texts), 1))
        if self._vectorizer is not None:
            logits += self._vectorizer.transform(texts) @ self._weights.coefficients.T
        if len(self._weights.seen) == 2:
            logits = np.hstack([np.zeros_like(logits), logits])
        probabilities: npt.NDArray[np.float64] = softmax(logits, axis=1)
        return probabilities


def fit(texts: Sequence[str], labels: npt.ArrayLike, *, num_classes: int) -> Baseline:
    """Train on cleaned texts and their class indices (N,). Deterministic.

    Word 1- and 2-grams, lower-cased, sublinear TF x IDF, L2-regularised logistic regression (multinomial for more than
    two classes). If no text has a usable token, it predicts the class frequencies.
    """
    return Baseline(_fit_weights(texts, np.asarray(labels, dtype=np.int64)), num_classes=num_classes)


def load(folder: Path, fingerprint: str, *, num_classes: int) -> Baseline | None:
    """The stored baseline of this training set; None if there is none, or it is damaged or of another version."""
    directory = _directory(folder, fingerprint)
    recover(directory)
    if not directory.is_dir():
        return None
    try:
        kept = _read(directory, fingerprint, num_classes)
        mark_used(directory / _META)
        return kept
    # Errors of json, zipfile and numpy for damaged files have no common base class.
    except Exception as error:  # noqa: BLE001
        log.warning("stored baseline %s cannot be used (%s); fitting it again", directory, error)
        return None


def fit_and_keep(
    texts: Sequence[str], labels: npt.ArrayLike, *, num_classes: int, folder: Path, fingerprint: str
) -> Baseline:
    """As `fit`, and store it.

    ``fingerprint`` identifies texts, their order, labels and normaliser; ``folder`` has a folder per fingerprint.
    If it cannot be stored (disk full, no permission), that is logged, and the fitted one is returned.
    """
    fitted = fit(texts, labels, num_classes=num_classes)
    try:
        save(fitted, folder, fingerprint=fingerprint)
    except OutputError as error:
        log.warning("%s; it will be fitted again next time", error)
    return fitted


def save(baseline: Baseline, folder: Path, *, fingerprint: str) -> None:
    """Store ``baseline`` atomically. Raises OutputError if it cannot be written."""
    directory = _directory(folder, fingerprint)
    hint = "check permissions and free space, or choose another folder with --set paths.cache_dir=DIR"
    with written(f"the baseline {directory}", hint=hint), atomic_dir(directory) as aside:
        _write(baseline, aside, fingerprint)


# --- fitting


def _settings() -> dict[str, Any]:
    return {
        "token_pattern": TOKEN_PATTERN,
        "lowercase": True,
        "ngram_range": (1, 2),
        "sublinear_tf": True,
        "dtype": np.float64,
    }


def _fit_weights(texts: Sequence[str], target: npt.NDArray[np.int64]) -> _Weights:
    from sklearn.feature_extraction.text import TfidfVectorizer

    min_df = 2 if len(texts) >= _MANY_TEXTS else 1
    vectorizer = TfidfVectorizer(**_settings(), min_df=min_df, max_features=MAX_FEATURES)
    seen, counts = np.unique(target, return_counts=True)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError as error:  # scikit-learn's error if no token is left
        log.warning("baseline: the training texts have no usable word (%s); it predicts the class frequencies", error)
        return _shares_only(seen, counts)
    if len(seen) < 2:
        return _shares_only(seen, counts)
    model = _logistic_regression(features, target)
    return _Weights(
        vocabulary=[str(term) for term in vectorizer.get_feature_names_out()],
        idf=np.asarray(vectorizer.idf_, dtype=np.float64),
        coefficients=np.asarray(model.coef_, dtype=np.float64),
        intercept=np.asarray(model.intercept_, dtype=np.float64),
        seen=seen,
    )


def _logistic_regression(features: Any, target: npt.NDArray[np.int64]) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=INVERSE_REGULARISATION, solver="lbfgs", max_iter=300)
    with warnings.catch_warnings():
        # 300 iterations are more than enough for stable predictions; reaching them is logged, not warned about.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, target)
    log.debug("baseline: %d features, %d iterations", features.shape[1], int(model.n_iter_.max()))
    return model


def _shares_only(seen: npt.NDArray[np.int64], counts: npt.NDArray[Any]) -> _Weights:
    intercept = np.log(counts / counts.sum())
    if len(seen) == 2:
        intercept = intercept[1:] - intercept[:1]
    empty = np.zeros((len(intercept), 0))
    return _Weights(vocabulary=[], idf=np.zeros(0), coefficients=empty, intercept=intercept, seen=seen)


def _vectorizer(weights: _Weights) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(**_settings(), vocabulary={term: i for i, term in enumerate(weights.vocabulary)})
    vectorizer.idf_ = weights.idf
    return vectorizer


# --- files


def _directory(folder: Path, fingerprint: str) -> Path:
    return folder / hashlib.sha256(fingerprint.encode()).hexdigest()[:24]


def _write(baseline: Baseline, directory: Path, fingerprint: str) -> None:
    arrays = dict(vars(baseline._weights))
    vocabulary = json.dumps(arrays.pop("vocabulary"), ensure_ascii=True).encode()
    (directory / _VOCABULARY).write_bytes(vocabulary)
    with (directory / _WEIGHTS).open("wb") as file:
        np.savez(file, **arrays)
    meta = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "num_classes": baseline.num_classes,
        "sha256": {name: sha256(directory / name) for name in (_VOCABULARY, _WEIGHTS)},
    }
    (directory / _META).write_text(json.dumps(meta, indent=2), encoding="utf-8")


def _read(directory: Path, fingerprint: str, num_classes: int) -> Baseline:
    """Raises ValueError or another error unless it is a complete baseline of this format and fingerprint."""
    meta = json.loads((directory / _META).read_text(encoding="utf-8"))
    wanted = {"format_version": FORMAT_VERSION, "fingerprint": fingerprint, "num_classes": num_classes}
    if any(meta[name] != value for name, value in wanted.items()):
        raise ValueError("written by another version or for other texts")
    for name in (_VOCABULARY, _WEIGHTS):
        if sha256(directory / name) != meta["sha256"][name]:
            raise ValueError(f"{name} is damaged")
    vocabulary = json.loads((directory / _VOCABULARY).read_bytes())
    with np.load(directory / _WEIGHTS, allow_pickle=False) as arrays:
        weights = _Weights(vocabulary=vocabulary, **{name: arrays[name] for name in arrays.files})
    return Baseline(weights, num_classes=num_classes)
