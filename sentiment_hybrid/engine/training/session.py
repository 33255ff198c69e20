"""From texts and a config to what the loop takes: encoder, classifier, tokenised texts, stored states."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment_hybrid import distributed, paths
from sentiment_hybrid.config.schema import JOINT, Config, Distill, Train
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.batches import TokenizedTexts, tokenize
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.inference.evaluate import EncodedDataset
from sentiment_hybrid.engine.states.store import StateStore
from sentiment_hybrid.engine.training.tasks import Classification, JointClassification
from sentiment_hybrid.engine.training.trainer import Trainer, weights_of_classes
from sentiment_hybrid.errors import ConfigError, UsageError
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier, JointClassifier
from sentiment_hybrid.models.encoder.hub import SCRATCH, LoadedEncoder, build_scratch, load_encoder
from sentiment_hybrid.models.encoder.module import Encoder, set_dropout
from sentiment_hybrid.models.tokenizer import train_tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """A classifier on its device with what prepares texts for it; ``states`` is None where none may be kept."""

    classifier: Classifier | JointClassifier
    encoder: LoadedEncoder
    compute: Compute
    states: StateStore | None
    token_budget: int
    max_length: int
    max_windows: int

    @property
    def single(self) -> Classifier:
        """The classifier, where it is one alone."""
        assert isinstance(self.classifier, Classifier)
        return self.classifier

    def dataset(
        self,
        texts: Sequence[str],
        labels: np.ndarray,
        compared: np.ndarray | None = None,
        *,
        progress: Callable[[int], object] = lambda windows: None,
    ) -> EncodedDataset:
        """Tokenise, and compute or find the states of every window below the layers that are trained.

        Without states where they cannot be kept: whoever takes the material then runs the encoder live.
        """
        tokenized = self.tokenize(texts)
        if self.states is None:
            return EncodedDataset(tokenized, labels, compared=compared)
        stored = self.states.ensure(tokenized, token_budget=self.token_budget, progress=progress)
        return EncodedDataset(tokenized, labels, stored, compared)

    def project_states(self, taught: np.ndarray | None) -> None:
        """Let the classifier learn a linear map to a teacher's pooled states (N, H), which is thrown away afterwards.

        Nothing for None. Raises ConfigError where no layer of the encoder is trained.
        """
        if taught is None:
            return
        encoder = self.classifier.encoder
        if encoder is None or encoder.frozen:
            raise ConfigError(
                "distill.states teaches the encoder, and encoder.trainable_layers is 0",
                hint="Train layers of it (--set encoder.trainable_layers=all), or set distill.states to 0.",
            )
        self.classifier.projection = torch.nn.Linear(encoder.hidden_size, taught.shape[1]).to(self.compute.device)

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Texts as flat windows of token ids."""
        return tokenize(texts, self.encoder.tokenizer, max_length=self.max_length, max_windows=self.max_windows)


def in_step(session: Session, dataset: EncodedDataset) -> EncodedDataset:
    """The same kind of material on all processes of a training: where one has no states, none uses its own.

    The main one, which alone speaks, tells what kept another from storing them.
    """
    refusals = distributed.gather(session.states.refusal if session.states and dataset.states is None else "")
    if not any(refusals):
        return dataset
    if not refusals[distributed.rank()] and distributed.is_main():
        log.warning("a process of this training says: %s; the encoder runs live on all of them", max(refusals))
    return replace(dataset, states=None)


def load_or_build_encoder(
    config: Config, texts: Callable[[], Sequence[str]], *, offline: bool, place: str | Path | None = None
) -> LoadedEncoder:
    """The encoder that the config names; ``place`` is a local copy of it, ``texts`` feeds a scratch tokenizer.

    Raises:
        EncoderError: it cannot be had.
        ConfigError: it cannot take windows of that length, or has fewer layers than are to be trained.
        UsageError: there is a place, and the encoder is built from scratch.
    """
    settings = config.encoder
    if settings.name != SCRATCH:
        if place is not None:
            settings = settings.model_copy(update={"name": str(place), "revision": None})
        return load_encoder(settings, offline=offline)
    if place is not None:
        raise UsageError("--encoder names a copy of an encoder, and encoder.name is scratch", hint="Leave one out.")
    tokenizer = train_tokenizer(texts(), settings.scratch, max_length=settings.max_length)
    return build_scratch(settings.scratch, tokenizer=tokenizer, max_length=settings.max_length)


def open_session(
    config: Config, model: str, encoder: LoadedEncoder, *, num_classes: int, compute: Compute, cache: Path
) -> Session:
    """Put a new head of this model, or those of `joint`, on the encoder. Seeds must have been set before."""
    if config.encoder.dropout is not None:
        set_dropout(encoder.model, config.encoder.dropout)
    shared = Encoder(encoder.model, config.encoder.trainable_layers)
    heads = {
        name: build_head(name, config.model(name).head, input_size=shared.hidden_size, num_classes=num_classes)
        for name in config.heads(model)
    }
    return session_for(
        JointClassifier(shared, heads) if model == JOINT else Classifier(shared, heads[model]),
        encoder,
        compute=compute,
        cache=cache,
        max_gb=config.cache.max_gb,
        token_budget=config.training(model).token_budget,
        max_length=config.encoder.max_length,
        max_windows=config.encoder.max_windows,
    )


def session_for(
    classifier: Classifier | JointClassifier,
    encoder: LoadedEncoder,
    *,
    compute: Compute,
    cache: Path,
    keep_states: bool = True,
    max_gb: float | None = None,
    **limits: Any,
) -> Session:
    """A session around a classifier; ``limits`` are token_budget, max_length and max_windows.

    States are kept below the layers that are trained, up to ``max_gb`` for all encoders together, and only if
    ``keep_states``; not of an encoder of which all layers are trained.
    """
    classifier.to(compute.device)
    states = None
    shared = classifier.encoder
    # No layers, no work that could be spared: embeddings alone are not worth the disk.
    if keep_states and shared is not None and shared.stored_layer:
        states = StateStore(
            paths.states_dir(cache),
            shared,
            fingerprint=encoder.fingerprint,
            compute=compute,
            name=encoder.name,
            max_gb=max_gb,
            share=(distributed.local_rank(), distributed.local_world()),
        )
    return Session(classifier, encoder, compute, states, **limits)


def new_trainer(
    session: Session,
    train: EncodedDataset,
    valid: EncodedDataset | None,
    *,
    settings: Train,
    labels: tuple[str, ...],
    seed: int,
    layer_decay: float | None = None,
    distillation: Distill | None = None,
) -> Trainer:
    """The training of a session's classifier, before its first step.

    Raises:
        TrainingError: ``settings.class_weights`` names other labels.
        EncoderError: ``layer_decay`` is given, and the encoder's layers cannot be told apart.
    """
    kind = JointClassification if isinstance(session.classifier, JointClassifier) else Classification
    return Trainer(
        session.classifier,
        kind(
            train,
            valid,
            class_weights=weights_of_classes(settings.class_weights, train.full_labels, labels),
            label_smoothing=settings.label_smoothing,
            distillation=distillation,
        ),
        settings=settings,
        seed=seed,
        compute=session.compute,
        accelerator=device.accelerator(session.compute),
        layer_decay=layer_decay,
    )


def set_seeds(seed: int) -> None:
    """Seed every generator that training draws from; before the model is built."""
    from accelerate.utils import set_seed

    set_seed(seed)
