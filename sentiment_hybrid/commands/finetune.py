"""``senthy finetune``: trains a model further on new texts, and tests it before and after, on new and old texts."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import console, distributed, paths, tables
from sentiment_hybrid.commands.data import DataResult, prepare
from sentiment_hybrid.config.schema import Config, Train
from sentiment_hybrid.console import note, warn
from sentiment_hybrid.data.build import Demands, Part, Plan
from sentiment_hybrid.data.labels import described
from sentiment_hybrid.data.normalizers import from_id
from sentiment_hybrid.data.sources import Source, open_source
from sentiment_hybrid.data.store import Examples, Store, open_store
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.evaluation.metrics import COMPARED, Comparison, Scores
from sentiment_hybrid.engine.inference import testing
from sentiment_hybrid.engine.inference.kept_models import own_folder, publishing
from sentiment_hybrid.engine.inference.model_card import add_figures, card_of
from sentiment_hybrid.engine.inference.model_directory import LoadedModel, ModelInfo, load_model, read_info, save_model
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.engine.training.events import selection_score
from sentiment_hybrid.engine.training.prepare import check_rows, compute_for, encode, new_trainer, read_at_most
from sentiment_hybrid.engine.training.publish import draw_curves
from sentiment_hybrid.engine.training.publish import temperature as temperature_of
from sentiment_hybrid.engine.training.runner import fit, load_last
from sentiment_hybrid.engine.training.runs import FREE_TO_CHANGE, Run, now, versions
from sentiment_hybrid.engine.training.tasks import weights_of_classes
from sentiment_hybrid.errors import DatabaseError, LabelError, LockedError, OutputError, UsageError, count
from sentiment_hybrid.files import check_writable, digest_of, mark_used, sha256
from sentiment_hybrid.models import renew_output
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.module import Encoder, encoder_fingerprint
from sentiment_hybrid.reporting.card import Tested
from sentiment_hybrid.reporting.results import append_result
from sentiment_hybrid.runtime import Runtime

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Measured:
    """The model after and before on the same rows; the difference is after - before.

    ``before`` and ``comparison`` are None if the model had other labels before.
    """

    rows: int
    after: Scores
    before: Scores | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class FinetuneResult:
    """The result of fine-tuning.

    ``improved``: whether the best epoch is better than the original model on the new validation rows; None if they
    cannot be compared. ``old_test_missing`` is the reason if there is no ``old_test``; ``left_out`` counts rows by
    reason.
    """

    model: str
    model_dir: Path
    parent_dir: Path
    run_dir: Path
    labels: tuple[str, ...]
    old_labels: tuple[str, ...]
    best_epoch: int
    epochs: int
    valid: dict[str, float]
    valid_before: dict[str, float] | None
    improved: bool | None
    metric: str
    train_rows: int
    left_out: dict[str, int]
    new_test: Measured
    old_test: Measured | None
    old_test_missing: str
    seconds: float
    resumed: bool
    files: dict[str, Path]
    entry: dict[str, Any]


def finetune(
    config: Config,
    model: str | None = None,
    *,
    data_file: str | Path,
    load_model_path: Path | None = None,
    save_path: Path | None = None,
    new_labels: bool = False,
    resume: bool = False,
    device: str = "auto",
    offline: bool = False,
    encoder: str | Path | None = None,
    bundle_encoder: bool = False,
) -> FinetuneResult:
    """Train a model further with its own labels, normaliser and encoder; publish the best epoch and test it.

    If the model's training database is at ``paths.data_db``, new rows that occur in its test split are not
    used for training and validation, and rows that it was trained on are not used for the new test.

    Args:
        config: section ``finetune``; other training settings are those of the model's head.
        model: head of the published model to start from if ``load_model_path`` is None (default ``lstm``).
        data_file: labelled texts: any source that ``senthy data`` reads.
        load_model_path: the model directory to start from; it is not changed.
        save_path: directory of the new model; None is ``models/<head>_roberta_model_finetuned``.
        new_labels: if the data have other labels, use those, with a new output layer.
        resume: continue the newest unfinished fine-tuning of the same model, data and settings.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        offline: never use the network.
        encoder: a local copy of the encoder that the model names.
        bundle_encoder: store a frozen hub encoder in the model directory, too.

    Raises:
        SenthyError: of the kind that fits; see `sentiment_hybrid.errors`.
    """
    runtime = Runtime(device, offline, encoder, bundle_encoder, resume)
    return run(
        config,
        model,
        runtime,
        data_file=data_file,
        load_model_path=load_model_path,
        save_path=save_path,
        new_labels=new_labels,
    )


def run(
    config: Config,
    model: str | None = None,
    runtime: Runtime = Runtime(),
    *,
    data_file: str | Path,
    load_model_path: Path | None = None,
    save_path: Path | None = None,
    new_labels: bool = False,
) -> FinetuneResult:
    """As `finetune`."""
    distributed.refuse("finetune")
    source = open_source(str(data_file), config.data, offline=runtime.offline)
    loaded = testing.open_model(config, model, load_model_path, runtime)
    target = _target(config, loaded, save_path)
    check_writable(
        target.parent,
        config.paths.results_dir,
        hint="Choose other directories: --save-finetuned-model-path DIR, --set paths.results_dir=DIR.",
    )
    old = _old_splits(config, loaded.info)
    data = _prepare(config, loaded.info, source, old, new_labels=new_labels, offline=runtime.offline)
    mark_used(data.path)
    with open_store(data.path) as store:
        if meaning := described(store.label_coding or {}):
            note(f"labels are read as {meaning}")
        return _tune(_Task(config, loaded, target, data, old, runtime), store)


@dataclass(frozen=True)
class _Old:
    """Order hashes of the model's test and training texts, or why they are unknown (``missing``)."""

    split_keys: dict[str, int] | None = None
    tested: np.ndarray | None = None
    trained: np.ndarray | None = None
    missing: str = ""


