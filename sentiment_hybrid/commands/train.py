"""``senthy train``: fit one model on the training split, publish its best epoch, test that once."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import paths
from sentiment_hybrid.commands import fitting
from sentiment_hybrid.config.schema import JOINT, Config
from sentiment_hybrid.errors import TrainingError
from sentiment_hybrid.heads import display_name

if TYPE_CHECKING:
    from sentiment_hybrid.commands.test import TestResult
    from sentiment_hybrid.data.store import Examples, Store
    from sentiment_hybrid.engine.device import Compute
    from sentiment_hybrid.engine.inference.evaluate import EncodedDataset
    from sentiment_hybrid.engine.inference.model_directory import ModelInfo
    from sentiment_hybrid.engine.training.distill import Lesson
    from sentiment_hybrid.engine.training.runs import Run
    from sentiment_hybrid.engine.training.session import Session
    from sentiment_hybrid.engine.training.trainer import Trainer


@dataclass(frozen=True)
class Purpose:
    """What a model is trained for: the suffix of its entry in the results, and further facts that the entry holds.

    ``include_valid`` trains on the validation rows too, for exactly the configured epochs, of which the last is kept.
    """

    name: str = "Train"
    include_valid: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


TRAIN = Purpose()


@dataclass(frozen=True)
class TrainResult:
    """What a training came to; ``seeds`` is a summary over several seeds.

    ``valid`` holds the best epoch's figures, and nothing where there was no validation.
    """

    model: str
    model_dir: Path
    run_dir: Path
    best_epoch: int
    epochs: int
    valid: dict[str, float]
    seconds: float
    resumed: bool
    encoder_passes: int
    test: TestResult | None = None
    seeds: dict[str, Any] | None = None
    results_file_set_aside: Path | None = None


def train(config: Config, model: str = "lstm", **options: Any) -> TrainResult:
    """Train one model from Python; options are those of ``run``."""
    return run(config, model, **options)


def run(
    config: Config,
    model: str,
    *,
    resume: bool = False,
    device: str = "auto",
    offline: bool = False,
    seeds: int = 1,
    test: bool = True,
    encoder: str | Path | None = None,
    bundle_encoder: bool = False,
    purpose: Purpose = TRAIN,
) -> TrainResult:
    """Train, publish and test a model; with ``seeds`` N, N models, of which validation chooses the one published.

    Started in several processes by torchrun or accelerate launch, it trains one model with all of them: the main one
    writes, and all return the same.

    Args:
        config: the whole configuration; its ``data_db`` must have been prepared by ``senthy data``.
        model: ``lstm``, ``han`` or ``linear``.
        resume: go on from the newest unfinished run of the same configuration and data; with ``seeds``, from where
            the same command was stopped.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        offline: never reach a network.
        seeds: how many models to train, from project.seed upwards.
        test: test the published model on the test split and write the results.
        encoder: where a copy of the encoder lies that the config names.
        bundle_encoder: put a frozen hub encoder into the model directory too.
        purpose: what for; ``optimize`` trains its final model with one of its own.

    Raises:
        SenthyError: of the kind that fits; see `sentiment_hybrid.errors`.
    """
    from sentiment_hybrid import distributed
    from sentiment_hybrid.engine.device import resolve

    distributed.join(resolve(device).device.type)
    distributed.from_main(lambda: fitting.check_writable(config.paths.models_dir, config.paths.results_dir))
    options = Options(device, offline, test, encoder, bundle_encoder, purpose)
    published = paths.published_model(config.paths.models_dir, model)
    if seeds > 1:
        return _run_seeds(config, model, options, seeds, published, resume=resume)
    with trained(config, model, options, resume=resume, targets={model: published}) as (result,):
        return distributed.from_main(lambda: tested(config, model, options, result) if test else result)


@dataclass(frozen=True)
class Options:
    """What a training is told beside its configuration; see `run`."""

    device: str
    offline: bool
    test: bool
    encoder: str | Path | None
    bundle_encoder: bool
    purpose: Purpose = TRAIN


def train_fingerprint(config: Config, model: str, data_fingerprint: str, *, include_valid: bool = False) -> str:
    """Of everything that a trained model depends on: equal fingerprints, equal model (on the same machine)."""
    from sentiment_hybrid.engine.training.runs import FREE_TO_CHANGE

    heads = {name: config.model(name).head.model_dump(mode="json") for name in config.heads(model)}
    joint = _joint_facts(config) if model == JOINT else None
    facts = {
        "format": 1,
        "model": model,
        "head": heads[model] if joint is None else heads,
        "train": config.training(model).model_dump(mode="json", exclude=set(FREE_TO_CHANGE)),
        **({} if joint is None else {"joint": joint}),
        **_distill_facts(config),
        "encoder": config.encoder.model_dump(mode="json"),
        "encoder_files": encoder_files(config.encoder.name),
        "seed": config.project.seed,
        "data": data_fingerprint,
        "include_valid": include_valid,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _joint_facts(config: Config) -> dict[str, Any]:
    from sentiment_hybrid.data.sources import open_source

    source = config.joint.further_source
    content = None if source is None else open_source(source, config.data).fingerprint()
    facts = config.joint.model_dump(mode="json", exclude={"train", "further_source", "heads_from"})
    return {**facts, "further": content, "heads_from": _head_files(config)}


def _distill_facts(config: Config) -> dict[str, Any]:
    """The teacher and the unlabelled texts by their content; nothing without a teacher."""
    from sentiment_hybrid.data.sources import open_source
    from sentiment_hybrid.engine.training.teacher import teacher_digest

    settings = config.distill
    if settings.teacher is None:
        return {}
    texts = None if settings.source is None else open_source(settings.source, config.data).fingerprint()
    facts = settings.model_dump(mode="json", exclude={"teacher", "source"})
    return {"distill": {**facts, "teacher": teacher_digest(config), "texts": texts}}


def _head_files(config: Config) -> list[str]:
    """Digests of the heads that the training starts from."""
    from sentiment_hybrid.files import sha256

    folder = config.joint.heads_from
    files = [] if folder is None else [folder / head / paths.MODEL_WEIGHTS for head in config.joint.models]
    return [sha256(file) for file in files if file.is_file()]


def encoder_files(name: str) -> list[str]:
    """Digests of a local encoder's files, or mini's: the same name may mean other weights tomorrow."""
    from sentiment_hybrid.files import sha256

    folder = paths.mini_dir() / paths.ENCODER_DIR if name == paths.MINI else Path(name).expanduser()
    if name == "scratch" or not folder.is_dir():
        return []
    return [sha256(path) for pattern in ("*.safetensors", "*.json") for path in sorted(folder.glob(pattern))]


def can_resume(config: Config, model: str, data_fingerprint: str, *, include_valid: bool = False) -> bool:
    """Whether there is an unfinished run of this model with the same settings and data."""
    from sentiment_hybrid.engine.training.runs import Run

    try:
        Run.unfinished(config, model, train_fingerprint(config, model, data_fingerprint, include_valid=include_valid))
    except TrainingError:
        return False
    return True


def is_published(
    config: Config, model: str, data_fingerprint: str, *, include_valid: bool = False, bundle: bool = False
) -> bool:
    """Whether the published model is whole, and the one that training would give again."""
    from sentiment_hybrid.engine.inference.model_directory import read_info
    from sentiment_hybrid.errors import ModelError
    from sentiment_hybrid.files import sha256

    directory = paths.published_model(config.paths.models_dir, model)
    try:
        info = read_info(directory)
        whole = sha256(directory / paths.MODEL_WEIGHTS) == info.weights_sha256
    except (ModelError, OSError):
        return False
    same = info.train_fingerprint == train_fingerprint(config, model, data_fingerprint, include_valid=include_valid)
    return same and whole and (info.encoder_inside or not bundle)


@contextmanager
def trained(
    config: Config, model: str, options: Options, *, resume: bool, targets: Mapping[str, Path]
) -> Iterator[tuple[TrainResult, ...]]:
    """Train and publish each head; the run counts as finished, and cannot be resumed, once the block ends well."""
    from sentiment_hybrid import distributed
    from sentiment_hybrid.data.store import open_store
    from sentiment_hybrid.engine.training.runs import Run

    started = time.perf_counter()
    with distributed.together(lambda: open_store(config.paths.data_db)) as store:
        include_valid = options.purpose.include_valid
        rows = distributed.together(lambda: _examples(config, model, store, include_valid=include_valid))
        fingerprint = distributed.together(
            lambda: train_fingerprint(config, model, store.fingerprint, include_valid=include_valid)
        )
        distributed.check_same(fingerprint, "settings, a database or an encoder")
        facts = {"data_fingerprint": store.fingerprint}
        run = Run.unfinished(config, model, fingerprint) if resume else Run.start(config, model, fingerprint, **facts)
        with fitting.held(run, resume=resume):
            results = _run_one(config, model, options, store, rows, run, resume=resume, targets=targets)
            seconds = time.perf_counter() - started
            yield tuple(replace(result, seconds=seconds) for result in results)
            run.finish(encoder_passes=results[0].encoder_passes)


def _run_one(
    config: Config,
    model: str,
    options: Options,
    store: Store,
    rows: tuple[Examples, Examples | None],
    run: Run,
    *,
    resume: bool,
    targets: Mapping[str, Path],
) -> list[TrainResult]:
    from sentiment_hybrid import distributed

    compute = fitting.compute_for(run, device=options.device, precision=config.training(model).precision)
    if resume:
        # What the fingerprint leaves out (the token budget) also goes on as it was resolved at the start.
        before = distributed.from_main(run.config)
        config = before.model_copy(update={"paths": config.paths, "cache": config.cache, "test": config.test})
    lesson = fitting.lesson(config, model, store, rows[0], compute, offline=options.offline)
    if lesson is not None:
        rows = lesson.rows(rows[0]), rows[1]
    session, trainer = _prepare(config, model, options, store.labels, rows, compute, lesson)
    run.settle(compute.describe(), encoder=session.encoder.fingerprint)
    resumed = resume and fitting.load_last(trainer, run)
    wanted = config.training(model).sample_size
    train_rows = store.count("train") if wanted is None else wanted
    if model == JOINT:
        from sentiment_hybrid.commands.joint import rows_before

        train_rows = max(train_rows, rows_before(config, store))
    fitting.consume(trainer, run, minutes=config.training(model).checkpoint_minutes)
    passes = sum(distributed.gather(session.states.passes if session.states else 0))
    distributed.from_main(lambda: _publish(config, options, store, session, trainer, run, train_rows, targets))
    return distributed.from_main(
        lambda: [_result(run, head, target, resumed=resumed, passes=passes) for head, target in targets.items()]
    )


def _publish(
    config: Config,
    options: Options,
    store: Store,
    session: Session,
    trainer: Trainer,
    run: Run,
    train_rows: int,
    targets: Mapping[str, Path],
) -> None:
    """Save the best epoch as a model directory for each head, and draw the run's curves."""
    from sentiment_hybrid.engine.evaluation.seen import SeenTexts
    from sentiment_hybrid.engine.inference.model_directory import save_model
    from sentiment_hybrid.engine.training.checkpoints import best_weights
    from sentiment_hybrid.engine.training.trainer import load_trainable
    from sentiment_hybrid.models.classifier import Classifier
    from sentiment_hybrid.reporting.plots import learning_curves

    whole = session.classifier
    load_trainable(whole, best_weights(run.checkpoints))
    bundle = options.bundle_encoder or not _stays_with_its_name(config, session)
    seen = None
    model = JOINT if not isinstance(whole, Classifier) else next(iter(targets))
    if len(keys := fitting.keys_beside(config, model, store)):
        seen = SeenTexts.of(keys, **store.split_keys)
    for head, target in targets.items():
        one = whole if isinstance(whole, Classifier) else whole.classifier(head)
        info = _describe(config, head, session, store, run, train_rows=train_rows)
        info = replace(
            info, trained_on_valid=options.purpose.include_valid, temperature=fitting.temperature(session, one, trainer)
        )
        save_model(target, classifier=one, encoder=session.encoder, info=info, bundle=bundle, seen=seen)
    epochs = run.epochs()
    best = [facts["epoch"] for facts in epochs if facts["is_best"]][-1]
    title = f"{', '.join(display_name(head) for head in targets)} on {config.project.name}"
    learning_curves(run.folder / paths.RUN_CURVES, epochs, title=title, best=best)


