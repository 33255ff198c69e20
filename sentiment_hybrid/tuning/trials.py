"""One trial: trains a new model with the trial's parameters on the data and encoder that all trials share."""

from __future__ import annotations

import copy
import gc
import hashlib
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import set_seed

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config, Hpo
from sentiment_hybrid.data.store import Examples, Store, open_store
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.inference.session import EncodedDataset, Session
from sentiment_hybrid.engine.training import prepare
from sentiment_hybrid.engine.training.events import EpochEvent, StepEvent, selection_score
from sentiment_hybrid.engine.training.tasks import weights_of_classes
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import ConfigError, TrainingError
from sentiment_hybrid.models.encoder.hub import LoadedEncoder
from sentiment_hybrid.models.encoder.module import check_max_length
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.space import largest, with_params

_KEPT_TRACEBACK = 4000  # characters, from the end of the traceback
_STEP_SECONDS = 1.0  # between two outcomes that say how far a trial is

#: A context manager for encoding a split by name; its value is the ``progress`` of a StateStore.
Encoding = Callable[[str], AbstractContextManager[Callable[..., object]]]


def _silently(split: str) -> AbstractContextManager[Callable[..., object]]:
    return nullcontext(lambda *windows, **total: None)


@dataclass(frozen=True)
class Outcome:
    """An event of a running trial.

    ``step`` comes now and then and has the epochs that are done, a fraction of one included; ``epoch`` has the
    validation score; ``done`` follows the last epoch. ``unusable`` is caused by the parameters and would occur again;
    ``failed`` is a crash. Both have a text.
    """

    kind: Literal["step", "epoch", "done", "unusable", "failed"]
    value: float = 0.0
    text: str = ""

    @property
    def ends(self) -> bool:
        """Whether it is the last one of its trial."""
        return self.kind not in ("step", "epoch")


