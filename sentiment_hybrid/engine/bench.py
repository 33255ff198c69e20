"""How fast this machine works with a config: tokens and texts a second of encoding, training and predicting.

What is measured is what the commands do, on texts that it is given; states and a model go to a folder of the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine import limits
from sentiment_hybrid.engine.batches import TokenizedTexts, tokenize
from sentiment_hybrid.engine.device import resolve
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.training.session import Session, new_trainer, session_for, set_seeds
from sentiment_hybrid.engine.training.trainer import StepEvent, Trainer
from sentiment_hybrid.errors import OutputError, TrainingError
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import LoadedEncoder
from sentiment_hybrid.models.encoder.module import Encoder, encoder_fingerprint

Work = Literal["encode", "validate", "predict", "train"]

#: Texts that a measurement begins with; each further part is larger until one fills the time.
_FIRST = 16
_MOST_GROWTH = 8.0
#: Rows of the products whose rate is the limit: enough for any machine's best, and quick on the slowest.
_PRODUCT_ROWS = {"cpu": 1024, "mps": 4096, "cuda": 16_384}
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
#: So small that the weights stay where they are, however long is measured.
_STANDSTILL = 1e-9


@dataclass(frozen=True)
class Rate:
    """Tokens (real ones, no padding) and texts a second of one kind of work.

    ``share`` is that of the best rate of the encoder's matrix products in this process; None where they are not what
    the work consists of.
    """

    work: Work
    precision: str
    tokens: float
    texts: float
    share: float | None = None


@dataclass
class Bench:
    """Measures one config on some texts.

    Args:
        config, model: what is measured.
        loaded: its encoder; measuring training leaves its weights as they are but for rounding.
        texts: real ones, cleaned, each once; up to a few thousand.
        labels: their labels, (N,).
        names: the labels' names.
        device: as ``--device`` gives it.
        seconds: of each measurement, about; one step or one batch is the least.
        folder: where states and a model may be written; what is measured first is not to be found there.
        place: where a copy of the encoder lies that the config names.
    """

    config: Config
    model: str
    loaded: LoadedEncoder
    texts: Sequence[str]
    labels: np.ndarray
    names: tuple[str, ...]
    device: str
    seconds: float
    folder: Path
    place: str | Path | None = None
    _stored: dict[str, int] = field(default_factory=dict)
    _ceilings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokenized = tokenize(
            self.texts,
            self.loaded.tokenizer,
            max_length=self.config.encoder.max_length,
            max_windows=self.config.encoder.max_windows,
        )
        self._finish = limits.finisher(resolve(self.device, "fp32").device)

    def precisions(self) -> tuple[str, ...]:
        """Those that this device computes well in: fp32, and what ``auto`` takes."""
        return tuple(dict.fromkeys(("fp32", resolve(self.device).precision)))

    def predict_precisions(self) -> tuple[str, ...]:
        """The same, and int8 where this device has products of it."""
        try:
            return (*self.precisions(), resolve(self.device, "int8").precision)
        except TrainingError:
            return self.precisions()

    def encode(self, precision: str) -> Rate:
        """Of filling the state store: token ids in, states of a frozen encoder on disk."""
        session = self._session(precision, frozen=True)
        assert session.states is not None
        store = session.states
        part, seconds = self._grown(
            lambda part: store.ensure(self._tokens_of(part, session), token_budget=session.token_budget)
        )
        if store.passes == 0:
            raise OutputError(f"no states could be written into {store.folder}", hint="Is there room for them?")
        self._stored[precision] = part.stop
        return self._rate("encode", precision, part, seconds, of_encoder=True)

    def validate(self, precision: str) -> Rate:
        """Of judging a model while it trains: over stored states where there are any, else through the encoder."""
        session = self._session(precision)

        def probabilities(tokenized: TokenizedTexts, **states: Any) -> None:
            predict_probabilities(
                session.classifier,
                tokenized,
                compute=session.compute,
                token_budget=session.token_budget,
                **states,
            )

        if session.states is None:
            part, seconds = self._grown(lambda part: probabilities(self._tokens_of(part, session)))
            return self._rate("validate", precision, part, seconds, of_encoder=True)
        part = slice(0, self._stored.get(precision, _FIRST))
        dataset = session.dataset(self.texts[part], self.labels[part])
        probabilities(dataset.tokenized, states=dataset.states)
        seconds = self._repeated(lambda: probabilities(dataset.tokenized, states=dataset.states))
        return self._rate("validate", precision, part, seconds)

    def predict(self, precision: str) -> Rate:
        """Of ``senthy predict``: raw texts in, probabilities out."""
        from sentiment_hybrid.engine.inference.predictor import Predictor

        bundled = self.loaded.source == "scratch"
        predictor = Predictor(
            self._saved(bundle=bundled),
            device=self.device,
            encoder=None if bundled else self.place,
            offline=True,
            token_budget=self._settings.token_budget,
            precision=precision,
        )
        part, seconds = self._grown(lambda part: predictor.predict_proba(self.texts[part]))
        return self._rate("predict", precision, part, seconds, of_encoder=True)

    def train(self, precision: str, *, config: Config | None = None) -> Rate:
        """Of optimiser steps: of the head over stored states, and of the layers that the config trains.

        ``config`` is another one than the bench's own that differs in the head alone.
        """
        session = self._session(precision, config=config)
        per_step = self._settings.batch_size * self._settings.accumulation
        first = slice(0, min(per_step, len(self.texts)))
        trainer = self._fit(session, first)
        self._epochs(trainer, 0.0)  # what is done once, at the first step, is not counted
        seconds = self._epochs(trainer, 0.0)
        steps = int(self.seconds / 2 / seconds)
        if steps > 1:
            most = self._stored.get(precision, first.stop) if session.states is not None else len(self.texts)
            first = slice(0, max(first.stop, min(steps * per_step, most)))
            seconds = self._epochs(self._fit(session, first), self.seconds)
        return self._rate("train", precision, first, seconds, passes=self._training_passes(session))

    def ceiling(self, precision: str) -> float | None:
        """The best rate of the encoder's own matrix products in this process, FLOP/s; None for int8."""
        if precision not in _DTYPES:
            return None
        if precision not in self._ceilings:
            device = resolve(self.device, "fp32").device
            shapes = limits.encoder_shapes(_PRODUCT_ROWS[device.type], **self._widths())
            self._ceilings[precision] = limits.matmul_rate(
                shapes, _DTYPES[precision], min(self.seconds, 2.0), device=device
            )
        return self._ceilings[precision]

    @property
    def _settings(self) -> Any:
        return self.config.model(self.model).train

    def _session(self, precision: str, *, frozen: bool = False, config: Config | None = None) -> Session:
        """As `open_session`, over this bench's own folder, in which no budget of the user's holds."""
        config = config or self.config
        set_seeds(config.project.seed)
        shared = Encoder(self.loaded.model, 0 if frozen else config.encoder.trainable_layers)
        head = config.model(self.model).head
        return session_for(
            Classifier(
                shared, build_head(self.model, head, input_size=shared.hidden_size, num_classes=len(self.names))
            ),
            self.loaded,
            compute=resolve(self.device, precision),
            cache=self.folder / "cache",
            token_budget=self._settings.token_budget,
            max_length=config.encoder.max_length,
            max_windows=config.encoder.max_windows,
        )

    def _tokens_of(self, part: slice, session: Session) -> TokenizedTexts:
        return session.tokenize(self.texts[part])

    def _fit(self, session: Session, part: slice) -> Trainer:
        still = {"learning_rate": _STANDSTILL, "encoder_learning_rate": _STANDSTILL, "weight_decay": 0.0}
        endless = {"epochs": 10_000, "patience": None, "class_weights": "none"}
        return new_trainer(
            session,
            session.dataset(self.texts[part], self.labels[part]),
            None,
            settings=self._settings.model_copy(update={**still, **endless}),
            labels=self.names,
            seed=self.config.project.seed,
        )

    def _epochs(self, trainer: Trainer, seconds: float) -> float:
        """Seconds of an epoch: whole ones are run, because the texts of a step are alike, until the time is up."""
        started, epochs = time.perf_counter(), 0
        for facts in trainer.events():
            if isinstance(facts, StepEvent) and facts.step == facts.steps:
                epochs += 1
                self._finish()
                if time.perf_counter() - started >= seconds:
                    break
        return (time.perf_counter() - started) / epochs

    def _repeated(self, work: Callable[[], object]) -> float:
        """Seconds of a run, over as many as the time allows."""
        started, runs = time.perf_counter(), 0
        while runs == 0 or time.perf_counter() - started < self.seconds:
            work()
            self._finish()
            runs += 1
        return (time.perf_counter() - started) / runs

    def _grown(self, work: Callable[[slice], object]) -> tuple[slice, float]:
        """Run ``work`` on ever larger parts of the texts, each of them new; the longest run, and its seconds."""
        count, size = len(self.texts), min(_FIRST, len(self.texts))
        work(slice(0, size))  # what is done once, at the first batch, is not counted
        self._finish()
        start = size if size < count else 0
        longest, most = slice(0, size), 0.0
        while start < count:
            part = slice(start, min(start + size, count))
            started = time.perf_counter()
            work(part)
            self._finish()
            took = time.perf_counter() - started
            if took >= most:
                longest, most = part, took
            if took >= self.seconds / 2:
                break
            start, size = part.stop, int(size * max(2.0, min(_MOST_GROWTH, 0.8 * self.seconds / max(took, 1e-9))))
        return longest, most

    def _rate(
        self, work: Work, precision: str, part: slice, seconds: float, *, of_encoder: bool = False, passes: float = 0.0
    ) -> Rate:
        count = len(range(*part.indices(len(self.texts))))
        tokens = int(self.tokenized.lengths[part].sum())
        passes = float(self._layers()) if of_encoder else passes
        ceiling = self.ceiling(precision) if passes else None
        flops = passes * limits.encoder_flops(tokens, **self._widths(), layers=1)
        return Rate(work, precision, tokens / seconds, count / seconds, flops / seconds / ceiling if ceiling else None)

    def _training_passes(self, session: Session) -> float:
        """Forward passes of one encoder layer that a token's training costs; a backward pass counts as two."""
        trained = self.config.encoder.trainable_layers
        layers = self._layers()
        trained = layers if trained == "all" else int(trained)
        live = trained if session.states is not None else layers
        return float(live + 2 * trained)

    def _widths(self) -> dict[str, int]:
        facts = self.loaded.model.config
        # The other families' names for the same width; four times as wide where nobody says.
        wide = getattr(facts, "intermediate_size", None) or getattr(facts, "hidden_dim", None) or 4 * facts.hidden_size
        return {"hidden": int(facts.hidden_size), "intermediate": int(wide)}

    def _layers(self) -> int:
        return int(self.loaded.model.config.num_hidden_layers)

    def _saved(self, *, bundle: bool) -> Path:
        """A model directory of a fresh head on this encoder; saved once."""
        from sentiment_hybrid.data.normalizers import get_normalizer
        from sentiment_hybrid.engine.inference.model_directory import ModelInfo, save_model
        from sentiment_hybrid.engine.training.runs import now

        directory = self.folder / "model"
        if directory.is_dir():
            return directory
        encoder, loaded = self.config.encoder, self.loaded
        cleaned = self.config.data.normalizer  # the classic one would need data of its own, and is for comparison only
        info = ModelInfo(
            head=self.model,
            head_config=self.config.model(self.model).head.model_dump(mode="json"),
            labels=self.names,
            normalizer=get_normalizer("none" if cleaned == "classic" else cleaned).id,
            max_length=encoder.max_length,
            max_windows=encoder.max_windows,
            encoder_name=encoder.name,
            encoder_revision=loaded.revision,
            encoder_fingerprint=encoder_fingerprint(loaded.model) if bundle else loaded.fingerprint,
            encoder_inside=bundle,
            trainable_layers=0,
            data_fingerprint="",
            split_fingerprint="",
            train_fingerprint="",
            run_id="bench",
            created=now(),
            train_rows=0,
        )
        classifier = self._session("fp32", frozen=True).single
        save_model(directory, classifier=classifier, encoder=loaded, info=info, bundle=bundle)
        return directory