def _result(run: Run, model: str, model_dir: Path, *, resumed: bool, passes: int) -> TrainResult:
    best, valid = fitting.best_epoch(run)
    return TrainResult(
        model=display_name(model),
        model_dir=model_dir,
        run_dir=run.folder,
        best_epoch=best["epoch"],
        epochs=len(run.epochs()),
        valid=valid,
        seconds=0.0,
        resumed=resumed,
        encoder_passes=passes,
    )


def _examples(
    config: Config, model: str, store: Store, *, include_valid: bool = False
) -> tuple[Examples, Examples | None]:
    """Rows to train on and rows to validate on; with ``include_valid`` all of them are to train on."""
    settings = config.training(model)
    # A teacher may clean texts in a way of its own.
    taught = config.distill.teacher is not None
    train_rows = store.read("train", settings.sample_size, with_raw=taught)
    wanted = settings.valid_sample_size
    if include_valid:
        return _with_unlabelled(
            config, model, store, train_rows.followed_by(store.read("valid", with_raw=taught))
        ), None
    valid_rows = store.read("valid", None if wanted is None else min(wanted, store.count("valid")))
    for examples in (train_rows, valid_rows):
        if len(examples.texts) == 0:
            raise TrainingError(
                f"the {examples.split} split is empty", hint="Prepare more texts, or raise data.valid_size."
            )
    fitting.check_every_label(train_rows, store.labels, setting="train.sample_size")
    if model == JOINT:
        from sentiment_hybrid.commands.joint import with_further

        train_rows, valid_rows = with_further(config, store, train_rows, valid_rows)
    return _with_unlabelled(config, model, store, train_rows), valid_rows


