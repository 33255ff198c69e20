"""The model that is served: its answers as plain values, and what it is replaced by once a new one is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sentiment_hybrid import paths
from sentiment_hybrid.engine.inference.answers import among, check_abstaining, label_or_unsure, places_of
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import ModelError
from sentiment_hybrid.files import recover
from sentiment_hybrid.serving.schema import PredictRequest

#: Digits of a probability, as `senthy predict` writes it.
_DIGITS = 6
#: A model is asked this before it serves: the first batch of a new one takes long.
_WARM_UP = ("What a lovely day :)", "not what I paid for, and nobody answers the phone", "ok")

#: The files that say whether a directory still holds the same model: inode, time and size of each that is there.
Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class ServedModel:
    """A loaded model; ``stamp`` is that of its directory when loading began."""

    predictor: Predictor
    directory: Path
    stamp: Stamp
    explains: bool
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def id(self) -> str:
        """The beginning of the checksum of its weights."""
        return self.predictor.info.weights_sha256[:12]

    def check(self, asked: PredictRequest) -> None:
        """Raises UsageError or LabelError for what does not suit the labels, ModelError for an explanation."""
        if asked.labels is not None:
            places_of(self.predictor.labels, asked.labels)
        if asked.abstain_below is not None:
            check_abstaining(self.predictor.labels)
        if asked.explain:
            self.predictor.explain([])

    def probabilities(self, texts: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, C), NaN for an empty text, and which texts are cut, (N,)."""
        prepared = self.predictor.prepare(texts)
        return self.predictor.compute(prepared), self.predictor.is_cut(prepared)

    def answers(self, rows: np.ndarray, cut: np.ndarray, asked: PredictRequest) -> list[dict[str, Any]]:
        """The answers to texts with these probabilities (N, C)."""
        places = self._places(asked)
        chosen = among(rows, places) if len(places) < rows.shape[1] else rows
        names = [self.predictor.labels[place] for place in places]
        return [
            _answer(names, values, bool(is_cut), asked.abstain_below)
            for values, is_cut in zip(chosen.tolist(), cut, strict=True)
        ]

    def explanation(self, text: str | None, row: np.ndarray, asked: PredictRequest) -> dict[str, Any] | None:
        """The words of a text with their weights for its label; ``row`` (C,) are its probabilities."""
        if np.isnan(row).any():
            return None
        places = self._places(asked)
        label = self.predictor.labels[max(places, key=lambda place: row[place])]
        found = self.predictor.explain([text], label=label)[0]
        return {"text": found.text, "label": label, "unread": found.unread, "words": found.cells(places=True)}

    def _places(self, asked: PredictRequest) -> Sequence[int]:
        labels = self.predictor.labels
        return range(len(labels)) if asked.labels is None else places_of(labels, asked.labels)

    def describe(self) -> dict[str, Any]:
        """For /models."""
        info = self.predictor.info
        return {
            "id": self.id,
            "name": info.name or info.run_id,
            "directory": self.directory.name,
            "head": info.head,
            "labels": list(self.predictor.labels),
            "encoder": info.encoder_name,
            "normalizer": info.normalizer,
            "max_tokens": info.max_length * info.max_windows,
            "created": info.created,
            "valid": info.valid,
            "explains": self.explains,
            "loaded": self.since,
            "published": stamp_of(self.directory)[0] is not None,
        }


def _answer(labels: Sequence[str], values: Sequence[float], is_cut: bool, below: float | None) -> dict[str, Any]:
    if values[0] != values[0]:  # NaN: there was no text
        return {"label": None, "score": None, "probabilities": {}, "truncated": is_cut}
    score = max(values)
    label = label_or_unsure(labels[values.index(score)], score, below)
    shares = {name: round(value, _DIGITS) for name, value in zip(labels, values, strict=True)}
    return {"label": label, "score": round(score, _DIGITS), "probabilities": shares, "truncated": is_cut}


# --- replacing it ----------------------------------------------------------------------------------------------------


def stamp_of(directory: Path) -> Stamp:
    """What changes when another model is published here; the first is None if there is none."""
    return tuple(_stamp(directory / name) for name in (paths.MODEL_JSON, paths.MODEL_WEIGHTS, paths.ONNX_MODEL))


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def load_served(directory: Path, open_model: Callable[[Path], Predictor]) -> ServedModel:
    """Load a model and let it answer once. Raises SenthyError."""
    place = recover(directory)
    stamp = stamp_of(place)
    predictor = open_model(place)
    predictor.predict(_WARM_UP)
    return ServedModel(predictor, place, stamp, _explains(predictor))


def _explains(predictor: Predictor) -> bool:
    try:
        predictor.explain([])
    except ModelError:
        return False
    return True
