"""Teachers for distillation: a model directory, or a file of probabilities written by any program."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config, Data
from sentiment_hybrid.data import normalizers
from sentiment_hybrid.data.labels import finder
from sentiment_hybrid.data.probabilities import read_probabilities
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.store import Examples
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.inference.evaluate import pooled, predict_probabilities, softmax
from sentiment_hybrid.engine.inference.model_directory import ModelInfo, load_model, read_info
from sentiment_hybrid.engine.inference.onnx_runtime import is_export
from sentiment_hybrid.engine.inference.predictor import model_directory
from sentiment_hybrid.engine.memory import release
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.engine.training.teacher_cache import TeacherCache, text_keys
from sentiment_hybrid.errors import ConfigError, LabelError, ModelError, UsageError
from sentiment_hybrid.files import reason
from sentiment_hybrid.models.classifier import HeadOutput

log = logging.getLogger(__name__)

#: The number of texts whose predictions are stored together, the most that a killed process loses.
_CHUNK = 32_768

Predictions = tuple[np.ndarray, np.ndarray | None]  # probabilities (N, C) float32, NaN for none; states (N, H) or None


class Teacher(Protocol):
    """Predicts probabilities for the labels of its student."""

    name: str

    def predict(self, examples: Examples, *, progress: Callable[..., object]) -> Predictions:
        """Its predictions for these texts."""


def open_teacher(
    config: Config, labels: tuple[str, ...], normalizer: str, *, compute: Compute, token_budget: int, offline: bool
) -> Teacher:
    """The teacher in ``distill.teacher``, for a student with these labels and this normaliser.

    Raises as `check_teacher`.
    """
    check_teacher(config, labels)
    place, settings, cache = str(config.distill.teacher), config.distill, config.paths.cache
    if is_file(place):
        normalizers.from_id(normalizer).prepare(cache, offline=offline)
        return FileTeacher(place, own_columns(config.data), labels, normalizer)
    return ModelTeacher(
        model_directory(place), labels, normalizer, compute=compute, token_budget=token_budget, offline=offline,
        states=settings.states > 0, cache=cache,
    )  # fmt: skip


def check_teacher(config: Config, labels: tuple[str, ...]) -> None:
    """Refuse a teacher that does not fit a student with these labels, without loading it.

    Raises:
        ModelError: it is not a model directory.
        LabelError: the model has other labels.
        UsageError: a file is to provide states.
        ConfigError: states are to be learned, but no layer of the encoder is trained.
    """
    settings, place = config.distill, str(config.distill.teacher)
    if settings.teacher is None:
        return
    if settings.states and config.encoder.trainable_layers == 0:
        raise ConfigError(
            "distill.states trains the encoder, and encoder.trainable_layers is 0",
            hint="Train layers of it (--set encoder.trainable_layers=all), or set distill.states to 0.",
        )
    if is_file(place):
        if settings.states:
            raise UsageError(f"{place} has probabilities, but no states", hint="Set distill.states to 0.")
        return
    _columns(place, _info(place).labels, labels)


def _columns(teacher: str, theirs: tuple[str, ...], labels: tuple[str, ...]) -> list[int]:
    """The index of each label of the data among the teacher's. Raises LabelError unless both have the same labels."""
    find = finder(theirs)
    columns = [place for label in labels if (place := find(label)) is not None]
    if not len(set(columns)) == len(labels) == len(theirs):
        raise LabelError(
            f"the teacher {teacher} has the labels {', '.join(theirs)}, but the data has {', '.join(labels)}",
            hint="A teacher needs the labels of its student: choose another, or prepare the data with its labels.",
        )
    return columns


def teacher_digest(config: Config) -> str:
    """Digest of the teacher in ``distill.teacher``, without loading it."""
    place = str(config.distill.teacher)
    if is_file(place):
        return open_source(place, config.data).fingerprint()
    return _digest(_info(place))


def is_file(place: str) -> bool:
    """Whether a teacher is a file of probabilities."""
    return Path(place).expanduser().is_file()


def own_columns(data: Data) -> Data:
    """Data settings for another file than the prepared one, whose columns are detected."""
    return data.changed(dict.fromkeys(("text_column", "raw_text_column", "label_column")))


class FileTeacher:
    """Probabilities in a file, matched by the cleaned text."""

    def __init__(self, place: str, data: Data, labels: tuple[str, ...], normalizer: str) -> None:
        self.name, self._data, self._labels, self._normalizer = place, data, labels, normalizer

    def predict(self, examples: Examples, *, progress: Callable[..., object]) -> Predictions:
        """The probabilities, NaN for texts that are not in the file. Raises SourceError, ColumnError, DataError."""
        source = open_source(self.name, self._data)
        normalizer = normalizers.from_id(self._normalizer)
        texts, found = read_probabilities(source, self._data, labels=self._labels, normalizer=normalizer)
        places = {text: place for place, text in enumerate(texts)}
        rows = np.array([places.get(text, -1) for text in examples.texts])
        return np.where((rows >= 0)[:, None], found[rows], np.float32(np.nan)), None


