"""TF-IDF + logistic regression on a model's own training rows: what any model must beat. Stored without pickle."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sentiment_hybrid import paths
from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.files import atomic_dir, mark_used, recover, sha256, write_json, written

log = logging.getLogger(__name__)

#: Increased when the format or the fit changes; stored baselines of other versions are refitted.
FORMAT_VERSION = 1
_META, _VOCABULARY, _WEIGHTS = paths.BASELINE_JSON, "vocabulary.json", "weights.npz"
_ARRAYS = ("idf", "coefficients", "intercept", "seen")
#: Texts vectorised at once in prediction, to bound memory.
_CHUNK = 20_000

#: Words with their apostrophes ("can't" stays one token), emoticons, runs of ! and ?, every other sign and emoji.
TOKEN_PATTERN = r"\w+(?:['’]\w+)*|[:;=8xX][-o*']?[)(\[\]dDpPsS/\\|]+|<3+|[!?]+|\.{2,}|[^\w\s]"
#: Found on 100,000 tweets of Sentiment140 (C 1, 2, 4; words, 1-2, 1-3 and character n-grams).
INVERSE_REGULARISATION = 2.0
MAX_FEATURES = 500_000
#: From this many texts on, n-grams of a single text are dropped.
_MANY_TEXTS = 1000
_SETTINGS: dict[str, Any] = {
    "token_pattern": TOKEN_PATTERN,
    "lowercase": True,
    "ngram_range": (1, 2),
    "sublinear_tf": True,
    "dtype": np.float64,
}


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline of F n-grams; ``seen`` lists the K classes of the training rows, out of num_classes."""

    vocabulary: list[str]
    idf: npt.NDArray[np.float64]  # (F,)
    coefficients: npt.NDArray[np.float64]  # (K, F), or (1, F) for two classes
    intercept: npt.NDArray[np.float64]  # (K,), or (1,) for two classes
    seen: npt.NDArray[np.int64]  # (K,)
    num_classes: int

    @cached_property
    def _vectorizer(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(**_SETTINGS, vocabulary={term: i for i, term in enumerate(self.vocabulary)})
        vectorizer.idf_ = self.idf
        return vectorizer

    def predict_proba(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Probabilities (N, C) of cleaned texts; 0 for a class without training rows."""
        result = np.zeros((len(texts), self.num_classes))
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            result[start : start + len(chunk), self.seen] = self._probabilities(chunk)
        return result

    def _probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        from scipy.special import softmax

        logits = np.tile(self.intercept, (len(texts), 1))
        if self.vocabulary:
            logits += self._vectorizer.transform(texts) @ self.coefficients.T
        if len(self.seen) == 2:
            logits = np.hstack([np.zeros_like(logits), logits])
        probabilities: npt.NDArray[np.float64] = softmax(logits, axis=1)
        return probabilities


def fit(texts: Sequence[str], labels: npt.ArrayLike, *, num_classes: int) -> Baseline:
    """Train on cleaned texts and their class indices (N,). Deterministic.

    Word 1- and 2-grams, lower-cased, sublinear TF x IDF, L2-regularised logistic regression (multinomial for more than
    two classes). If no text has a usable token, it predicts the class frequencies.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    target = np.asarray(labels, dtype=np.int64)
    min_df = 2 if len(texts) >= _MANY_TEXTS else 1
    vectorizer = TfidfVectorizer(**_SETTINGS, min_df=min_df, max_features=MAX_FEATURES)
    seen, counts = np.unique(target, return_counts=True)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError as error:  # scikit-learn's error if no token is left
        log.warning("baseline: the training texts have no usable word (%s); it predicts the class frequencies", error)
        return _shares_only(seen, counts, num_classes)
    if len(seen) < 2:
        return _shares_only(seen, counts, num_classes)
    model = _logistic_regression(features, target)
    vocabulary = [str(term) for term in vectorizer.get_feature_names_out()]
    idf, coefficients, intercept = (
        np.asarray(values, dtype=np.float64) for values in (vectorizer.idf_, model.coef_, model.intercept_)
    )
    return Baseline(vocabulary, idf, coefficients, intercept, seen, num_classes)


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
    fitted, directory = fit(texts, labels, num_classes=num_classes), _directory(folder, fingerprint)
    hint = "check permissions and free space, or choose another folder with --set paths.cache_dir=DIR"
    try:
        with written(f"the baseline {directory}", hint=hint), atomic_dir(directory) as aside:
            _write(fitted, aside, fingerprint)
    except OutputError as error:
        log.warning("%s; it will be fitted again next time", error)
    return fitted


# --- fitting


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


def _shares_only(seen: npt.NDArray[np.int64], counts: npt.NDArray[Any], num_classes: int) -> Baseline:
    intercept = np.log(counts / counts.sum())
    if len(seen) == 2:
        intercept = intercept[1:] - intercept[:1]
    return Baseline([], np.zeros(0), np.zeros((len(intercept), 0)), intercept, seen, num_classes)


# --- files


def _directory(folder: Path, fingerprint: str) -> Path:
    return folder / hashlib.sha256(fingerprint.encode()).hexdigest()[:24]


def _write(baseline: Baseline, directory: Path, fingerprint: str) -> None:
    (directory / _VOCABULARY).write_text(json.dumps(baseline.vocabulary), encoding="ascii")
    np.savez(directory / _WEIGHTS, **{name: getattr(baseline, name) for name in _ARRAYS})
    meta = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "num_classes": baseline.num_classes,
        "sha256": {name: sha256(directory / name) for name in (_VOCABULARY, _WEIGHTS)},
    }
    write_json(directory / _META, meta)


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
        return Baseline(vocabulary, **{name: arrays[name] for name in _ARRAYS}, num_classes=num_classes)
