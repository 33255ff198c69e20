"""``senthy train``: open the data, prepare a trainer, fit it, publish its best epoch, test that once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sentiment_hybrid import console, distributed, paths
from sentiment_hybrid.config.schema import JOINT, Config
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.device import resolve
from sentiment_hybrid.engine.inference.kept_models import NEEDED, kept_models, publishing, remove_old
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.inference.testing import TestResult, evaluate
from sentiment_hybrid.engine.training.events import selection_score
from sentiment_hybrid.engine.training.fingerprint import can_resume, train_fingerprint
from sentiment_hybrid.engine.training.prepare import prepare, read_rows
from sentiment_hybrid.engine.training.publish import publish
from sentiment_hybrid.engine.training.runner import fit, load_last
from sentiment_hybrid.engine.training.runs import Run, now, versions
from sentiment_hybrid.engine.training.teacher import check_teacher
from sentiment_hybrid.files import check_writable
from sentiment_hybrid.reporting.results import append_result
from sentiment_hybrid.runtime import Runtime


@dataclass(frozen=True)
class Purpose:
    """Why a model is trained: the suffix of its entry in the results, and further facts for the entry.

    ``include_valid`` also trains on the validation rows, for exactly the configured epochs; the last one is kept.
    A search has used ``searched`` validation rows (None: all of them).
    """

    name: str = "Train"
    include_valid: bool = False
    searched: int | None = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainResult:
    """The result of a training; ``seeds`` is a summary over several seeds.

    ``valid`` has the figures of the best epoch; it is empty without validation.
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


def train(
    config: Config,
    model: str = "lstm",
    *,
    seeds: int = 1,
    test: bool = True,
    device: str = "auto",
    offline: bool = False,
    encoder: str | Path | None = None,
    bundle_encoder: bool = False,
    resume: bool = False,
) -> TrainResult:
    """Train, publish and test a model.

    Args:
        config: the whole configuration; its ``data_db`` must have been prepared by ``senthy data``.
        model: ``lstm``, ``han`` or ``linear``.
        seeds: how many models to train, from project.seed upwards; validation chooses the one that is published.
        test: test the published model on the test split and write the results.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        offline: never use the network.
        encoder: a local copy of the encoder that the configuration names.
        bundle_encoder: store a frozen hub encoder in the model directory, too.
        resume: continue the newest unfinished run of the same configuration and data; with ``seeds``, continue where
            the same command was stopped.

    Raises:
        SenthyError: of the kind that fits; see `sentiment_hybrid.errors`.
    """
    return run(config, model, Runtime(device, offline, encoder, bundle_encoder, resume), seeds=seeds, test=test)


def run(
    config: Config,
    model: str,
    runtime: Runtime = Runtime(),
    *,
    seeds: int = 1,
    test: bool = True,
    purpose: Purpose = Purpose(),
) -> TrainResult:
    """As `train`; several processes started by torchrun or accelerate launch train one model together.

    The main process writes, and all return the same result. ``optimize`` passes its own ``purpose``.
    """
    _check(config, runtime)
    published = paths.published_model(config.paths.models_dir, model)
    if seeds > 1:
        return _run_seeds(config, model, runtime, seeds, published, test=test, purpose=purpose)
    (result,) = _train(config, model, runtime, {model: published}, test=test, purpose=purpose)
    return result


def run_joint(config: Config, runtime: Runtime = Runtime(), *, test: bool = True) -> tuple[TrainResult, ...]:
    """Train the heads of ``joint.models`` together, with the sum of their losses; returns the result of each."""
    _check(config, runtime)
    purpose = Purpose(name="Joint", facts={JOINT: config.joint.model_dump(mode="json")})
    targets = {head: paths.published_model(config.paths.models_dir, head) for head in config.heads(JOINT)}
    return _train(config, JOINT, runtime, targets, test=test, purpose=purpose)


def _check(config: Config, runtime: Runtime) -> None:
    distributed.join(resolve(runtime.device).device.type)
    distributed.from_main(check_writable, config.paths.models_dir, config.paths.results_dir)


def _train(
    config: Config, model: str, runtime: Runtime, targets: Mapping[str, Path | None], *, test: bool, purpose: Purpose
) -> tuple[TrainResult, ...]:
    """Open, prepare, fit, publish, test; returns one result for each head in ``targets``.

    A target is where the model is published; with None it is only saved, as a candidate.
    """
    started, include_valid = time.perf_counter(), purpose.include_valid
    with distributed.together(open_store, config.paths.data_db) as store:
        distributed.together(check_teacher, config, store.labels)
        rows = distributed.together(read_rows, config, model, store, include_valid=include_valid)
        fingerprint = distributed.together(
            train_fingerprint, config, model, store.fingerprint, include_valid=include_valid
        )
        distributed.check_same(fingerprint, "settings, a database or an encoder")
        with Run.opened(config, model, fingerprint, runtime, data_fingerprint=store.fingerprint) as run:
            # A teacher may have been moved; the fingerprint identifies it by its content.
            free = ("paths", "distill", "cache", "test")
            settings = run.resumed_config(config, *free) if runtime.resume else config
            session, trainer = prepare(settings, model, runtime, store, rows, run)
            resumed = load_last(trainer, run)

            fit(trainer, run)

            bundle, searched = runtime.bundle_encoder, purpose.searched
            folders = distributed.from_main(
                publish, settings, model, store, session, trainer, run, targets, bundle=bundle, searched=searched
            )
            facts = {"seconds": time.perf_counter() - started, "resumed": resumed}
            facts["encoder_passes"] = sum(distributed.gather(session.states.passes if session.states else 0))
            results = []
            for head, target in targets.items():
                result = distributed.from_main(_result, run, target or folders[head], **facts)
                if test:  # in the run's own folder, since another process may have published another model by now
                    tested = distributed.from_main(evaluate, config, head, runtime, load_model_path=folders[head])
                    result = distributed.from_main(_record, config, head, purpose, result, tested)
                results.append(result)
            # Last, because until then the run can be resumed.
            run.finish(encoder_passes=facts["encoder_passes"], **{NEEDED: None in targets.values()})
    return tuple(results)


