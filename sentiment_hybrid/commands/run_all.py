"""``senthy run-all``: data, then train, optimize or test each model, then one table that compares them all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sentiment_hybrid import console, paths, tables
from sentiment_hybrid.commands import data as data_command
from sentiment_hybrid.commands import optimize as optimize_command
from sentiment_hybrid.commands import test as test_command
from sentiment_hybrid.commands import train as train_command
from sentiment_hybrid.commands.data import DataResult
from sentiment_hybrid.commands.optimize import OptimizeResult
from sentiment_hybrid.commands.train import TrainResult
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note, warn
from sentiment_hybrid.engine.evaluation.metrics import Comparison, Scores
from sentiment_hybrid.engine.inference import testing
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.inference.testing import TestResult, kept_result
from sentiment_hybrid.engine.training.fingerprint import can_resume, is_published
from sentiment_hybrid.errors import SenthyError, UsageError, count
from sentiment_hybrid.heads import display_name, encoder_family
from sentiment_hybrid.reporting.canvas import titled
from sentiment_hybrid.reporting.plots import comparison
from sentiment_hybrid.reporting.predictions import read_predictions
from sentiment_hybrid.runtime import Runtime

Mode = Literal["train", "optimize", "test"]


@dataclass(frozen=True)
class RunAllResult:
    """Tests by display name, pairs compared, steps skipped, and the models that failed with their errors.

    ``trained`` and ``searches`` are the new results, by display name.
    """

    data: DataResult
    tests: dict[str, TestResult]
    comparisons: list[tuple[Comparison, str, str]]
    skipped: list[str]
    failures: dict[str, Exception]
    files: dict[str, Path]
    seconds: float
    trained: dict[str, TrainResult] = field(default_factory=dict)
    searches: dict[str, OptimizeResult] = field(default_factory=dict)

    @property
    def seeds(self) -> dict[str, Any]:
        """Summaries over seeds, for models that were trained with several."""
        return {name: seeds for name, test in self.tests.items() if (seeds := test.entry.get("seeds"))}

    @property
    def baseline(self) -> Scores | None:
        """The figures of the baseline, if there is one."""
        return next((test.baseline for test in self.tests.values() if test.baseline is not None), None)


@dataclass(frozen=True)
class _Options:
    force: bool
    seeds: int
    runtime: Runtime


def run(
    config: Config,
    models: Sequence[str] = ("lstm", "han"),
    runtime: Runtime = Runtime(),
    *,
    mode: Mode = "train",
    seeds: int = 1,
    force: bool = False,
    refresh: bool = False,
) -> RunAllResult:
    """Run every step whose inputs have changed (all with ``force``); if one model fails, the others continue.

    Args:
        runtime: as for ``train``; ``resume`` continues unfinished trainings; a search always resumes.

    Raises:
        SenthyError: the data cannot be prepared. Failures of models are part of the result.
    """
    started = time.perf_counter()
    if seeds > 1 and mode != "train":
        raise UsageError("--seeds applies to training", hint="Use it with --mode train.")
    if mode == "optimize":
        _check_studies(config, models)
    prepared = data_command.run(config, refresh=refresh, offline=runtime.offline)
    options = _Options(force, seeds, runtime)
    files = {"results": paths.results_json(config.paths.results_dir)}
    result = RunAllResult(prepared, {}, [], [], {}, files, 0.0)
    for model in dict.fromkeys(models):
        name = display_name(model, encoder_family(config.encoder.name))
        try:
            with console.speaking(name):
                result.tests[name] = _DONE_BY[mode](config, model, options, result)
        except Exception as error:
            result.failures[name] = error
            warn(f"{name} failed; continuing with the others: {error}")
            logging.getLogger(__name__).debug("%s failed", name, exc_info=error)
    if result.tests:
        try:
            predictions = {
                name: read_predictions(test.files["predictions"], test.labels) for name, test in result.tests.items()
            }
            found = testing.comparisons(config, predictions, result.tests, baseline="the TF-IDF baseline")
            result.comparisons.extend(found)
            result.files["comparison"] = _draw(config, result)
        except SenthyError as error:
            result.failures["comparison"] = error
    return replace(result, seconds=time.perf_counter() - started)


def _check_studies(config: Config, models: Sequence[str]) -> None:
    """Raises UsageError if several models would share a study."""
    searches = [config.model(model).hpo for model in dict.fromkeys(models)]
    # Without a storage, each model has its own file, so names cannot clash.
    named = [(one.storage, one.study_name) for one in searches if one.storage and one.study_name]
    if len(set(named)) < len(named):
        raise UsageError(
            f"{', '.join(models)} have the same storage and study_name, but models cannot share a study",
            hint="Omit --study-name: each search then uses its own study in the same storage.",
        )


def _train(config: Config, model: str, options: _Options, result: RunAllResult) -> TestResult:
    """Train a model unless it is already published; returns its new or stored test."""
    data, name = result.data.fingerprint, display_name(model, encoder_family(config.encoder.name))
    if not options.force and is_published(config, model, data, bundle=options.runtime.bundle_encoder):
        note(f"{name} is already trained on this data with these settings (--force repeats it)")
        result.skipped.append(f"train {model}")
        return _test(config, model, options, result)
    # Models that had not been started have nothing to resume; with several seeds, finished ones are detected.
    resumes = options.runtime.resume and (options.seeds > 1 or can_resume(config, model, data))
    trained = train_command.run(config, model, replace(options.runtime, resume=resumes), seeds=options.seeds)
    assert trained.test is not None
    result.trained[name] = trained
    return trained.test


def _optimize(config: Config, model: str, options: _Options, result: RunAllResult) -> TestResult:
    """Search to the total of trials and train the best; returns the final model's test."""
    found = optimize_command.run(config, model, options.runtime)
    result.searches[display_name(model, encoder_family(config.encoder.name))] = found
    if found.trained is None:
        result.skipped.append(f"train {model}")
    assert found.test is not None
    return found.test