@dataclass(frozen=True)
class _Task:
    """A fine-tuning: the model, the directory of the new one, and the prepared data."""

    config: Config
    loaded: LoadedModel
    target: Path
    data: DataResult
    old: _Old
    runtime: Runtime

    @property
    def info(self) -> ModelInfo:
        """Metadata of the model to start from."""
        return self.loaded.info

    @property
    def settings(self) -> Train:
        """The training settings: those of the head, overridden by ``finetune``."""
        own, base = self.config.finetune, self.config.model(self.info.head).train
        names = ("epochs", "learning_rate", "encoder_learning_rate", "sample_size", "patience")
        changes: dict[str, Any] = {name: getattr(own, name) for name in names}
        changes |= {name: value for name in ("batch_size", "metric") if (value := getattr(own, name)) is not None}
        return base.changed(changes)

    @property
    def trainable_layers(self) -> Any:
        """Encoder layers to train: as configured, else as before."""
        configured = self.config.finetune.trainable_layers
        return self.info.trainable_layers if configured is None else configured

    @property
    def renewed(self) -> bool:
        """Whether the output layer is new, for other labels."""
        return self.data.labels != self.info.labels

    def lineage(self, rows: tuple[Examples, Examples] | None = None) -> dict[str, Any]:
        """The origin of the new model; for its model.json and its run, with the numbers of its own rows."""
        own = {} if rows is None else {"new_train_rows": len(rows[0]), "new_valid_rows": len(rows[1])}
        names = ("weights_sha256", "run_id", "created", "data_fingerprint", "data", "train_rows", "parent")
        return {"path": str(self.loaded.directory), **{name: getattr(self.info, name) for name in names}, **own}

    def fingerprint(self) -> str:
        """A hash of everything that the new model depends on."""
        settings = self.settings.model_dump(mode="json", exclude=set(FREE_TO_CHANGE))
        facts = {
            "format": 1,
            "parent": [self.info.weights_sha256, self.info.encoder_fingerprint],
            "labels": list(self.data.labels),
            "train": settings,
            "layer_decay": self.config.finetune.layer_decay,
            "trainable_layers": self.trainable_layers,
            "seed": self.config.project.seed,
            "data": self.data.fingerprint,
        }
        return digest_of(facts)