def _result(run: Run, model_dir: Path, **facts: Any) -> TrainResult:
    best, valid = run.best_epoch()
    return TrainResult(
        model=read_info(model_dir).display_name,
        model_dir=model_dir,
        run_dir=run.folder,
        best_epoch=best["epoch"],
        epochs=len(run.epochs()),
        valid=valid,
        **facts,
    )


def _record(
    config: Config, model: str, purpose: Purpose, result: TrainResult, test: TestResult, seed: int | None = None
) -> TrainResult:
    """Add the test to the result and to the results file; ``seed`` is given if the model is one of several."""
    entry = {
        "name": f"{result.model}_{purpose.name}",
        "created": now(),
        "run": result.run_dir.name,
        "model_dir": str(result.model_dir) if seed is None or result.seeds else None,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(result.seconds, 3),
        "valid": result.valid,
        **test.entry,
        **purpose.facts,
        **({} if seed is None else {"seed": seed, "seeds": result.seeds}),
        "config": config.to_keep().model_dump(mode="json", include={"project", "data", "encoder", model}),
        "versions": versions(),
    }
    append_result(paths.results_json(config.paths.results_dir), entry)
    return replace(result, test=replace(test, entry=entry, model_dir=result.model_dir))


# --- several seeds ---------------------------------------------------------------------------------------------------


def _run_seeds(
    config: Config, model: str, runtime: Runtime, seeds: int, published: Path, *, test: bool, purpose: Purpose
) -> TrainResult:
    """One run per seed; the model with the best validation score is published, and all are tested, that one last."""
    first, metric = config.project.seed, config.model(model).train.metric
    configs = {seed: config.changed({"project.seed": seed}) for seed in range(first, first + seeds)}
    trained = {seed: _run_seed(of, model, runtime, purpose) for seed, of in configs.items()}
    best = max(trained, key=lambda seed: selection_score(trained[seed].valid, metric))
    order = sorted(trained, key=lambda seed: seed == best)  # the entry of the best one is the newest

    def publish_best() -> TrainResult:
        with publishing(config) as put:
            put(trained[best].model_dir, published)
        results = trained | {best: replace(trained[best], model_dir=published)}
        tests: dict[int, TestResult] = {}
        for seed in order if test else ():
            with console.speaking(f"seed {seed}"):
                tests[seed] = evaluate(configs[seed], model, runtime, load_model_path=trained[seed].model_dir)
        results[best] = replace(results[best], seeds=_over_seeds(results, tests, published=best))
        for seed, tested in tests.items():
            results[seed] = _record(configs[seed], model, purpose, results[seed], tested, seed)
        for result in trained.values():
            Run(result.run_dir).note(**{NEEDED: False})
        with publishing(config):
            remove_old(config, read_info(published))
        return results[best]

    return distributed.from_main(publish_best)


def _run_seed(config: Config, model: str, runtime: Runtime, purpose: Purpose) -> TrainResult:
    """Train one of several seeds, or, when resuming, reuse or continue its run."""
    data_fingerprint = distributed.together(_data_fingerprint, config)
    if runtime.resume:
        fingerprint = train_fingerprint(config, model, data_fingerprint)
        if (done := distributed.from_main(_done_seed, config, fingerprint)) is not None:
            return done
        runtime = replace(runtime, resume=can_resume(config, model, data_fingerprint))
    with console.speaking(f"seed {config.project.seed}"):
        (result,) = _train(config, model, runtime, {model: None}, test=False, purpose=purpose)
    return result


def _done_seed(config: Config, fingerprint: str) -> TrainResult | None:
    """The result of a finished candidate with this fingerprint, if there is one."""
    for model in kept_models(config.paths.models_dir):
        run = Run(paths.runs_dir(config.paths.results_dir) / model.info.run_id)
        if model.info.train_fingerprint == fingerprint and run.meta().get(NEEDED) and "finished" in run.meta():
            return _result(run, model.directory, resumed=True, encoder_passes=0, seconds=0.0)
    return None


def _data_fingerprint(config: Config) -> str:
    with open_store(config.paths.data_db) as store:
        return store.fingerprint


def _over_seeds(
    results: Mapping[int, TrainResult], tests: Mapping[int, TestResult], *, published: int
) -> dict[str, Any]:
    """The metrics of all seeds with mean and standard deviation, and which seed was published."""
    figures = {f"valid_{name}": [one.valid[name] for one in results.values()] for name in ("macro_f1", "accuracy")}
    if tests:
        scores = [tests[seed].scores for seed in results]
        figures["test_macro_f1"] = [one.macro_f1.value for one in scores]
        figures["test_accuracy"] = [one.accuracy.value for one in scores]
    return {
        "seeds": list(results),
        "published": published,
        "figures": {
            name: {"mean": statistics.fmean(values), "std": statistics.stdev(values), "values": values}
            for name, values in figures.items()
        },
    }