def _with_unlabelled(config: Config, model: str, store: Store, rows: Examples) -> Examples:
    """These rows and the texts of ``distill.source``."""
    from sentiment_hybrid.console import note
    from sentiment_hybrid.engine.training.distill import unlabelled

    if config.distill.source is None:
        return rows
    texts = unlabelled(config, store, config.training(model).sample_size)
    note(f"{len(texts):,} texts of {config.distill.source} are learned from the teacher alone")
    return rows.followed_by(texts)


def _prepare(
    config: Config,
    model: str,
    options: Options,
    labels: tuple[str, ...],
    rows: tuple[Examples, Examples | None],
    compute: Compute,
    lesson: Lesson | None = None,
) -> tuple[Session, Trainer]:
    """Everything up to the first step."""
    from sentiment_hybrid import distributed
    from sentiment_hybrid.engine.training.session import in_step, new_trainer

    settings = config.training(model)
    session, train, valid = distributed.together(lambda: _encode(config, model, options, labels, rows, compute))
    train, valid = in_step(session, train), in_step(session, valid) if valid is not None else None
    if lesson is not None:
        train = lesson.given_to(train, config.distill.temperature)
        session.project_states(lesson.states)
    trainer = new_trainer(
        session, train, valid, settings=settings, labels=labels, seed=config.project.seed, distillation=config.distill
    )
    return session, trainer