# --- preparation --------------------------------------------------------------------------------------


def _target(config: Config, loaded: LoadedModel, save_path: Path | None) -> Path:
    """The directory of the new model. Raises UsageError or OutputError if other files would be lost."""
    target = save_path or paths.finetuned_model(config.paths.models_dir, loaded.info.head)
    place, parent = target.resolve(), loaded.directory.resolve()
    if place == parent or parent in place.parents or place in parent.parents:
        raise UsageError(
            f"the new model would overwrite the original model ({loaded.directory})",
            hint="Choose another directory with --save-finetuned-model-path DIR.",
        )
    if target.exists() and not (target / paths.MODEL_JSON).is_file() and (target.is_file() or any(target.iterdir())):
        raise OutputError(
            f"{target} exists and is not a model directory, so it is not overwritten",
            hint="Choose another directory with --save-finetuned-model-path DIR.",
        )
    return target


def _old_splits(config: Config, info: ModelInfo) -> _Old:
    """The texts that the model is tested on and was trained on, if its database is at paths.data_db.

    Raises LockedError: without the database, the model might be trained on its test rows.
    """
    try:
        with open_store(config.paths.data_db) as store:
            if store.split_fingerprint == info.split_fingerprint:
                trained = testing.trained_keys(store, info.train_rows)
                return _Old(store.split_keys, store.key_hashes("test"), trained)
            missing = f"{store.path} is not the database that the model was trained on"
    except LockedError:
        raise
    except DatabaseError as error:
        missing = error.message
    warn(
        f"{missing}: new texts are not checked against those that the model was trained and tested on, and "
        "forgetting is not measured"
    )
    return _Old(missing=missing)


def _prepare(
    config: Config, info: ModelInfo, source: Source, old: _Old, *, new_labels: bool, offline: bool
) -> DataResult:
    """The new texts in their own database, cleaned, labelled and split for the model."""
    sizes: dict[str, Any] = {"valid_size": config.finetune.valid_size, "test_size": config.finetune.test_size}
    if old.split_keys is not None:  # hashes are comparable only with the same split settings
        sizes |= old.split_keys
    data = config.data.changed(sizes)
    demands = Demands(
        info.labels, new_labels, old.tested, old.trained, coding=info.label_coding, text_column=info.text_column
    )
    plan = Plan([Part(source)], data, from_id(info.normalizer), demands)
    cache = config.paths.cache
    try:
        return prepare(paths.finetune_db(cache, plan.fingerprint), plan, cache=cache, offline=offline)
    except LabelError as error:
        if new_labels:
            raise
        more = "To teach the model the data's own labels instead, with a new output layer: --new-labels."
        raise LabelError(error.message, hint=f"{error.hint} {more}") from error


# --- training --------------------------------------------------------------------------------------------------------


def _tune(task: _Task, store: Store) -> FinetuneResult:
    """Train, publish, evaluate and record the model; until the end of all this, the run can be resumed."""
    started, settings = time.perf_counter(), task.settings
    train = store.read("train", settings.sample_size)
    valid = read_at_most(store, "valid", settings.valid_sample_size)
    check_rows(train, valid, store.labels, setting="finetune.sample_size")
    weights_of_classes(settings.class_weights, train.labels, store.labels)  # report mistakes before encoding
    with Run.opened(task.config, f"{task.info.head}-finetune", task.fingerprint(), task.runtime) as run:
        if task.runtime.resume:
            task = replace(task, config=run.resumed_config(task.config, "paths", "cache", "test"))
        result = replace(_tune_in(task, store, (train, valid), run), seconds=time.perf_counter() - started)
        result = replace(result, entry=_entry(task, run, result))
        append_result(paths.results_json(task.config.paths.results_dir), result.entry)
        run.finish()
    return result