def _test(config: Config, model: str, options: _Options, result: RunAllResult) -> TestResult:
    """The stored test of the published model if nothing has changed since, else a new one."""
    directory = paths.published_model(config.paths.models_dir, model)
    kept = None if options.force else kept_result(config, directory, read_info(directory))
    if kept is not None:
        result.skipped.append(f"test {model}")
        return kept
    return test_command.run(config, model, options.runtime)


_DONE_BY: dict[Mode, Callable[[Config, str, _Options, RunAllResult], TestResult]] = {
    "train": _train,
    "optimize": _optimize,
    "test": _test,
}


def _draw(config: Config, result: RunAllResult) -> Path:
    rows = [
        {"name": name, "accuracy": t.scores.accuracy, "macro_f1": t.scores.macro_f1, "seeds": result.seeds.get(name)}
        for name, t in result.tests.items()
    ]
    if (baseline := result.baseline) is not None:
        rows.append({"name": "TF-IDF baseline", "accuracy": baseline.accuracy, "macro_f1": baseline.macro_f1})
    path = config.project.figure(paths.comparison_png(config.paths.results_dir))
    tested = next(iter(result.tests.values()))
    title = titled(
        f"{config.project.name}: comparison, {100 * config.test.confidence:g} % intervals",
        data=config.data.test_source or config.data.source,
        rows=count(tested.rows, "test text"),
        encoder=config.encoder.name,
    )
    comparison(path, rows, title=title)
    return path


def show(result: RunAllResult) -> None:
    """Show searches, then all models and the baseline in one table, and whether they differ."""
    for search in result.searches.values():
        optimize_command.show_search(search)
    for name, summary in result.seeds.items():
        tables.seeds(name, summary)
    scores = {name: test.scores for name, test in result.tests.items()}
    if result.baseline is not None:
        scores["baseline"] = result.baseline
    if scores:
        tables.scores(f"Tested on {count(next(iter(result.tests.values())).rows, 'text')}", scores)
    tables.differences(result.comparisons)
    tables.varied(result.seeds)
    tables.files(result.files)
    for name, failure in result.failures.items():
        console.error(f"{name}: {getattr(failure, 'message', None) or failure}", hint=getattr(failure, "hint", ""))