class TrialTrainer:
    """The rows, encoder, tokenised texts and stored states that the trials of a search share.

    Reads the training split and the validation split, never the test split.

    Raises:
        SenthyError: the rows or the encoder cannot be loaded, or the search space does not fit the encoder.
    """

    def __init__(self, config: Config, model: str, runtime: Runtime = Runtime()) -> None:
        self.config, self.model = config, model
        self.notes: list[str] = []
        self.runtime = runtime
        with open_store(config.paths.data_db) as store:
            self.labels = store.labels
            self.source, self.fingerprint = store.source, store.fingerprint
            self._rows = self._read(store)
        weights_of_classes(config.model(model).train.class_weights, self._rows[0].labels, self.labels)
        self._encoders: dict[int, LoadedEncoder] = {}
        self._kept: dict[tuple[int, Path | None], tuple[EncodedDataset, EncodedDataset]] = {}
        self.loaded = self._encoder(config)
        self._check_encoder()

    def facts(self) -> dict[str, Any]:
        """The data and encoder of the trials, identified by content."""
        vocabulary = sorted(self.loaded.tokenizer.get_vocab().items())
        return {
            "data": self.fingerprint,
            "train_rows": len(self._rows[0]),
            "valid_rows": len(self._rows[1]),
            "encoder": self.loaded.fingerprint,
            "tokenizer": hashlib.sha256(repr(vocabulary).encode()).hexdigest(),
        }

    def prepare(self, encoding: Encoding = _silently) -> None:
        """Tokenize, and store the states below the trained layers, for all trials and workers."""
        session = self._session(self.config)
        self._datasets(session, encoding)
        self._free()

    def trial_config(self, params: Mapping[str, Any]) -> Config:
        """The config of a trial: its parameters, the search's epochs, and no early stopping besides pruning.

        Raises:
            ConfigError: the combination of parameters is invalid.
        """
        config, train = with_params(self.config, self.model, params), f"{self.model}.train"
        # With early stopping, the pruner would compare late epochs with slow learners only.
        return config.changed({f"{train}.epochs": config.model(self.model).hpo.epochs, f"{train}.patience": None})

    def train(self, params: Mapping[str, Any]) -> Iterator[Outcome]:
        """Train with these parameters; yields each ``epoch``, and a ``step`` once a second. Closing frees memory.

        Raises:
            ConfigError: the combination of parameters is invalid.
            TrainingError: a loss is NaN or infinite.
        """
        trainer: Trainer | None = None
        try:
            config = self.trial_config(params)
            settings = config.model(self.model).train
            # All trials use the same seed for weights and batches, so only the parameters differ.
            set_seed(config.project.seed)
            session = self._session(config)
            train, valid = self._datasets(session)
            trainer = prepare.new_trainer(
                session, train, valid, settings=settings, labels=self.labels, seed=config.project.seed
            )
            del session
            reported = time.monotonic()
            for facts in trainer.events():
                if isinstance(facts, EpochEvent):
                    yield Outcome("epoch", _score(facts, settings.metric))
                elif isinstance(facts, StepEvent) and time.monotonic() - reported >= _STEP_SECONDS:
                    reported = time.monotonic()
                    yield Outcome("step", facts.epoch - 1 + facts.step / facts.steps)
        finally:
            if trainer is not None:
                trainer.accelerator.free_memory()
            trainer = None
            self._free()

    def outcomes(self, params: Mapping[str, Any]) -> Iterator[Outcome]:
        """``train``, with its end and failures as outcomes."""
        return outcomes(lambda: self.train(params))

    def _read(self, store: Store) -> tuple[Examples, Examples]:
        hpo, settings = self.config.model(self.model).hpo, self.config.training(self.model)
        wanted, there = hpo.sample_size, store.count("train")
        # The default is reduced to the size of the split, a chosen size is checked.
        if wanted is not None and wanted > there and wanted == Hpo.model_fields["sample_size"].default:
            self.notes.append(f"trials use all {there:,} training texts, which is fewer than {wanted:,}")
            wanted = None
        train = store.read("train", wanted)
        valid = store.read("valid", prepare.selecting_rows(store, settings, hpo.valid_sample_size))
        prepare.check_rows(train, valid, store.labels, setting=f"{self.model}.hpo.sample_size (--sample-size)")
        return train, valid

    def _encoder(self, config: Config) -> LoadedEncoder:
        """The unmodified encoder; the size of a scratch encoder depends on the window length."""
        key = config.encoder.max_length if config.encoder.name == paths.SCRATCH else 0
        if key not in self._encoders:
            set_seed(config.project.seed)
            texts = self._rows[0].texts
            self._encoders[key] = prepare.load_or_build_encoder(
                config, lambda: texts, offline=self.runtime.offline, place=self.runtime.encoder
            )
        return self._encoders[key]

    def _check_encoder(self) -> None:
        """Refuse a search space that does not fit the encoder, before the first trial."""
        space = self.config.model(self.model).hpo.search_space
        layers = largest(space["trainable_layers"]) if "trainable_layers" in space else None
        most = int(self.loaded.model.config.num_hidden_layers)
        if layers is not None and layers > most:
            raise ConfigError(
                f"{self.model}.hpo.search_space.trainable_layers goes up to {layers:.0f}, but this encoder has "
                f"{most} layers",
                hint=f"Search 0 to {most}, or use choices with all.",
            )
        length = largest(space["max_length"]) if "max_length" in space else None
        if length is not None and self.config.encoder.name != paths.SCRATCH:
            check_max_length(self.loaded.model, int(length), name=self.config.encoder.name)

    def _session(self, config: Config) -> Session:
        loaded = self._encoder(config)
        if config.encoder.trainable_layers != 0:
            loaded = replace(loaded, model=copy.deepcopy(loaded.model))  # training would change it for later trials
        return prepare.open_session(
            config,
            self.model,
            loaded,
            num_classes=len(self.labels),
            compute=device.resolve(self.runtime.device, config.model(self.model).train.precision),
        )

    def _datasets(self, session: Session, encoding: Encoding = _silently) -> tuple[EncodedDataset, EncodedDataset]:
        key = (session.max_length, session.states.folder if session.states else None)
        if key not in self._kept:
            made = []
            for examples in self._rows:
                with encoding(examples.split) as progress:
                    made.append(session.dataset(examples.texts, examples.labels, progress=progress))
            self._kept[key] = (made[0], made[1])
        return self._kept[key]

    @staticmethod
    def _free() -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def settled() -> Iterator[None]:
    """Within, garbage is looked for only among newer objects than those there now, most of them of libraries."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def outcomes(start: Callable[[], Iterator[Outcome]]) -> Iterator[Outcome]:
    """Those of ``start()``, then how they ended; every exception except Ctrl-C becomes an outcome."""
    last = Outcome("done")
    try:
        with closing(start()) as events:  # type: ignore[type-var]
            yield from events
    # These depend on the parameters only, so the same parameters would fail again.
    except (ConfigError, TrainingError) as error:
        last = Outcome("unusable", text=error.message)
    except Exception:  # noqa: BLE001 - the other trials continue in any case
        last = Outcome("failed", text=traceback.format_exc()[-_KEPT_TRACEBACK:])
    if last.kind == "failed":
        TrialTrainer._free()  # again, because the traceback referenced the model
    yield last


def _score(facts: EpochEvent, metric: str) -> float:
    value = selection_score(facts.valid, metric)
    if not math.isfinite(value):
        raise TrainingError(f"the validation {metric} of epoch {facts.epoch} is {value}")
    return value