def _tune_in(task: _Task, store: Store, rows: tuple[Examples, Examples], run: Run) -> FinetuneResult:
    config, settings = task.config, task.settings
    compute = compute_for(run, device=task.runtime.device, precision=settings.precision)
    run.settle(compute.describe(), encoder=task.loaded.encoder.fingerprint)
    run.note(parent=task.lineage(rows), data={"source": task.data.source, "fingerprint": store.fingerprint})
    tests, missing = _tests(task, store)
    testing.warn_if_seen_by_mini(task.loaded, tests[_NEW])
    before = {} if task.renewed else {name: _probabilities(task, task.loaded, name, one) for name, one in tests.items()}
    session = _session(task, compute)
    train, valid = (encode(session, examples) for examples in rows)
    valid_before = None if task.renewed else metrics.quick(valid.labels, session.predict(valid))
    trainer = new_trainer(
        session,
        train,
        valid,
        settings=settings,
        labels=store.labels,
        seed=config.project.seed,
        layer_decay=config.finetune.layer_decay,
    )
    resumed = load_last(trainer, run)
    fit(trainer, run)
    run.load_best(session.classifier)
    temperature_before = 1.0 if task.renewed else task.info.temperature
    temperature = temperature_of(session, session.single, trainer, otherwise=temperature_before)
    own = _publish(task, session, store, run, rows, temperature=temperature)
    facts = {"train_rows": len(rows[0]), "old_test_missing": missing, "resumed": resumed}
    return _result(task, run, own, tests, before, valid_before=valid_before, **facts)


def _session(task: _Task, compute: Compute) -> Session:
    """The model with the configured encoder layers unfrozen, and a new output layer if its labels change."""
    info, loaded, layers = task.info, task.loaded, task.trainable_layers
    from accelerate.utils import set_seed

    set_seed(task.config.project.seed)
    if task.renewed:
        renew_output(loaded.classifier.head, len(task.data.labels))
        note(f"the output layer is new, for {', '.join(task.data.labels)} instead of {', '.join(info.labels)}")
    if layers == 0 and task.config.finetune.layer_decay is not None:
        note("finetune.layer_decay has no effect: no encoder layer is trained (finetune.trainable_layers)")
    return Session(
        Classifier(Encoder(loaded.encoder.model, layers), loaded.classifier.head),
        loaded.encoder,
        compute=compute,
        cache=task.config.paths.cache,
        max_gb=task.config.cache.max_gb,
        token_budget=task.settings.token_budget,
        max_length=info.max_length,
        max_windows=info.max_windows,
    )


def _publish(
    task: _Task, session: Session, store: Store, run: Run, rows: tuple[Examples, Examples], *, temperature: float
) -> Path:
    """Save the model with updated metadata, including its parent, and publish it."""
    info, trained = task.info, task.trainable_layers != 0
    described = replace(
        info,
        labels=store.labels,
        trainable_layers=task.trainable_layers,
        data_fingerprint=store.fingerprint,
        train_fingerprint=run.meta()["train_fingerprint"],
        run_id=run.id,
        created=now(),
        versions=versions(),
        parent=task.lineage(rows),
        temperature=temperature,
        label_coding={**(store.label_coding or {}), **({} if task.renewed else info.label_coding or {})},
        text_column=info.text_column or store.text_column,
        valid=run.best_epoch()[1],
        data=task.data.source,
        name=run.meta().get("name", ""),
    )
    if trained:
        described = replace(described, encoder_fingerprint=encoder_fingerprint(session.encoder.model))
    if task.old.missing:
        # The old test texts may now have been trained on, so only the new split is valid for tests.
        described = replace(
            described,
            split_fingerprint=store.split_fingerprint,
            train_rows=len(rows[0]),
            trained_on_valid=False,
            valid_rows=len(rows[1]),
            set_aside=0,
        )
    own = own_folder(task.config, described)
    with publishing(task.config) as put:
        save_model(
            own,
            classifier=session.single,
            encoder=session.encoder,
            info=described,
            bundle=task.runtime.bundle_encoder or info.encoder_inside or trained,
            seen=testing.seen_texts(task.loaded),
            card=card_of(task.config, info.head, finetune=task.config.finetune.model_dump(mode="json")),
        )
        put(own, task.target)
    return own


