"""One trial: a fresh model with the trial's parameters, trained by the shared loop on what all trials share."""

from __future__ import annotations

import copy
import gc
import hashlib
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config, Hpo
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.training.prepare import load_or_build_encoder, new_trainer, open_session, set_seeds
from sentiment_hybrid.engine.training.trainer import EpochEvent, selection_score, weights_of_classes
from sentiment_hybrid.errors import ConfigError, DataError, TrainingError
from sentiment_hybrid.models.encoder.hub import SCRATCH
from sentiment_hybrid.models.encoder.module import check_max_length
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.space import largest, with_params

if TYPE_CHECKING:
    from sentiment_hybrid.data.store import Examples, Store
    from sentiment_hybrid.engine.inference.session import EncodedDataset, Session
    from sentiment_hybrid.engine.training.trainer import Trainer
    from sentiment_hybrid.models.encoder.hub import LoadedEncoder

_KEPT_TRACEBACK = 4000  # characters: where it failed stands at the end

#: Tells that a split is being encoded: given its name, a context whose value hears of every batch of windows.
Encoding = Callable[[str], AbstractContextManager[Callable[[int], object]]]


@dataclass(frozen=True)
class Outcome:
    """What a running trial tells.

    ``epoch`` comes with the validation score, ``done`` after the last one. ``unusable`` is the parameters' own fault
    and would come again, ``failed`` is a crash; both come with a text.
    """

    kind: Literal["epoch", "done", "unusable", "failed"]
    value: float = 0.0
    text: str = ""


