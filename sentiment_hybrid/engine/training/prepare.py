"""From a configuration to a trainer: rows, encoder, classifier, token states."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import set_seed

from sentiment_hybrid import distributed, paths
from sentiment_hybrid.config.schema import JOINT, Config, Distill, Train
from sentiment_hybrid.console import note, progress, warn
from sentiment_hybrid.data.store import Examples, Split, Store
from sentiment_hybrid.engine import device as devices
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.inference.session import EncodedDataset, Session
from sentiment_hybrid.engine.training.distill import TeacherTargets, targets_from, unlabelled
from sentiment_hybrid.engine.training.joint import load_heads, with_further
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.engine.training.tasks import Classification, weights_of_classes
from sentiment_hybrid.engine.training.teacher import predictions_of_teacher
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import TrainingError, UsageError, count
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier, JointClassifier
from sentiment_hybrid.models.encoder.hub import LoadedEncoder, build_scratch, load_encoder
from sentiment_hybrid.models.encoder.module import Encoder, set_dropout
from sentiment_hybrid.models.tokenizer import train_tokenizer
from sentiment_hybrid.runtime import Runtime

log = logging.getLogger(__name__)


def compute_for(run: Run, *, device: str, precision: str) -> Compute:
    """Device and precision; a resumed run keeps the precision and the number of threads of its start."""
    before = distributed.from_main(lambda: run.meta().get("compute"))
    if before is None:
        # Machines may differ, but a model has one precision.
        common = distributed.from_main(lambda: devices.resolve(device, precision).precision)
        return distributed.together(devices.resolve, device, common)
    then, now = before.get("processes", 1), distributed.world()
    if then == now:
        torch.set_num_threads(before["threads"])
    compute = distributed.together(devices.resolve, device, before["precision"])
    if then != now:
        warn(f"the run was started with {then} processes and continues with {now}: not bit-identical")
    elif compute.describe() != before:
        warn(f"the run was started on {before['device']} and continues on {compute.device.type}: not bit-identical")
    return compute


def read_rows(
    config: Config, model: str, store: Store, *, include_valid: bool = False
) -> tuple[Examples, Examples | None]:
    """Training rows and validation rows; with ``include_valid``, all of them are training rows."""
    settings = config.training(model)
    with_raw = config.distill.teacher is not None  # a teacher may have another normaliser
    train_rows = store.read("train", settings.sample_size, with_raw=with_raw)
    if include_valid:
        train_rows = train_rows.followed_by(store.read("valid", selecting_rows(store, settings), with_raw=with_raw))
        return _with_unlabelled(config, model, store, train_rows), None
    valid_rows = store.read("valid", selecting_rows(store, settings, settings.valid_sample_size))
    check_rows(train_rows, valid_rows, store.labels, setting="train.sample_size")
    if model == JOINT:
        train_rows, valid_rows = with_further(config, store, train_rows, valid_rows)
    return _with_unlabelled(config, model, store, train_rows), valid_rows


def selecting_rows(store: Store, settings: Train, sample_size: int | None = None) -> int:
    """How many rows of the validation split may select and calibrate: at most a sample, and none that are set aside."""
    rows = store.count("valid")
    kept = rows - math.ceil(rows * settings.promise_size)
    return kept if sample_size is None else min(sample_size, kept)


def read_at_most(store: Store, split: Split, sample_size: int | None, *, with_raw: bool = False) -> Examples:
    """The rows of a split, or a sample of at most this size."""
    return store.read(split, sample_size and store.count(split, sample_size), with_raw=with_raw)


def _with_unlabelled(config: Config, model: str, store: Store, rows: Examples) -> Examples:
    """These rows, followed by the texts of ``distill.source``."""
    if config.distill.source is None:
        return rows
    texts = unlabelled(config, model, store)
    note(f"learned from the teacher alone: {count(len(texts), 'text')} of {config.distill.source}")
    return rows.followed_by(texts)


def check_rows(train: Examples, valid: Examples, labels: tuple[str, ...], *, setting: str) -> None:
    """Raise TrainingError if there are no rows, or if a label has no training row."""
    for examples in (train, valid):
        if len(examples) == 0:
            raise TrainingError(
                f"the {examples.split} split is empty", hint="Prepare more texts, or raise data.valid_size."
            )
    if len(set(train.labels.tolist())) < len(labels):
        raise TrainingError(
            f"the {len(train):,} training texts do not include all labels: {', '.join(labels)}",
            hint=f"Raise {setting}.",
        )


def prepare(
    config: Config,
    model: str,
    runtime: Runtime,
    store: Store,
    rows: tuple[Examples, Examples | None],
    run: Run,
) -> tuple[Session, Trainer]:
    """Everything up to the first step: device, teacher, encoder, head, token states, optimizer."""
    compute = compute_for(run, device=runtime.device, precision=config.training(model).precision)
    teacher = teacher_targets(config, model, store, rows[0], compute, offline=runtime.offline)
    if teacher is not None:
        rows = teacher.rows(rows[0]), rows[1]
    session = distributed.together(_session, config, model, runtime, store.labels, rows[0], compute)
    datasets = distributed.together(lambda: [None if part is None else encode(session, part) for part in rows])
    train, valid = (None if one is None else agree_on_states(session, one) for one in datasets)
    assert train is not None
    if teacher is not None:
        train = teacher.attach_to(session, train, config.distill.temperature)
    trainer = new_trainer(
        session, train, valid, settings=config.training(model), labels=store.labels, seed=config.project.seed,
        distillation=config.distill,
    )  # fmt: skip
    run.settle(compute.describe(), encoder=session.encoder.fingerprint)
    return session, trainer


def teacher_targets(
    config: Config, model: str, store: Store, examples: Examples, compute: Compute, *, offline: bool
) -> TeacherTargets | None:
    """The teacher's predictions for the training rows, made by the main process; None without a teacher.

    Raises as `predictions_of_teacher` and `targets_from`.
    """
    if config.distill.teacher is None:
        return None
    budget = config.training(model).token_budget

    def predict() -> TeacherTargets:
        with progress("predicting with the teacher", unit="texts") as bar:
            found = predictions_of_teacher(
                config, store.labels, store.normalizer, examples, compute=compute, token_budget=budget,
                offline=offline, progress=bar.advance,
            )  # fmt: skip
        return targets_from(str(config.distill.teacher), found, examples)

    targets = distributed.from_main(predict)
    note(f"{targets.answered:,} of {len(targets.kept):,} training texts have predictions of {config.distill.teacher}")
    return targets


def _session(
    config: Config, model: str, runtime: Runtime, labels: tuple[str, ...], train: Examples, compute: Compute
) -> Session:
    """Encoder and new heads; the training texts are those of a scratch tokenizer."""
    # Checked here, so that a mistake is reported before hours of encoding.
    weights_of_classes(config.training(model).class_weights, train.labels, labels)
    set_seed(config.project.seed)
    loaded = load_or_build_encoder(config, lambda: train.texts, offline=runtime.offline, place=runtime.encoder)
    session = open_session(config, model, loaded, num_classes=len(labels), compute=compute)
    if model == JOINT and config.joint.heads_from is not None:
        load_heads(session, config.joint.heads_from, labels)
    return session


def encode(session: Session, examples: Examples) -> EncodedDataset:
    """Encode rows for the trainer, with progress; prints a note if texts are truncated."""
    with progress(f"encoding {examples.split}", unit="windows") as bar:
        dataset = session.dataset(examples.texts, examples.labels, examples.compared, progress=bar.advance)
    if cut := dataset.tokenized.truncated:
        note(f"{cut:,} {examples.split} texts were cut after {session.max_windows} windows")
    return dataset


def agree_on_states(session: Session, dataset: EncodedDataset) -> EncodedDataset:
    """The same kind of dataset in all processes of a training: if one has no states, none uses them.

    The main process, the only one that prints, logs the reason of another one.
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
    """The encoder of the configuration; ``place`` is a local copy, and ``texts`` train a scratch tokenizer.

    Raises:
        EncoderError: it cannot be loaded.
        ConfigError: its windows are shorter, or it has fewer layers than are to be trained.
        UsageError: a ``place`` is given for an encoder built from scratch.
    """
    settings = config.encoder
    if settings.name != paths.SCRATCH:
        if place is not None:
            name = "static.base" if settings.name == paths.STATIC else "name"
            settings = settings.changed({name: str(place), "revision": None})
        if settings.name == paths.STATIC:
            note(f"distilling token vectors from {settings.origin}")
        return load_encoder(settings, offline=offline)
    if place is not None:
        raise UsageError("--encoder cannot be combined with encoder.name scratch", hint="Omit one of them.")
    tokenizer = train_tokenizer(texts(), settings.scratch, max_length=settings.max_length)
    return build_scratch(settings.scratch, tokenizer=tokenizer, max_length=settings.max_length)