# --- before and after ------------------------------------------------------------------------------------------------

_NEW, _OLD = "new test", "old test"


def _tests(task: _Task, store: Store) -> tuple[dict[str, Examples], str]:
    """The rows to test on: the new test split, and the old one, or the reason why it is missing."""
    wanted = task.config.test.sample_size
    tests = {_NEW: read_at_most(store, "test", wanted, with_raw=True)}
    if task.old.missing or task.renewed:
        return tests, task.old.missing or f"its labels were {', '.join(task.info.labels)}"
    with open_store(task.config.paths.data_db) as old:
        if old.labels != task.info.labels:
            return tests, f"{old.path} has other labels than the model: {', '.join(old.labels)}"
        tests[_OLD] = testing.own_texts(task.loaded, old, read_at_most(old, "test", wanted, with_raw=True))
    return tests, ""


def _probabilities(task: _Task, model: LoadedModel, name: str, examples: Examples) -> np.ndarray:
    """Probabilities (N, C) of a model on one of the tests."""
    return testing.probabilities_of(task.config, model, examples, split=name, device=task.runtime.device)[0]


def _result(
    task: _Task,
    run: Run,
    own: Path,
    tests: dict[str, Examples],
    before: dict[str, np.ndarray],
    *,
    valid_before: dict[str, float] | None,
    **facts: Any,
) -> FinetuneResult:
    """Test the published model on the same rows, and draw the figures."""
    config, info, metric = task.config, task.info, task.settings.metric
    best, valid = run.best_epoch()
    published = load_model(own, encoder=task.runtime.encoder, offline=task.runtime.offline)
    after = {name: _probabilities(task, published, name, examples) for name, examples in tests.items()}
    measured = {name: _measure(task, examples, after[name], before.get(name)) for name, examples in tests.items()}
    sources = {_NEW: task.data.source, _OLD: info.data}
    tested = [Tested(sources[name], name, one.after) for name, one in measured.items()]
    add_figures(config, [own, task.target], published.info, tested)
    name = f"{info.display_name}, fine-tuned"
    draw_curves(config, run, name, data=task.data.source, train_rows=facts["train_rows"], encoder=info.encoder_name)
    files = testing.write_files(
        config, published, tests[_NEW], after[_NEW], None, measured[_NEW].after, name="finetune",
        data=task.data.source, labels=published.info.labels,
    )  # fmt: skip
    return FinetuneResult(
        model=info.display_name,
        model_dir=task.target,
        parent_dir=task.loaded.directory,
        run_dir=run.folder,
        labels=task.data.labels,
        old_labels=info.labels,
        best_epoch=best["epoch"],
        epochs=len(run.epochs()),
        valid=valid,
        valid_before=valid_before,
        improved=None
        if valid_before is None
        else selection_score(valid, metric) > selection_score(valid_before, metric),
        metric=metric,
        left_out={reason: count for reason, count in task.data.report["dropped"].items() if count},
        new_test=measured[_NEW],
        old_test=measured.get(_OLD),
        seconds=0.0,
        files=files,
        entry={},
        **facts,
    )


def _measure(task: _Task, examples: Examples, after: np.ndarray, before: np.ndarray | None) -> Measured:
    level, labels = testing.level_of(task.config), task.data.labels
    measured = Measured(len(examples), metrics.score(examples.labels, after, labels, level))
    if before is None:
        return measured
    comparison = metrics.compare(examples.labels, after.argmax(1), before.argmax(1), level)
    return replace(measured, before=metrics.score(examples.labels, before, labels, level), comparison=comparison)


