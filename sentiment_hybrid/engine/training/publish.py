"""The best epoch of a run as a model directory for each head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import JOINT, Config
from sentiment_hybrid.console import note
from sentiment_hybrid.data.store import Store
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.evaluation.seen import SeenTexts
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.inference.kept_models import own_folder, publishing
from sentiment_hybrid.engine.inference.model_directory import ModelInfo, save_model
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.engine.training.checkpoints import best_weights, load_trainable
from sentiment_hybrid.engine.training.distill import keys_beside
from sentiment_hybrid.engine.training.joint import rows_before
from sentiment_hybrid.engine.training.runner import best_epoch
from sentiment_hybrid.engine.training.runs import Run, now, versions
from sentiment_hybrid.engine.training.tasks import Classification
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import count
from sentiment_hybrid.heads import display_name, encoder_family
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import LoadedEncoder
from sentiment_hybrid.models.encoder.module import encoder_fingerprint
from sentiment_hybrid.reporting.canvas import titled
from sentiment_hybrid.reporting.plots import learning_curves


def publish(
    config: Config,
    store: Store,
    session: Session,
    trainer: Trainer,
    run: Run,
    targets: Mapping[str, Path | None],
    *,
    bundle: bool,
    include_valid: bool,
) -> dict[str, Path]:
    """Save the best epoch for each head in a folder of its own, publish it where a target says, and draw the curves.

    Returns the own folders.
    """
    whole = session.classifier
    joint = not isinstance(whole, Classifier)
    load_trainable(whole, best_weights(run.checkpoints))
    wanted = config.training(JOINT if joint else next(iter(targets))).sample_size
    train_rows = store.count("train") if wanted is None else wanted
    if joint:
        train_rows = max(train_rows, rows_before(config, store))
    keys = keys_beside(config, JOINT if joint else next(iter(targets)), store)
    seen = SeenTexts.of(keys, **store.split_keys) if len(keys) else None
    own: dict[str, Path] = {}
    models: dict[str, tuple[Classifier, ModelInfo]] = {}
    for head in targets:
        classifier = whole if isinstance(whole, Classifier) else whole.classifier(head)
        info = _describe(
            config,
            head,
            session,
            store,
            run,
            train_rows=train_rows,
            trained_on_valid=include_valid,
            temperature=temperature(session, classifier, trainer),
        )
        models[head] = classifier, info
    inside = bundle or not stays_with_its_name(config, session.encoder)
    with publishing(config) as put:
        for head, (classifier, info) in models.items():
            own[head] = own_folder(config, info)
            save_model(own[head], classifier=classifier, encoder=session.encoder, info=info, bundle=inside, seen=seen)
            if (target := targets[head]) is not None:
                put(own[head], target)
    epochs = run.epochs()
    best = [epoch["epoch"] for epoch in epochs if epoch["is_best"]][-1]
    family = encoder_family(config.encoder.name)
    title = titled(
        f"{', '.join(display_name(head, family) for head in targets)}: learning curves",
        data=store.source,
        rows=count(train_rows, "training text"),
        encoder=config.encoder.name,
    )
    learning_curves(config.project.figure(run.folder / paths.RUN_CURVES), epochs, title=title, best=best)
    return own


def temperature(session: Session, classifier: Classifier, trainer: Trainer, *, otherwise: float = 1.0) -> float:
    """What a trained classifier's logits are to be divided by, from the validation rows.

    ``otherwise`` is the answer where these are too few, with a note, or where there are none.
    """
    valid = cast(Classification, trainer.task).valid
    if valid is None:
        return otherwise
    found = predict_probabilities(
        classifier,
        valid.tokenized,
        compute=session.compute,
        token_budget=trainer.token_budget,
        states=valid.states,
    )
    if few := metrics.too_few_to_calibrate(valid.labels, found):
        note(f"calibration is skipped, and the temperature is {otherwise:g}: there are {few}")
        return otherwise
    return round(metrics.temperature(valid.labels, found), 4)


def _describe(
    config: Config,
    model: str,
    session: Session,
    store: Store,
    run: Run,
    *,
    train_rows: int,
    trained_on_valid: bool,
    temperature: float,
) -> ModelInfo:
    """What the model directory will say of itself."""
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
        valid=best_epoch(run)[1],
        data=store.source,
        name=run.meta().get("name", ""),
        created=now(),
        train_rows=train_rows,
        versions=versions(),
        trained_on_valid=trained_on_valid,
        temperature=temperature,
        label_coding=store.label_coding,
        text_column=store.text_column,
    )


def stays_with_its_name(config: Config, encoder: LoadedEncoder) -> bool:
    """A frozen encoder of the hub can be had again by name; any other cannot, not even mini: it changes with senthy."""
    return encoder.source == "hub" and config.encoder.trainable_layers == 0