def open_session(
    config: Config,
    model: str,
    encoder: LoadedEncoder,
    *,
    num_classes: int,
    compute: Compute,
    cache: Path | None = None,
) -> Session:
    """Put a new head of this model, or those of `joint`, on the encoder; call `set_seed` before.

    ``cache`` is a directory for token states instead of the configured one.
    """
    if config.encoder.dropout is not None:
        set_dropout(encoder.model, config.encoder.dropout)
    shared = Encoder(encoder.model, config.encoder.trainable_layers)
    heads = {
        name: build_head(name, config.model(name).head, input_size=shared.hidden_size, num_classes=num_classes)
        for name in config.heads(model)
    }
    return Session(
        JointClassifier(shared, heads) if model == JOINT else Classifier(shared, heads[model]),
        encoder,
        compute=compute,
        cache=cache or config.paths.cache,
        max_gb=config.cache.max_gb,
        token_budget=config.training(model).token_budget,
        max_length=config.encoder.max_length,
        max_windows=config.encoder.max_windows,
    )


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
    """A trainer for a session's classifier.

    Raises:
        TrainingError: ``settings.class_weights`` has other labels.
        EncoderError: ``layer_decay`` is given, and the layers of the encoder cannot be separated.
    """
    return Trainer(
        session.classifier,
        Classification(
            train,
            valid,
            class_weights=weights_of_classes(settings.class_weights, train.full_labels, labels),
            label_smoothing=settings.label_smoothing,
            distillation=distillation,
        ),
        settings=settings,
        seed=seed,
        compute=session.compute,
        accelerator=devices.accelerator(session.compute),
        layer_decay=layer_decay,
    )