def _encode(
    config: Config,
    model: str,
    options: Options,
    labels: tuple[str, ...],
    rows: tuple[Examples, Examples | None],
    compute: Compute,
) -> tuple[Session, EncodedDataset, EncodedDataset | None]:
    """Seeds, encoder, head, states; of several processes each does this for itself, and they share the states."""
    from sentiment_hybrid.engine.training.session import load_or_build_encoder, open_session, set_seeds
    from sentiment_hybrid.engine.training.trainer import weights_of_classes

    settings = config.training(model)
    weights_of_classes(settings.class_weights, rows[0].labels, labels)  # a wrong map is told before hours of encoding
    set_seeds(config.project.seed)
    loaded = load_or_build_encoder(config, lambda: rows[0].texts, offline=options.offline, place=options.encoder)
    session = open_session(
        config,
        model,
        loaded,
        num_classes=len(labels),
        compute=compute,
        cache=paths.cache_dir(config.paths.cache_dir),
    )
    if model == JOINT and config.joint.heads_from is not None:
        from sentiment_hybrid.commands.joint import take_heads

        take_heads(session, config.joint.heads_from, labels)
    train, valid = (None if examples is None else fitting.encoded(session, examples) for examples in rows)
    assert train is not None
    return session, train, valid


def _describe(config: Config, model: str, session: Session, store: Store, run: Run, *, train_rows: int) -> ModelInfo:
    """What the model directory will say of itself."""
    from sentiment_hybrid.engine.inference.model_directory import ModelInfo
    from sentiment_hybrid.engine.training.runs import now, versions
    from sentiment_hybrid.models.encoder.module import encoder_fingerprint

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
        encoder_revision=encoder.revision,
        encoder_fingerprint=encoder_fingerprint(encoder.model) if trained else encoder.fingerprint,
        encoder_inside=False,
        trainable_layers=config.encoder.trainable_layers,
        data_fingerprint=store.fingerprint,
        split_fingerprint=store.split_fingerprint,
        train_fingerprint=run.meta()["train_fingerprint"],
        run_id=run.id,
        created=now(),
        train_rows=train_rows,
        versions=versions(),
    )


def _stays_with_its_name(config: Config, session: Session) -> bool:
    """A frozen encoder of the hub, or mini, can be had again by name; any other belongs inside the model directory."""
    return session.encoder.source in ("hub", "package") and config.encoder.trainable_layers == 0


