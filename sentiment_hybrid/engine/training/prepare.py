"""From a configuration to a trainer: rows, encoder, classifier, token states."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import set_seed

from sentiment_hybrid import distributed, paths
from sentiment_hybrid.config.schema import JOINT, Config, Distill, Train
from sentiment_hybrid.console import note, progress, warn
from sentiment_hybrid.data.store import Examples, Store
from sentiment_hybrid.engine import device as devices
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.inference.session import EncodedDataset, Session, session_for
from sentiment_hybrid.engine.training.distill import Lesson, learn_from, unlabelled
from sentiment_hybrid.engine.training.joint import take_heads, with_further
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.engine.training.tasks import Classification, JointClassification, weights_of_classes
from sentiment_hybrid.engine.training.teacher import open_teacher
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
    """Device and precision; those of the start, and its number of threads, when a run goes on."""
    before = distributed.from_main(lambda: run.meta().get("compute"))
    if before is None:
        # Machines may differ, but one model has one precision.
        common = distributed.from_main(lambda: devices.resolve(device, precision).precision)
        return distributed.together(lambda: devices.resolve(device, common))
    then, now = before.get("processes", 1), distributed.world()
    if then == now:
        torch.set_num_threads(before["threads"])
    compute = distributed.together(lambda: devices.resolve(device, before["precision"]))
    if then != now:
        warn(f"the run was started with {then} processes and continues with {now}: not bit-identical")
    elif compute.describe() != before:
        warn(f"the run was started on {before['device']} and continues on {compute.device.type}: not bit-identical")
    return compute


def read_rows(
    config: Config, model: str, store: Store, *, include_valid: bool = False
) -> tuple[Examples, Examples | None]:
    """Rows to train on and rows to validate on; with ``include_valid`` all of them are to train on."""
    settings = config.training(model)
    taught = config.distill.teacher is not None  # a teacher may clean raw texts in another way
    train_rows = store.read("train", settings.sample_size, with_raw=taught)
    wanted = settings.valid_sample_size
    if include_valid:
        train_rows = train_rows.followed_by(store.read("valid", with_raw=taught))
        return _with_unlabelled(config, model, store, train_rows), None
    valid_rows = store.read("valid", None if wanted is None else min(wanted, store.count("valid")))
    for examples in (train_rows, valid_rows):
        if len(examples.texts) == 0:
            raise TrainingError(
                f"the {examples.split} split is empty", hint="Prepare more texts, or raise data.valid_size."
            )
    check_every_label(train_rows, store.labels, setting="train.sample_size")
    if model == JOINT:
        train_rows, valid_rows = with_further(config, store, train_rows, valid_rows)
    return _with_unlabelled(config, model, store, train_rows), valid_rows


def _with_unlabelled(config: Config, model: str, store: Store, rows: Examples) -> Examples:
    """These rows and the texts of ``distill.source``."""
    if config.distill.source is None:
        return rows
    texts = unlabelled(config, model, store)
    note(f"learned from the teacher alone: {count(len(texts), 'text')} of {config.distill.source}")
    return rows.followed_by(texts)


def check_every_label(examples: Examples, labels: tuple[str, ...], *, setting: str) -> None:
    """Raises TrainingError when a label has no row among those to train on."""
    if len(set(examples.labels.tolist())) < len(labels):
        raise TrainingError(
            f"the {len(examples.texts):,} training texts do not include all labels: {', '.join(labels)}",
            hint=f"Raise {setting}.",
        )


def prepare(
    config: Config,
    model: str,
    runtime: Runtime,
    store: Store,
    rows: tuple[Examples, Examples | None],
    compute: Compute,
) -> tuple[Session, Trainer]:
    """Everything up to the first step."""
    labels = store.labels
    lesson = taught_by_teacher(config, model, store, rows[0], compute, offline=runtime.offline)
    if lesson is not None:
        rows = lesson.rows(rows[0]), rows[1]
    session, train, valid = distributed.together(lambda: _encode(config, model, runtime, labels, rows, compute))
    train, valid = in_step(session, train), in_step(session, valid) if valid is not None else None
    if lesson is not None:
        train = lesson.given_to(session, train, config.distill.temperature)
    trainer = new_trainer(
        session, train, valid, settings=config.training(model), labels=labels, seed=config.project.seed,
        distillation=config.distill,
    )  # fmt: skip
    return session, trainer


def taught_by_teacher(
    config: Config, model: str, store: Store, examples: Examples, compute: Compute, *, offline: bool
) -> Lesson | None:
    """What the teacher answers to the training rows, with progress; the main process reads, all get the answers.

    None without a teacher. Errors as of `open_teacher` and `learn_from`.
    """
    if config.distill.teacher is None:
        return None
    budget = config.training(model).token_budget

    def taught() -> Lesson:
        teacher = open_teacher(
            config, store.labels, store.normalizer, compute=compute, token_budget=budget, offline=offline
        )
        with progress("reading by the teacher", unit="texts") as bar:
            return learn_from(teacher, examples, progress=bar.advance)

    lesson = distributed.from_main(taught)
    note(f"{lesson.answered:,} of {len(lesson.kept):,} training texts have the answers of {config.distill.teacher}")
    return lesson


def _encode(
    config: Config,
    model: str,
    runtime: Runtime,
    labels: tuple[str, ...],
    rows: tuple[Examples, Examples | None],
    compute: Compute,
) -> tuple[Session, EncodedDataset, EncodedDataset | None]:
    """Seeds, encoder, head, states; of several processes each does this for itself, and they share the states."""
    # A wrong map is reported before hours of encoding.
    weights_of_classes(config.training(model).class_weights, rows[0].labels, labels)
    set_seeds(config.project.seed)
    loaded = load_or_build_encoder(config, lambda: rows[0].texts, offline=runtime.offline, place=runtime.encoder)
    cache = paths.cache_dir(config.paths.cache_dir)
    session = open_session(config, model, loaded, num_classes=len(labels), compute=compute, cache=cache)
    if model == JOINT and config.joint.heads_from is not None:
        take_heads(session, config.joint.heads_from, labels)
    train, valid = (None if examples is None else encoded(session, examples) for examples in rows)
    assert train is not None
    return session, train, valid


def encoded(session: Session, examples: Examples) -> EncodedDataset:
    """Rows as what the trainer takes, with progress, and a note where texts were cut."""
    with progress(f"encoding {examples.split}", unit="windows") as bar:
        dataset = session.dataset(examples.texts, examples.labels, examples.compared, progress=bar.advance)
    if cut := dataset.tokenized.truncated:
        note(f"{cut:,} {examples.split} texts were cut after {session.max_windows} windows")
    return dataset


def in_step(session: Session, dataset: EncodedDataset) -> EncodedDataset:
    """The same kind of dataset on all processes of a training: where one has no states, none uses its own.

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
    if settings.name != paths.SCRATCH:
        if place is not None:
            settings = settings.model_copy(update={"name": str(place), "revision": None})
        return load_encoder(settings, offline=offline)
    if place is not None:
        raise UsageError("--encoder cannot be combined with encoder.name scratch", hint="Omit one of them.")
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
        accelerator=devices.accelerator(session.compute),
        layer_decay=layer_decay,
    )


def set_seeds(seed: int) -> None:
    """Seed every generator that training draws from; before the model is built."""
    set_seed(seed)
