"""Teachers for distillation: a model directory, or a file of probabilities written by any program."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def predictions_of_teacher(
    config: Config,
    labels: tuple[str, ...],
    normalizer: str,
    examples: Examples,
    *,
    compute: Compute,
    token_budget: int,
    offline: bool,
    progress: Callable[..., object],
) -> Predictions:
    """What ``distill.teacher`` predicts for these texts of a student with these labels and this normaliser.

    Raises as `check_teacher`; SourceError, ColumnError, DataError: a file cannot be read.
    """
    check_teacher(config, labels)
    place, settings, cache = str(config.distill.teacher), config.distill, config.paths.cache
    if is_file(place):
        own = normalizers.from_id(normalizer)
        own.prepare(cache, offline=offline)
        data = own_columns(config.data)
        texts, found = read_probabilities(open_source(place, data), data, labels=labels, normalizer=own)
        return _of_rows(found, _places(examples.texts, texts)), None
    directory = model_directory(place)
    info = read_info(directory)
    own = normalizers.from_id(info.normalizer)
    own.prepare(cache, offline=offline)
    same = info.normalizer == normalizer or examples.raw is None
    columns = _columns(str(directory), info.labels, labels)
    folder = paths.teachers_dir(cache) / f"{_digest(info)[:20]}-{compute.precision}"
    states, kept = settings.states > 0, TeacherCache(folder, len(labels))
    teacher = _ModelTeacher(directory, info, columns, compute, token_budget, offline, states, kept)
    return teacher.predict(examples.texts if same else own.many(examples.raw or ()), progress)


def _places(texts: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """The place of each text among those that are known, (N,); -1 for others."""
    places = {text: place for place, text in enumerate(known)}
    return np.array([places.get(text, -1) for text in texts])


def _of_rows(found: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """These rows (N,) of what was found; NaN for -1."""
    return np.where((rows >= 0)[:, None], found[rows], np.float32(np.nan))


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


@dataclass(frozen=True)
class _ModelTeacher:
    """A model directory; each distinct text is predicted once, and the predictions are cached on disk.

    ``columns`` are the places of the student's labels among its own.
    """

    directory: Path
    info: ModelInfo
    columns: list[int]
    compute: Compute
    token_budget: int
    offline: bool
    states: bool
    kept: TeacherCache

    def predict(self, texts: Sequence[str], progress: Callable[..., object]) -> Predictions:
        """Cached predictions, and new ones for the other texts; NaN for empty texts.

        A failure to cache them is logged.
        """
        distinct = list(dict.fromkeys(text for text in texts if text))
        keys = text_keys(distinct)
        probabilities, states = self.kept.find(keys, states=self.states)
        missing = np.flatnonzero(np.isnan(probabilities[:, 0]))
        if len(missing):
            progress(0, total=len(missing))
            for rows, new, new_states in self._read(distinct, missing, keys, progress):
                probabilities[rows] = new
                if new_states is not None:
                    if states is None:
                        states = np.zeros((len(distinct), new_states.shape[1]), dtype=np.float16)
                    states[rows] = new_states
            release(self.compute.device)
        self.kept.mark_used()
        rows = _places(texts, distinct)
        return _of_rows(probabilities[:, self.columns], rows), None if states is None else states[rows]

    def _read(
        self, texts: Sequence[str], missing: np.ndarray, keys: np.ndarray, progress: Callable[..., object]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Chunks of the missing rows, with probabilities in the order of the teacher's labels, and pooled states."""
        loaded = load_model(self.directory, offline=self.offline)
        classifier = loaded.classifier.to(self.compute.device)
        if self.states:
            classifier.projection = torch.nn.Identity()
        take = _with_states if self.states else softmax
        keeps = True
        for start in range(0, len(missing), _CHUNK):
            rows = missing[start : start + _CHUNK]
            tokenized = tokenize(
                [texts[row] for row in rows], loaded.encoder.tokenizer, max_length=self.info.max_length,
                max_windows=self.info.max_windows,
            )  # fmt: skip
            found = predict_probabilities(
                classifier, tokenized, compute=self.compute, token_budget=self.token_budget, progress=progress,
                take=take,
            )  # fmt: skip
            count = len(self.columns)
            probabilities = found[:, :count]
            states = found[:, count:].astype(np.float16) if self.states else None
            keeps = keeps and self._keep(keys[rows], probabilities, states)
            yield rows, probabilities, states

    def _keep(self, keys: np.ndarray, probabilities: np.ndarray, states: np.ndarray | None) -> bool:
        try:
            self.kept.add(keys, probabilities, states, teacher=str(self.directory))
        except OSError as error:
            log.warning(
                "the teacher's predictions cannot be cached in %s: %s; they are computed again next time",
                self.kept.folder, reason(error),
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
