"""The best epoch of a run as a model directory for each head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import JOINT, Config, Train
from sentiment_hybrid.console import note
from sentiment_hybrid.data.store import Store
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.evaluation.seen import SeenTexts
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.inference.kept_models import own_folder, publishing
from sentiment_hybrid.engine.inference.model_card import card_of
from sentiment_hybrid.engine.inference.model_directory import ModelInfo, save_model
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.engine.training.distill import extra_keys
from sentiment_hybrid.engine.training.joint import rows_before
from sentiment_hybrid.engine.training.prepare import selecting_rows
from sentiment_hybrid.engine.training.runs import Run, now, versions
from sentiment_hybrid.engine.training.tasks import Classification
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import count
from sentiment_hybrid.heads import encoder_family
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import LoadedEncoder
from sentiment_hybrid.models.encoder.module import encoder_fingerprint
from sentiment_hybrid.reporting.canvas import titled
from sentiment_hybrid.reporting.plots import learning_curves


def publish(
    config: Config,
    model: str,
    store: Store,
    session: Session,
    trainer: Trainer,
    run: Run,
    targets: Mapping[str, Path | None],
    *,
    bundle: bool,
    searched: int | None = 0,
) -> dict[str, Path]:
    """Save the best epoch of each head in its own folder, publish it to its target if it has one, and draw the curves.

    A search has used ``searched`` validation rows (None: all). Returns the folders.
    """
    whole = session.classifier
    run.load_best(whole)
    train_rows = config.training(model).sample_size or store.count("train")
    if model == JOINT:
        train_rows = max(train_rows, rows_before(config, store))
    keys = extra_keys(config, model, store)
    seen = SeenTexts.of(keys, **store.split_keys) if len(keys) else None
    valid = _validation(config.training(model), store, cast(Classification, trainer.task).valid is None, searched)
    models: dict[str, tuple[Classifier, ModelInfo]] = {}
    for head in targets:
        classifier = whole if isinstance(whole, Classifier) else whole.classifier(head)
        facts = {"train_rows": train_rows, "temperature": temperature(session, classifier, trainer), **valid}
        models[head] = classifier, _describe(config, head, session, store, run, facts)
    bundle = bundle or not stays_with_its_name(config, session.encoder)
    folders: dict[str, Path] = {}
    with publishing(config) as put:
        for head, (classifier, info) in models.items():
            folder = folders[head] = own_folder(config, info)
            card = card_of(config, head, **({} if model == head else {"joint": config.joint.model_dump(mode="json")}))
            save_model(
                folder, classifier=classifier, encoder=session.encoder, info=info, bundle=bundle, seen=seen, card=card
            )
            if (target := targets[head]) is not None:
                put(folder, target)
    names = ", ".join(info.display_name for _, info in models.values())
    draw_curves(config, run, names, data=store.source, train_rows=train_rows, encoder=config.encoder.name)
    return folders


def _validation(settings: Train, store: Store, trained_on: bool, searched: int | None) -> dict[str, Any]:
    """How many validation rows had a part in the model, and how many were set aside."""
    used = kept = selecting_rows(store, settings)
    if not trained_on:
        used = max(selecting_rows(store, settings, size) for size in (settings.valid_sample_size, searched))
    return {"trained_on_valid": trained_on, "valid_rows": used, "set_aside": store.count("valid") - kept}


def draw_curves(config: Config, run: Run, name: str, *, data: str, train_rows: int, encoder: str) -> None:
    """Draw the learning curves of a run into its folder."""
    title = titled(f"{name}: learning curves", data=data, rows=count(train_rows, "training text"), encoder=encoder)
    path = config.project.figure(run.folder / paths.RUN_CURVES)
    learning_curves(path, run.epochs(), title=title, best=run.best_epoch()[0]["epoch"])


def temperature(session: Session, classifier: Classifier, trainer: Trainer, *, otherwise: float = 1.0) -> float:
    """The temperature that calibrates a trained classifier on the validation rows.

    ``otherwise`` if there are none, or, with a note, too few.
    """
    valid = cast(Classification, trainer.task).valid
    if valid is None:
        return otherwise
    found = predict_probabilities(
        classifier, valid.tokenized, compute=session.compute, token_budget=trainer.token_budget, states=valid.states
    )
    if few := metrics.too_few_to_calibrate(valid.labels, found):
        note(f"calibration is skipped, and the temperature is {otherwise:g}: there are {few}")
        return otherwise
    return round(metrics.temperature(valid.labels, found), 4)


def _describe(
    config: Config, model: str, session: Session, store: Store, run: Run, facts: Mapping[str, Any]
) -> ModelInfo:
    encoder = session.encoder
    trained = config.encoder.trainable_layers != 0
    return ModelInfo(
        head=model,
        head_config=config.model(model).head.model_dump(mode="json"),
        labels=store.labels,
        normalizer=store.normalizer,
        max_length=config.encoder.max_length,
        max_windows=config.encoder.max_windows,
        encoder_name=config.encoder.name,
        encoder_family=encoder_family(config.encoder.name),
        encoder_revision=encoder.revision,
        encoder_fingerprint=encoder_fingerprint(encoder.model) if trained else encoder.fingerprint,
        encoder_inside=False,
        trainable_layers=config.encoder.trainable_layers,
        data_fingerprint=store.fingerprint,
        split_fingerprint=store.split_fingerprint,
        train_fingerprint=run.meta()["train_fingerprint"],
        run_id=run.id,
        valid=run.best_epoch()[1],
        data=store.source,
        name=run.meta().get("name", ""),
        created=now(),
        versions=versions(),
        label_coding=store.label_coding,
        text_column=store.text_column,
        **facts,
    )


def stays_with_its_name(config: Config, encoder: LoadedEncoder) -> bool:
    """Whether the encoder can be loaded again by name: a frozen one of the hub; mini is updated with senthy."""
    return encoder.source == "hub" and config.encoder.trainable_layers == 0
