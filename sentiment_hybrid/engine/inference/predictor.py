"""Predictions of a trained model for new texts, cleaned and tokenised as in training."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import MAX_TEXT_BYTES
from sentiment_hybrid.data import columns, normalizers
from sentiment_hybrid.data.sources.base import Limit
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.inference.answers import among, places_of
from sentiment_hybrid.engine.inference.model_directory import load_model, no_model
from sentiment_hybrid.engine.inference.onnx_runtime import OnnxBackend, is_export, softmax
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.errors import ColumnError, DataError, ModelError
from sentiment_hybrid.files import recover
from sentiment_hybrid.heads import HEADS

if TYPE_CHECKING:
    import pandas as pd

    from sentiment_hybrid.engine.inference.explanations import Explanation, Method

Backend = Literal["auto", "torch", "onnx"]

#: Maximum number of texts computed together, on a GPU, by an export and on a CPU: more texts need less padding, but
#: more memory, and a stopped run loses more.
_CHUNK, _ONNX_CHUNK, _CPU_CHUNK = 16_384, 4096, 1024
#: Fewer on a CPU with a large encoder, so that they take a second or two: texts times weights, and the minimum.
_CHUNK_WORK, _LEAST_CHUNK = 2**32, 128
#: Maximum number of tokens per forward pass on a CPU: with more, activations exceed the caches and only cost memory.
_CPU_TOKENS = 2048
#: Tokens after which freed memory is returned to the system, on a CPU: a few seconds of work, and at most
#: half a percent of them.
_RETURN_AFTER = 2**16

#: The head of mini with the best validation score.
_MINI_HEAD = "han"

PREDICTION_COLUMN = "prediction"
#: Prefix of the added columns if a table already has one of their names.
PREFIX = "senthy_"
SCORE_COLUMN = "score"


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text: the most probable label, its probability, and the probabilities of all labels.

    For a text that is null, or empty after cleaning, label and score are None, and probabilities are empty.
    """

    label: str | None
    score: float | None
    probabilities: dict[str, float]


@dataclass(frozen=True)
class PreparedTexts:
    """Tokenised texts: the places of non-empty ones, and the tokens of the M distinct texts among them."""

    size: int
    rows: np.ndarray  # (R,) indices of non-empty texts
    places: np.ndarray  # (R,) index of each among the distinct texts
    shortened: np.ndarray  # (R,) bool, which are longer than ``max_text_bytes``
    tokenized: TokenizedTexts  # M texts


