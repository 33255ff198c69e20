"""Measures the speed of this machine with a config: a few real texts are encoded, trained on, and predicted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import set_seed

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.store import Examples
from sentiment_hybrid.engine.device import Compute, resolve
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.engine.training.events import EpochEvent, StepEvent
from sentiment_hybrid.engine.training.prepare import new_trainer, open_session
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.models.encoder.hub import LoadedEncoder

_FIRST = 16  # texts of the first measurement; each further one has twice as many
#: Learning rates that leave the encoder's weights practically unchanged, and no end.
_STANDSTILL = {"learning_rate": 1e-9, "encoder_learning_rate": 1e-9, "weight_decay": 0.0}
_ENDLESS = {"epochs": 10_000, "patience": None, "class_weights": "none"}


@dataclass(frozen=True)
class Rate:
    """Tokens (special ones included, padding not) and texts per second of one kind of work."""

    work: str
    precision: str
    tokens: float
    texts: float


@dataclass(frozen=True)
class Probe:
    """Measures one config on some texts.

    Args:
        loaded: the encoder; training changes its weights only by rounding.
        examples: texts with labels; a few thousand suffice.
        seconds: approximate duration of each measurement; at least one step or batch.
        folder: a temporary folder for token states.
    """

    config: Config
    model: str
    loaded: LoadedEncoder
    examples: Examples
    names: tuple[str, ...]
    compute: Compute
    seconds: float
    folder: Path

    def training(self, precision: str) -> list[Rate]:
        """Rates of ``encode`` (storing token states, where the config allows it), ``train`` and ``validate``.

        Raises:
            OutputError: no states can be written into ``folder``.
        """
        session = self._session(precision)
        rates, rows = [], min(len(self.examples), self.config.training(self.model).batch_size)
        if session.states is not None:
            encoding, stored = self._growing("encode", session, partial(_encode, session))
            rates, rows = [encoding], max(rows, stored)
        part = slice(0, rows)
        training, validation = self._epochs(session, part)
        return [*rates, self._rate("train", session, part, training), self._rate("validate", session, part, validation)]

    def prediction(self, precision: str) -> list[Rate]:
        """The rate of ``predict``: cleaned texts in, probabilities out, nothing stored."""
        session = self._session(precision)

        def probabilities(texts: list[str]) -> None:
            tokenized = session.tokenize(texts)
            predict_probabilities(
                session.classifier, tokenized, compute=session.compute, token_budget=session.token_budget
            )

        with session.compute.layout(session.classifier.encoder, tokens=sum(map(len, self.examples.texts))):
            return [self._growing("predict", session, probabilities)[0]]

    def _session(self, precision: str) -> Session:
        set_seed(self.config.project.seed)
        return open_session(
            self.config.changed({"cache.max_gb": None}),  # the user's limit is for the user's folder
            self.model,
            self.loaded,
            num_classes=len(self.names),
            compute=resolve(str(self.compute.device), precision),
            cache=self.folder,
        )

    def _growing(self, work: str, session: Session, do: Callable[[list[str]], object]) -> tuple[Rate, int]:
        """Process twice as many new texts in each round until a round takes long enough.

        Returns the rate of the last round, and the number of texts used.
        """
        texts, size, took = self.examples.texts, _FIRST, 0.0
        start = min(_FIRST, len(texts) // 2)
        do(texts[: max(1, start)])  # warm-up, not measured
        while took < self.seconds / 2 and start < len(texts):
            part = slice(start, min(start + size, len(texts)))
            began = time.perf_counter()
            do(texts[part])
            took = time.perf_counter() - began
            start, size = part.stop, 2 * size
        return self._rate(work, session, part, took), part.stop

    def _epochs(self, session: Session, part: slice) -> tuple[float, float]:
        """Mean seconds of the steps and of the validation of an epoch, on the same texts, after a warm-up epoch."""
        training: list[float] = []
        validation: list[float] = []
        mark = time.perf_counter()
        for event in self._fit(session, part).events():
            if isinstance(event, EpochEvent) or (isinstance(event, StepEvent) and event.step == event.steps):
                if session.compute.device.type != "cpu":
                    torch.accelerator.synchronize()
                took = validation if isinstance(event, EpochEvent) else training
                took.append(time.perf_counter() - mark)
                mark = time.perf_counter()
            if len(validation) > 1 and sum(training) + sum(validation) >= self.seconds:
                break
        return statistics.mean(training[1:]), statistics.mean(validation[1:])

    def _fit(self, session: Session, part: slice) -> Trainer:
        dataset = session.dataset(self.examples.texts[part], self.examples.labels[part])
        settings = self.config.training(self.model).changed({**_STANDSTILL, **_ENDLESS})
        seed = self.config.project.seed
        return new_trainer(session, dataset, dataset, settings=settings, labels=self.names, seed=seed)

    def _rate(self, work: str, session: Session, part: slice, seconds: float) -> Rate:
        lengths = session.tokenize(self.examples.texts[part]).lengths
        return Rate(work, session.compute.precision, int(lengths.sum()) / seconds, len(lengths) / seconds)


def _encode(session: Session, texts: list[str]) -> None:
    assert session.states is not None
    if session.states.ensure(session.tokenize(texts), token_budget=session.token_budget) is None:
        raise OutputError(f"no token states can be stored: {session.states.refusal}")