class TrialBench:
    """What the trials of a search share: rows, encoder, tokenised texts, stored states; each gets a model of its own.

    Reads the training split and the validation split, never the test split.

    Args:
        config: the whole configuration.
        model: ``lstm``, ``han`` or ``linear``.
        runtime: where to compute, and where the encoder is.
        loaded: that encoder, where the caller has it already.

    Raises:
        SenthyError: the rows or the encoder cannot be had, or the space asks for what the encoder has not.
    """

    def __init__(
        self,
        config: Config,
        model: str,
        runtime: Runtime = Runtime(),
        *,
        loaded: LoadedEncoder | None = None,
    ) -> None:
        self.config, self.model = config, model
        self.notes: list[str] = []
        self._runtime = runtime
        with open_store(config.paths.data_db) as store:
            self.labels = store.labels
            self.fingerprint = store.fingerprint
            self._rows = self._read(store)
        weights_of_classes(config.model(model).train.class_weights, self._rows[0].labels, self.labels)
        self._encoders: dict[int, LoadedEncoder] = {}
        self._kept: dict[tuple[int, Path | None], tuple[EncodedDataset, EncodedDataset]] = {}
        self.loaded = loaded or self._encoder(config)
        self._check_encoder()

    def facts(self) -> dict[str, Any]:
        """What trials are made of besides settings: rows and encoder, by content, wherever they lie."""
        vocabulary = sorted(self.loaded.tokenizer.get_vocab().items())
        return {
            "data": self.fingerprint,
            "train_rows": len(self._rows[0]),
            "valid_rows": len(self._rows[1]),
            "encoder": self.loaded.fingerprint,
            "tokenizer": hashlib.sha256(repr(vocabulary).encode()).hexdigest(),
        }

    def prepare(self, encoding: Encoding = lambda split: nullcontext(lambda windows: None)) -> None:
        """Tokenise, and store the states below what is trained, so that no trial has to and workers find them."""
        session = self._session(self.config)
        self._datasets(session, encoding)
        self._free()

    def trial_config(self, params: Mapping[str, Any]) -> Config:
        """The config of a trial: its parameters, the search's epochs, and no early stopping but the pruner's.

        Raises:
            ConfigError: the parameters do not go together.
        """
        config = with_params(self.config, self.model, params)
        section = config.model(self.model)
        # Were trials to stop by themselves, the pruner would compare late epochs with the slow learners alone.
        settings = section.train.model_copy(update={"epochs": section.hpo.epochs, "patience": None})
        return config.model_copy(update={self.model: section.model_copy(update={"train": settings})})

    def epochs(self, params: Mapping[str, Any]) -> Iterator[float]:
        """Train with these parameters; yields the validation score of each epoch. Closing it frees the memory.

        Raises:
            ConfigError: the parameters do not go together.
            TrainingError: a loss is not a number.
        """
        trainer: Trainer | None = None
        try:
            config = self.trial_config(params)
            settings = config.model(self.model).train
            # Only the parameters differ: every trial draws its weights and batches from the same seed.
            set_seeds(config.project.seed)
            session = self._session(config)
            train, valid = self._datasets(session)
            trainer = new_trainer(
                session, train, valid, settings=settings, labels=self.labels, seed=config.project.seed
            )
            del session
            for facts in trainer.events():
                if isinstance(facts, EpochEvent):
                    yield _goodness(facts, settings.metric)
        finally:
            if trainer is not None:
                trainer.accelerator.free_memory()
            trainer = None
            self._free()

    def outcomes(self, params: Mapping[str, Any]) -> Iterator[Outcome]:
        """``epochs``, with its end and its failures as outcomes too."""
        return outcomes(lambda: self.epochs(params))

    def _read(self, store: Store) -> tuple[Examples, Examples]:
        hpo = self.config.model(self.model).hpo
        train = store.read("train", self._affordable(hpo, store.count("train")))
        wanted = hpo.valid_sample_size
        valid = store.read("valid", None if wanted is None else min(wanted, store.count("valid")))
        for examples in (train, valid):
            if len(examples) == 0:
                raise DataError(
                    f"the {examples.split} split is empty", hint="Prepare more texts, or raise data.valid_size."
                )
        if len(set(train.labels.tolist())) < len(store.labels):
            raise TrainingError(
                f"the {len(train):,} training texts of a trial do not have every label of {', '.join(store.labels)}",
                hint=f"Raise {self.model}.hpo.sample_size (--sample-size).",
            )
        return train, valid

    def _affordable(self, hpo: Hpo, there: int) -> int | None:
        """The rows of a trial; what nobody chose gives way to a smaller split, what somebody chose is checked."""
        wanted = hpo.sample_size
        if wanted is not None and wanted > there and wanted == Hpo.model_fields["sample_size"].default:
            self.notes.append(f"trials train on all {there:,} training texts: there are fewer than {wanted:,}")
            return None
        return wanted

    def _encoder(self, config: Config) -> LoadedEncoder:
        """The encoder as it came; the size of a scratch one follows the window length."""
        key = config.encoder.max_length if config.encoder.name == SCRATCH else 0
        if key not in self._encoders:
            set_seeds(config.project.seed)
            texts = self._rows[0].texts
            self._encoders[key] = load_or_build_encoder(
                config, lambda: texts, offline=self._runtime.offline, place=self._runtime.encoder
            )
        return self._encoders[key]

    def _check_encoder(self) -> None:
        """Refuse a space that no encoder of this size can serve, before the first trial."""
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
        if length is not None and self.config.encoder.name != SCRATCH:
            check_max_length(self.loaded.model, int(length), name=self.config.encoder.name)

    def _session(self, config: Config) -> Session:
        loaded = self._encoder(config)
        if config.encoder.trainable_layers != 0:
            loaded = replace(loaded, model=copy.deepcopy(loaded.model))  # training would change it for the next trial
        return open_session(
            config,
            self.model,
            loaded,
            num_classes=len(self.labels),
            compute=device.resolve(self._runtime.device, config.model(self.model).train.precision),
            cache=paths.cache_dir(config.paths.cache_dir),
        )

    def _datasets(
        self, session: Session, encoding: Encoding = lambda split: nullcontext(lambda windows: None)
    ) -> tuple[EncodedDataset, EncodedDataset]:
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
        """Give back the memory of a model that nobody holds any more."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def outcomes(start: Callable[[], Iterator[float]]) -> Iterator[Outcome]:
    """The epochs that ``start`` begins, then how they ended: whatever a trial raises is an outcome, but for Ctrl-C."""
    last = Outcome("done")
    try:
        with closing(start()) as epochs:  # type: ignore[type-var]
            for value in epochs:
                yield Outcome("epoch", value)
    # Settings and a loss that is not a number depend on the parameters alone: the same ones would fail again.
    except (ConfigError, TrainingError) as error:
        last = Outcome("unusable", text=error.message)
    except Exception:  # noqa: BLE001 - whatever it is, the other trials go on
        last = Outcome("failed", text=traceback.format_exc()[-_KEPT_TRACEBACK:])
    if last.kind == "failed":
        TrialBench._free()  # once more: the traceback held what the trial was computing with
    yield last


def _goodness(facts: EpochEvent, metric: str) -> float:
    value = selection_score(facts.valid, metric)
    if not math.isfinite(value):
        raise TrainingError(f"the validation {metric} of epoch {facts.epoch} is {value}")
    return value