class ModelTeacher:
    """A model directory; each distinct text is predicted once, and the predictions are cached on disk."""

    def __init__(
        self,
        directory: Path,
        labels: tuple[str, ...],
        normalizer: str,
        *,
        compute: Compute,
        token_budget: int,
        offline: bool,
        states: bool,
        cache: Path,
    ) -> None:
        self.name, self.directory, self.info = str(directory), directory, read_info(directory)
        self._columns = _columns(self.name, self.info.labels, labels)
        normalizers.from_id(self.info.normalizer).prepare(cache, offline=offline)
        self._student_normalizer, self._states = normalizer, states
        self._compute, self._token_budget, self._offline = compute, token_budget, offline
        folder = f"{_digest(self.info)[:20]}-{compute.precision}"
        self._kept = TeacherCache(paths.teachers_dir(cache) / folder, len(labels))

    def predict(self, examples: Examples, *, progress: Callable[..., object]) -> Predictions:
        """Cached predictions, and new ones for the other texts; NaN for texts that are empty after normalisation.

        A failure to cache them is logged.
        """
        texts = self._texts(examples)
        distinct = list(dict.fromkeys(text for text in texts if text))
        keys = text_keys(distinct)
        probabilities, states = self._kept.find(keys, states=self._states)
        missing = np.flatnonzero(np.isnan(probabilities[:, 0]))
        if len(missing):
            progress(0, total=len(missing))
            for rows, new, new_states in self._read(distinct, missing, keys, progress):
                probabilities[rows] = new
                if new_states is not None:
                    if states is None:
                        states = np.zeros((len(distinct), new_states.shape[1]), dtype=np.float16)
                    states[rows] = new_states
            release(self._compute.device)
        self._kept.mark_used()
        places = {text: place for place, text in enumerate(distinct)}
        rows = np.array([places.get(text, -1) for text in texts])
        found = np.where((rows >= 0)[:, None], probabilities[rows][:, self._columns], np.float32(np.nan))
        return found, None if states is None else states[rows]

    def _texts(self, examples: Examples) -> list[str]:
        """The texts, cleaned by its own normaliser."""
        if self.info.normalizer == self._student_normalizer or examples.raw is None:
            return examples.texts
        return normalizers.from_id(self.info.normalizer).many(examples.raw)

    def _read(
        self, texts: Sequence[str], missing: np.ndarray, keys: np.ndarray, progress: Callable[..., object]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Chunks of the missing rows, with probabilities in the order of the teacher's labels, and pooled states."""
        loaded = load_model(self.directory, offline=self._offline)
        classifier = loaded.classifier.to(self._compute.device)
        if self._states:
            classifier.projection = torch.nn.Identity()
        take = _with_states if self._states else softmax
        keeps = True
        for start in range(0, len(missing), _CHUNK):
            rows = missing[start : start + _CHUNK]
            tokenized = tokenize(
                [texts[row] for row in rows], loaded.encoder.tokenizer, max_length=self.info.max_length,
                max_windows=self.info.max_windows,
            )  # fmt: skip
            found = predict_probabilities(
                classifier, tokenized, compute=self._compute, token_budget=self._token_budget, progress=progress,
                take=take,
            )  # fmt: skip
            count = len(self._columns)
            probabilities = found[:, :count]
            states = found[:, count:].astype(np.float16) if self._states else None
            keeps = keeps and self._keep(keys[rows], probabilities, states)
            yield rows, probabilities, states

    def _keep(self, keys: np.ndarray, probabilities: np.ndarray, states: np.ndarray | None) -> bool:
        try:
            self._kept.add(keys, probabilities, states, teacher=self.name)
        except OSError as error:
            log.warning(
                "the teacher's predictions cannot be cached in %s: %s; they are computed again next time",
                self._kept.folder, reason(error),
            )  # fmt: skip
            return False
        return True


def _with_states(output: HeadOutput) -> torch.Tensor:
    """Probabilities and pooled states side by side, (B, C + H)."""
    return torch.cat([softmax(output), pooled(output)], dim=-1)


def _digest(info: ModelInfo) -> str:
    """A hash of weights, encoder, temperature, and the preparation of texts."""
    facts = [
        *(info.weights_sha256, info.encoder_fingerprint, info.temperature, info.normalizer),
        *(info.max_length, info.max_windows, list(info.labels)),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _info(place: str) -> ModelInfo:
    """The metadata of a teacher. Raises ModelError unless it is a model directory."""
    directory = model_directory(place)
    if is_export(directory):
        raise ModelError(
            f"{directory} cannot be a teacher: it is an export", hint="Use the model that it was made from."
        )
    return read_info(directory)