class Predictor:
    """Predicts labels of new texts with a model directory, using its normaliser, tokenizer, labels and sizes.

    It is the unit that other engines carry: pickled, it is the path of its model and these arguments, and it is loaded
    where it is unpickled; a process that is forked from one that has used it computes with one thread. Threads may
    share one: it computes their predictions one after the other.

    Args:
        model: a model directory, or ``mini`` (``mini-lstm``, ``mini-han``), which ships in the package; None is the
            newest one in ``models/``, else mini.
        device: ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``), ``mps``.
        encoder: local copy of the encoder, for a model that does not include it.
        offline: never use the network.
        cache_dir: directory of nltk data for the classic normaliser; None is the system's cache directory.
        token_budget: tokens per forward pass, padding included.
        precision: ``auto`` is bf16 if the device supports it; ``fp32`` is reproducible to more digits; ``int8``
            quantizes the encoder's matrix products, on CPUs only, which takes seconds to prepare.
        backend: ``onnx`` runs an export of ``senthy export``, in its own precision; ``auto`` detects the kind of
            model.
        labels: choose among these labels of the model only (two or more), with renormalised probabilities; None is
            all.
        max_text_bytes: longer texts are cut to this number of UTF-8 bytes, and counted as truncated.

    Raises:
        LabelError: the model does not have one of ``labels``, or fewer than two are given.
        ModelError: there is no model, or it is damaged, unsafe or newer than this program.
        EncoderError: its encoder is unavailable, or another one.
        DataError: the model's normaliser needs nltk data that are missing.
    """

    def __init__(
        self,
        model: Path | str | None = None,
        *,
        device: str = "auto",
        encoder: Path | str | None = None,
        offline: bool = False,
        cache_dir: Path | None = None,
        token_budget: int = 16_384,
        precision: str = "auto",
        backend: Backend = "auto",
        labels: Sequence[str] | None = None,
        max_text_bytes: int = MAX_TEXT_BYTES,
    ) -> None:
        if backend not in get_args(Backend):
            raise ModelError(f"there is no backend {backend!r}", hint=f"Use {' or '.join(get_args(Backend))}.")
        directory = next(iter(newest(Path("models"))), mini()) if model is None else model_directory(model)
        self._given: dict[str, Any] = {
            "device": device, "offline": offline, "token_budget": token_budget, "precision": precision,
            "backend": backend, "labels": labels, "max_text_bytes": max_text_bytes,
        }  # fmt: skip
        for name, place in (("model", directory), ("encoder", encoder), ("cache_dir", cache_dir)):
            # A process in another working directory may load it.
            self._given[name] = None if place is None else Path(place).expanduser().absolute()
        self._process = os.getpid()
        if backend == "onnx" or (backend == "auto" and is_export(directory)):
            self._onnx: OnnxBackend | None = OnnxBackend(directory, device=device)
            if precision not in ("auto", self._onnx.kind):
                raise ModelError(
                    f"{directory} is an export in {self._onnx.kind}, so it cannot compute in {precision}",
                    hint="Omit the precision, or create another export with senthy export.",
                )
            self.info, self._tokenizer = self._onnx.info, self._onnx.tokenizer
        else:
            from sentiment_hybrid.engine import device as devices

            self._onnx = None
            self._compute = devices.choose(device, precision)
            if self._compute.device.type == "cpu":
                token_budget = min(token_budget, _CPU_TOKENS)
            loaded = load_model(directory, encoder=encoder, offline=offline)
            self._classifier = loaded.classifier.to(self._compute.device)
            self.info, self._tokenizer = loaded.info, loaded.encoder.tokenizer
        self._answers = range(len(self.info.labels)) if labels is None else places_of(self.info.labels, labels)
        self._normalizer = normalizers.from_id(self.info.normalizer)
        self._normalizer.prepare(paths.cache_dir(cache_dir), offline=offline)
        self._token_budget = token_budget
        self._max_text_bytes = max_text_bytes
        self._layout: AbstractContextManager[None] | None = None
        self._computing = threading.RLock()  # the layout, what `states` takes, and the counts belong to one thread
        self._tokens_kept = 0  # computed since freed memory was last returned
        #: Number of texts so far without a prediction, because they were empty.
        self.empty = 0
        #: Texts seen so far that are longer than the model's ``max_windows`` windows or than ``max_text_bytes``; their
        #: rest was not read.
        self.truncated = 0

    def __reduce__(self) -> tuple[Callable[[], Predictor], tuple[()]]:
        """Pickled as the model's path and the arguments: who unpickles it loads the model, in its own precision."""
        return partial(Predictor, **self._given), ()

    def _continue_after_fork(self) -> None:
        """In a forked process, compute with one thread: those of torch and of the tokenizer stayed with the parent.

        A parallel region would wait for them for ever.
        """
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._computing = threading.RLock()  # a thread of the parent may hold the old one
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        if self._onnx is not None:
            self._onnx = OnnxBackend(self._onnx.directory, device=self._given["device"])
        elif self._compute.device.type == "cpu":
            import torch

            torch.set_num_threads(1)
        else:
            raise ModelError(
                f"a forked process cannot use the {self._compute.device.type} device of its parent",
                hint="Start processes with the method spawn, or load the model in each.",
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The predicted labels, in the order of the probabilities, which is the model's."""
        return tuple(self.info.labels[place] for place in self._answers)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that predictions depend on, as plain values: if equal, so are predictions on the same machine."""
        info = self.info
        how = self._onnx.kind if self._onnx is not None else self._compute.describe()
        return {
            "weights": [info.weights_sha256, info.encoder_fingerprint, info.temperature],
            "texts": [info.normalizer, info.max_length, info.max_windows],
            "labels": list(self.labels),
            "compute": [how, self._token_budget],
        }

    @cached_property
    def chunk(self) -> int:
        """Maximum number of texts computed together; depends on the model and the kind of device alone."""
        if self._onnx is not None:
            return _ONNX_CHUNK
        if self._compute.device.type != "cpu":
            return _CHUNK
        weights = sum(
            values.numel() for name, values in self._classifier.named_parameters() if "embeddings." not in name
        )
        fitting = min(_CPU_CHUNK, max(_LEAST_CHUNK, _CHUNK_WORK // weights))
        return 1 << (fitting.bit_length() - 1)  # divides the batches that are read

    @property
    def added_columns(self) -> list[str]:
        """The columns that a prediction adds to a table: prediction, score, p_<label> for each label."""
        return [PREDICTION_COLUMN, SCORE_COLUMN, *(f"p_{label}" for label in self.labels)]

    @overload
    def predict(self, texts: str) -> Prediction: ...  # type: ignore[overload-overlap]  # a str is an Iterable of str too

    @overload
    def predict(self, texts: Iterable[str | None]) -> list[Prediction]: ...

    def predict(self, texts: str | Iterable[str | None]) -> Prediction | list[Prediction]:
        """Predictions in input order; for a single str, one prediction.

        Raises DataError for a text that is neither str nor null, with its position and type, and for a DataFrame, a
        mapping or bytes.
        """
        if isinstance(texts, str):
            return self.prediction(self.compute(self.prepare([texts]))[0])
        return list(self.stream(texts))

    def stream(self, texts: Iterable[str | None], *, chunk: int | None = None) -> Iterator[Prediction]:
        """Yield predictions in input order; at most ``chunk`` texts are in memory.

        Raises DataError as `predict`, when it reaches such a text.
        """
        _check_several(texts)
        source = iter(texts)
        done = 0
        while part := list(islice(source, chunk or self.chunk)):
            for row in self.compute(self.prepare(part, first=done)):
                yield self.prediction(row)
            done += len(part)

    def predict_proba(self, texts: Sequence[str | None]) -> np.ndarray:
        """Probabilities (N, C) float32, columns in the order of ``labels``; NaN for an empty text.

        Raises DataError as `predict`, and for a single str.
        """
        _check_several(texts)
        texts = list(texts)
        parts = [
            self.compute(self.prepare(texts[start : start + self.chunk], first=start))
            for start in range(0, len(texts), self.chunk)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.labels)), dtype=np.float32)

    @overload
    def explain(self, texts: str, *, label: str | None = None, method: Method = ...) -> Explanation: ...  # type: ignore[overload-overlap]

    @overload
    def explain(
        self,
        texts: Iterable[str | None],
        *,
        label: str | Sequence[str | None] | None = None,
        method: Method = ...,
        progress: Callable[[int], object] = ...,
    ) -> list[Explanation]: ...

    def explain(
        self,
        texts: str | Iterable[str | None],
        *,
        label: str | Sequence[str | None] | None = None,
        method: Method = "gradients",
        progress: Callable[[int], object] = lambda texts: None,
    ) -> Explanation | list[Explanation]:
        """Why texts get their labels: the words of each, with signed weights; of a single str, the one explanation.

        Args:
            label: what to explain, one label for all texts or one for each; None is the predicted one.
            method: ``gradients`` (integrated gradients) or ``attention`` (of the head, never negative).
            progress: called with the number of distinct texts that are done.

        Raises:
            ModelError: the model is an ONNX export, which has no gradients, or its tokenizer knows no places.
            LabelError: the model does not answer with the label, or the number of labels is not that of the texts.
            DataError: as `predict`, or there is no such method.
        """
        if isinstance(texts, str):
            return self.explain([texts], label=label, method=method)[0]
        if self._onnx is not None:
            raise ModelError(
                "an ONNX export cannot be explained: it has neither gradients nor attention",
                hint="Use the model that it was exported from.",
            )
        from sentiment_hybrid.engine.inference.explanations import Explainer

        _check_several(texts)
        self._continue_after_fork()
        cleaned = [self._normalizer(_text(value, at)) for at, value in enumerate(texts)]
        labels = [label] * len(cleaned) if label is None or isinstance(label, str) else label
        explainer = Explainer(self._classifier, self._tokenizer, self.info, list(self._answers), self._compute)
        with self._compute.borrowed():
            return explainer.explain(cleaned, labels, method=method, progress=progress)

    def prepare(self, texts: Sequence[object], *, first: int = 0) -> PreparedTexts:
        """Clean and tokenise, each distinct text once; may run in another thread, ahead of `compute`.

        ``first`` is the number of preceding texts, for errors. Raises DataError as `predict`.
        """
        self._continue_after_fork()
        read: list[str | None] = [_text(value, first + at) for at, value in enumerate(texts)]
        short = Limit(self._max_text_bytes)(read)
        cleaned = self._normalizer.many([text or "" for text in short])
        distinct = {text: place for place, text in enumerate(dict.fromkeys(text for text in cleaned if text))}
        rows = np.array([at for at, text in enumerate(cleaned) if text], dtype=np.int64)
        places = np.array([distinct[cleaned[at]] for at in rows], dtype=np.int64)
        tokenized = tokenize(
            list(distinct), self._tokenizer, max_length=self.info.max_length, max_windows=self.info.max_windows
        )
        shortened = np.array([short[at] is not read[at] for at in rows], dtype=bool)
        return PreparedTexts(len(texts), rows, places, shortened, tokenized)

    def compute(self, prepared: PreparedTexts, *, progress: Callable[[int], object] = lambda texts: None) -> np.ndarray:
        """Probabilities (N, C) of the texts of `prepare`, as `predict_proba` gives them.

        ``progress`` is called with the number of distinct texts that are done.
        """
        self._continue_after_fork()
        result = np.full((prepared.size, len(self.labels)), np.nan, dtype=np.float32)
        with self._computing:
            self.empty += prepared.size - len(prepared.rows)
            self.truncated += int(self.is_cut(prepared).sum())
            if not len(tokenized := prepared.tokenized):
                return result
            if self._onnx is not None:
                found = softmax(self._onnx.logits(tokenized, token_budget=self._token_budget, progress=progress))
            else:
                from sentiment_hybrid.engine.inference.evaluate import predict_probabilities

                with self._compute.borrowed():
                    if self._layout is None:
                        # Permanently, even for a few texts: without it, the kernels of each new length take memory.
                        self._layout = self._compute.layout(self._classifier.encoder)
                        self._layout.__enter__()
                    found = predict_probabilities(
                        self._classifier, tokenized, compute=self._compute, token_budget=self._token_budget,
                        progress=progress,
                    )  # fmt: skip
                self._return_freed(tokenized.ids.size)
        if result.shape[1] < found.shape[1]:
            found = among(found, self._answers)
        result[prepared.rows] = found[prepared.places]
        return result

    def _return_freed(self, tokens: int) -> None:
        """After every `_RETURN_AFTER` tokens on a CPU, return freed memory to the system."""
        self._tokens_kept += tokens
        if self._tokens_kept >= _RETURN_AFTER and self._compute.device.type == "cpu":
            from sentiment_hybrid.engine import memory

            self._tokens_kept = 0
            memory.return_freed()

    def is_cut(self, prepared: PreparedTexts) -> np.ndarray:
        """Which texts are longer than the model or ``max_text_bytes`` reads, (N,) bool."""
        tokenized = prepared.tokenized
        full = self.info.max_length * self.info.max_windows
        cut = (tokenized.lengths == full) & (tokenized.truncated > 0)  # (M,)
        result = np.zeros(prepared.size, dtype=bool)
        result[prepared.rows] = cut[prepared.places] | prepared.shortened
        return result

    def check_states(self) -> None:
        """Raises ModelError if the model is an ONNX export, which gives probabilities and no `states`."""
        if self._onnx is not None:
            raise ModelError(
                "an ONNX export has no token states, from which different rows are chosen",
                hint="Use the model that it was exported from, or leave out --spread.",
            )

    def states(self, texts: Sequence[str | None]) -> np.ndarray:
        """Mean token states of the encoder, (N, H) float32; NaN for an empty text.

        Raises:
            ModelError: the model is an ONNX export, which gives probabilities alone.
            DataError: as `predict`.
        """
        self.check_states()
        from sentiment_hybrid.engine.inference.evaluate import pooled, pooling, predict_probabilities

        _check_several(texts)
        prepared = self.prepare(list(texts))
        result = np.full((prepared.size, self._classifier.encoder.hidden_size), np.nan, dtype=np.float32)
        if not len(prepared.rows):
            return result
        with self._computing, self._compute.borrowed(), pooling(self._classifier):
            found = predict_probabilities(
                self._classifier,
                prepared.tokenized,
                compute=self._compute,
                token_budget=self._token_budget,
                take=pooled,
            )
        result[prepared.rows] = found[prepared.places]
        return result

    def predict_frame(
        self, frame: pd.DataFrame, text_column: str | None = None, *, prefix: str | None = None
    ) -> pd.DataFrame:
        """A copy of the frame with the columns ``prediction``, ``score`` and ``p_<label>``; same rows and index.

        Empty texts get nulls.

        Args:
            frame: the texts, and any other columns.
            text_column: None is the column of the training data, else detected by name, as by ``senthy data``.
            prefix: of the added columns; None is none, or ``senthy_`` if the frame has one of those names.

        Raises:
            ColumnError: no such column, or the frame also has one of those names with the prefix.
            DataError: as `predict`.
        """
        names = [str(name) for name in frame.columns]
        try:
            chosen = columns.find_text(names, text_column, source="the DataFrame", trained_on=self.info.text_column)
            added = self.columns_beside(names, prefix=prefix)
        except ColumnError as error:
            if "--" in error.hint:  # options of the command line
                error.hint = "text_column= names the column of texts, prefix= begins the names of the added ones."
            raise
        if names.count(chosen) > 1:
            raise ColumnError(f"the DataFrame has several columns called {chosen!r}", hint="Rename all but one.")
        probabilities = self.predict_proba(frame.iloc[:, names.index(chosen)].tolist())
        result = frame.copy()
        for name, values in self.columns_of(probabilities, added).items():
            result[name] = values
        return result

    def columns_beside(
        self, present: Sequence[str], *, prefix: str | None = None, more: Sequence[str] = ()
    ) -> list[str]:
        """Names of the added columns, and ``more`` behind them, beside those of a table.

        ``prefix``: None is none, or ``senthy_`` if the table has a column with such a name, ignoring case, as SQL
        does.
        """
        taken = {name.casefold() for name in present}
        for start in [prefix] if prefix is not None else ["", PREFIX]:
            names = [f"{start}{name}" for name in (*self.added_columns, *more)]
            if not (clash := [name for name in names if name.casefold() in taken]):
                return names
        raise ColumnError(
            f"the input already has {columns.listed(clash)}, and a prediction adds {columns.listed(names)}",
            hint="Choose another prefix, e.g. --prefix model_.",
        )

    def columns_of(self, probabilities: np.ndarray, added: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The added columns of probabilities (N, C), each (N,): labels as objects, None without a prediction.

        ``added`` are their names, by default `added_columns`.
        """
        names = np.array([*self.labels, None], dtype=object)
        missing = np.isnan(probabilities).any(axis=1)
        # argmax and max over NaN would warn, or pick a class.
        best = np.where(missing, len(self.labels), np.nan_to_num(probabilities).argmax(axis=1))
        values: list[np.ndarray] = [names[best], probabilities.max(axis=1, initial=-np.inf), *probabilities.T]
        return dict(zip(added or self.added_columns, values, strict=True))

    def prediction(self, row: np.ndarray) -> Prediction:
        """The prediction of one row (C,) of `compute`."""
        if np.isnan(row[0]):
            return Prediction(None, None, {})
        best = int(row.argmax())
        probabilities = dict(zip(self.labels, (float(value) for value in row), strict=True))
        return Prediction(self.labels[best], probabilities[self.labels[best]], probabilities)


def published(models_dir: Path, head: str | None = None) -> Path:
    """The published model of a head, or of the first head that has one: lstm, han, linear.

    Raises ModelError if there is none.
    """
    heads = list(HEADS) if head is None else [head]
    for name in heads:
        directory = recover(paths.published_model(models_dir, name))
        if directory.is_dir():
            return directory
    if head is not None:
        raise no_model(paths.published_model(models_dir, head))
    looked_for = " or ".join(paths.published_model(models_dir, name).name for name in heads)
    raise ModelError(
        f"no trained model: there is no {looked_for} in {models_dir}",
        hint="Train one first (senthy train), or name another directory, or mini (--load-model-path).",
    )


def newest(models_dir: Path) -> list[Path]:
    """Model directories in ``models_dir``, trained or fine-tuned, the newest first; without exports."""
    models_dir = models_dir.expanduser()
    known = [place(models_dir, name) for place in (paths.published_model, paths.finetuned_model) for name in HEADS]
    others = sorted(models_dir.glob("[!.]*")) if models_dir.is_dir() else []
    places = dict.fromkeys([*map(recover, known), *others])
    found = [place for place in places if (place / paths.MODEL_WEIGHTS).is_file()]
    return sorted(found, key=_created, reverse=True)


def _created(directory: Path) -> datetime:
    """The creation time of a model; the distant past if unknown."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads((directory / paths.MODEL_JSON).read_text(encoding="utf-8"))
        return datetime.fromisoformat(document["created"]).astimezone(UTC)
    return datetime.min.replace(tzinfo=UTC)


def mini(head: str | None = None) -> Path:
    """The model that ships in the package: of this head, or its best."""
    return paths.mini_dir() / (head or _MINI_HEAD)


def model_directory(name: Path | str) -> Path:
    """The directory of a model: a path, or ``mini``, ``mini-lstm``, ``mini-han``.

    A directory of that name in the working directory takes precedence.
    """
    path = recover(Path(name).expanduser())
    first, dash, head = str(name).partition("-")
    if first == paths.MINI and not path.is_dir():
        if not dash:
            return mini()
        if mini(head).is_dir():
            return mini(head)
    return path


def _text(value: object, place: int) -> str:
    """The text for the normaliser; null is the empty text."""
    if isinstance(value, str):
        if value.isascii():
            return value
        # Tokenizers reject lone surrogates (a damaged emoji, an undecodable argument).
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    is_nan = isinstance(value, float | np.floating) and np.isnan(value)
    if value is None or is_nan or type(value).__name__ in {"NAType", "NaTType"}:  # pandas' own, without importing it
        return ""
    raise DataError(
        f"text {place + 1:,} is {type(value).__name__} {repr(value)[:60]}, not a str",
        hint="Pass str; None stands for a missing text.",
    )


def _check_several(texts: object) -> None:
    """Raise DataError for what would be read as its letters, its keys or the names of its columns."""
    if isinstance(texts, str):
        raise DataError(
            f"expected several texts, not one str ({texts[:40]!r})",
            hint="Pass a list, or call predict(text).",
        )
    kind = type(texts).__name__
    if isinstance(texts, bytes | bytearray | Mapping) or kind == "DataFrame":
        raise DataError(
            f"expected several texts, not one {kind}",
            hint="Pass a list of str or a column of a table; predict_frame takes a whole DataFrame.",
        )