def tested(config: Config, model: str, options: Options, result: TrainResult, *, published: bool = True) -> TrainResult:
    """Test the model and add the entry of the training to the results."""
    from sentiment_hybrid.commands import test
    from sentiment_hybrid.engine.training.runs import now, versions
    from sentiment_hybrid.reporting.results import append_result

    tested = test.evaluate(
        config,
        model,
        load_model_path=result.model_dir,
        device=options.device,
        offline=options.offline,
        encoder=options.encoder,
    )
    entry = {
        "name": f"{result.model}_{options.purpose.name}",
        "created": now(),
        "run": result.run_dir.name,
        "model_dir": str(result.model_dir) if published else None,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(result.seconds, 3),
        "valid": result.valid,
        **tested.entry,
        **options.purpose.facts,
        "config": config.to_keep().model_dump(mode="json", include={"project", "data", "encoder", model}),
        "versions": versions(),
    }
    aside = append_result(paths.results_json(config.paths.results_dir), entry)
    return replace(result, test=tested, results_file_set_aside=aside)


def _run_seeds(
    config: Config, model: str, options: Options, seeds: int, published: Path, *, resume: bool
) -> TrainResult:
    """One run per seed; the model that validation prefers is published, and all of them are tested, that one last."""
    from sentiment_hybrid import distributed
    from sentiment_hybrid.engine.training.trainer import selection_score

    metric = config.model(model).train.metric
    trained: list[tuple[Config, TrainResult]] = []
    for seed in range(config.project.seed, config.project.seed + seeds):
        seeded = config.model_copy(update={"project": config.project.model_copy(update={"seed": seed})})
        trained.append((seeded, _run_seed(seeded, model, options, resume=resume)))

    best = max(trained, key=lambda pair: selection_score(pair[1].valid, metric))
    return distributed.from_main(lambda: _choose(trained, best, model, options, published))


def _choose(
    trained: list[tuple[Config, TrainResult]],
    best: tuple[Config, TrainResult],
    model: str,
    options: Options,
    published: Path,
) -> TrainResult:
    """Publish the best of several seeds, and test them all."""
    import shutil

    from sentiment_hybrid.engine.inference.model_directory import publish_copy

    publish_copy(best[1].model_dir, published)
    results = []
    # The best one last: the figures and predictions that stay on disk are then those of the published model.
    for seeded, result in sorted(trained, key=lambda pair: pair is best):
        is_best = result is best[1]
        shown = replace(result, model_dir=published) if is_best else result
        results.append(tested(seeded, model, options, shown, published=is_best) if options.test else shown)
    for _, result in trained:
        shutil.rmtree(result.model_dir, ignore_errors=True)
    return replace(results[-1], seeds=_over_seeds(results))


def _run_seed(config: Config, model: str, options: Options, *, resume: bool) -> TrainResult:
    """Train one of several seeds, or with ``resume`` take what the stopped command left of it."""
    from sentiment_hybrid import distributed

    target = paths.seed_model(config.paths.results_dir, model, config.project.seed)
    data_fingerprint = distributed.together(lambda: _data_fingerprint(config))
    fingerprint = train_fingerprint(config, model, data_fingerprint)
    done = distributed.from_main(lambda: _done_seed(config, model, target, fingerprint)) if resume else None
    if done is not None:
        return done
    resume = resume and can_resume(config, model, data_fingerprint)
    with trained(config, model, options, resume=resume, targets={model: target}) as (result,):
        return result


def _done_seed(config: Config, model: str, target: Path, fingerprint: str) -> TrainResult | None:
    """What a seed came to whose run has finished, if it is the one that would be trained again."""
    from sentiment_hybrid.engine.inference.model_directory import read_info
    from sentiment_hybrid.engine.training.runs import Run

    if not target.is_dir() or (info := read_info(target)).train_fingerprint != fingerprint:
        return None
    run = Run(paths.runs_dir(config.paths.results_dir) / info.run_id)
    return _result(run, model, target, resumed=True, passes=0) if "finished" in run.meta() else None


def _data_fingerprint(config: Config) -> str:
    from sentiment_hybrid.data.store import open_store

    with open_store(config.paths.data_db) as store:
        return store.fingerprint


def _over_seeds(results: list[TrainResult]) -> dict[str, Any]:
    figures = {f"valid {name}": [r.valid[name] for r in results] for name in ("accuracy", "macro_f1")}
    tests = [r.test for r in results if r.test is not None]
    if tests:
        figures["test accuracy"] = [t.scores.accuracy.value for t in tests]
        figures["test macro_f1"] = [t.scores.macro_f1.value for t in tests]
    return {
        name: {"mean": statistics.fmean(values), "deviation": statistics.stdev(values), "values": values}
        for name, values in figures.items()
    }