def _entry(task: _Task, run: Run, result: FinetuneResult) -> dict[str, Any]:
    info = read_info(task.target)
    return {
        "name": f"{result.model}_Finetune",
        "created": now(),
        "run": run.id,
        "model_dir": str(result.model_dir),
        "parent": task.lineage(),
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(result.seconds, 3),
        "valid": result.valid,
        "valid_before": result.valid_before,
        "improved": result.improved,
        "split": "finetune",
        "rows": result.new_test.rows,
        "labels": list(result.labels),
        "model_fingerprint": info.weights_sha256,
        "train_fingerprint": info.train_fingerprint,
        "data_fingerprint": info.data_fingerprint,
        "test_config": task.config.test.model_dump(mode="json"),
        "test": result.new_test.after.to_dict(),
        "new_test": _plain(result.new_test),
        "old_test": _plain(result.old_test) if result.old_test is not None else None,
        "old_test_missing": result.old_test_missing or None,
        "data": {"source": task.data.source, "train_rows": result.train_rows, "left_out": result.left_out},
        "predictions_sha256": sha256(result.files["predictions"]),
        "files": {name: str(path) for name, path in result.files.items()},
        "config": task.config.to_keep().model_dump(mode="json", include={"project", "data", "finetune", info.head}),
        "versions": versions(),
    }


def _plain(measured: Measured) -> dict[str, Any]:
    return {
        "rows": measured.rows,
        "after": measured.after.to_dict(),
        "before": measured.before.to_dict() if measured.before else None,
        "comparison_with_before": measured.comparison.to_dict() if measured.comparison else None,
    }


def show(result: FinetuneResult) -> None:
    """Show a fine-tuning: model directory, scores before and after on new and old texts, and forgetting."""
    resumed = " (resumed)" if result.resumed else ""
    console.say(
        f"{result.model_dir} fine-tuned{resumed} from {result.parent_dir} in {console.duration(result.seconds)}; "
        f"run {result.run_dir}"
    )
    console.say(f"{tables.best_epoch(result)}, on the new validation rows {console.metric_values(result.valid)}")
    if result.left_out:
        console.say("dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in result.left_out.items()))
    if result.labels != result.old_labels:
        console.say(
            f"the output layer was replaced: its labels are {', '.join(result.labels)}, "
            f"and were {', '.join(result.old_labels)}"
        )
    _show_before_and_after(result)
    if result.improved is False and result.valid_before is not None:
        name = result.metric
        console.warn(
            f"no epoch improved {console.metric_name(name)} on the new validation rows "
            f"({console.metric_value(name, result.valid[name])}, before: "
            f"{console.metric_value(name, result.valid_before[name])}); the best epoch was published anyway"
        )
    tables.files(result.files)


def _show_before_and_after(result: FinetuneResult) -> None:
    tests = {count(result.new_test.rows, "new text"): result.new_test}
    if result.old_test is not None:
        tests[f"{count(result.old_test.rows, 'text')} of the old test split"] = result.old_test
    rows = [
        [
            f"{words}: {name}",
            tables.percent(getattr(test.before, field)) if test.before else "-",
            tables.percent(getattr(test.after, field)),
        ]
        for words, test in tests.items()
        for name, field in (("macro-F1", "macro_f1"), ("accuracy", "accuracy"))
    ]
    level = 100 * result.new_test.after.confidence
    columns = [f"in percent\n[{level:g} % interval]", "before", "after"]
    console.table(f"{result.model} before and after", columns, rows)
    if result.new_test.comparison is not None:
        verdict = tables.difference(result.new_test.comparison, "the fine-tuned model", "the model before")
        console.say(f"New texts: {verdict}")
    if result.old_test is None or result.old_test.comparison is None:
        console.say(f"Old test split: forgetting was not measured ({result.old_test_missing})")
        return
    gap = result.old_test.comparison
    worse = any(gap.better(metric) < 0 for metric in COMPARED)
    forgot = "the model is worse than before" if worse else "no sign of forgetting"
    console.say(f"Old test split: {forgot}. {tables.difference(gap, 'the fine-tuned model', 'the model before')}")
