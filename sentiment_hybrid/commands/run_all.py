"""``senthy run-all``: data, then train and test for each model, then one table that compares them all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import paths
from sentiment_hybrid.commands import data as data_command
from sentiment_hybrid.commands import test as test_command
from sentiment_hybrid.commands import train as train_command
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import SenthyError

if TYPE_CHECKING:
    from sentiment_hybrid.commands.data import DataResult
    from sentiment_hybrid.commands.test import TestResult
    from sentiment_hybrid.engine.metrics import Comparison


@dataclass(frozen=True)
class RunAllResult:
    """Tests by display name, pairs compared, steps skipped, and the models that failed with what they said."""

    data: DataResult
    tests: dict[str, TestResult]
    comparisons: list[tuple[Comparison, str, str]]
    skipped: list[str]
    failures: dict[str, Exception]
    files: dict[str, Path]
    seconds: float
    trained: dict[str, Any] = field(default_factory=dict)


def run(
    config: Config,
    models: Sequence[str] = ("lstm", "han"),
    *,
    force: bool = False,
    refresh: bool = False,
    device: str = "auto",
    offline: bool = False,
    encoder: str | Path | None = None,
    bundle_encoder: bool = False,
    resume: bool = False,
) -> RunAllResult:
    """Every step whose inputs have changed (all with ``force``); one model's failure leaves the others their work.

    Raises:
        SenthyError: the data cannot be prepared, and so nothing can run. Failures of models are in the result.
    """
    started = time.perf_counter()
    prepared = data_command.run(config, refresh=refresh, offline=offline)
    options: dict[str, Any] = {"device": device, "offline": offline, "encoder": encoder}
    tests: dict[str, TestResult] = {}
    trained: dict[str, Any] = {}
    failures: dict[str, Exception] = {}
    skipped: list[str] = []
    for model in dict.fromkeys(models):
        name = paths.DISPLAY_NAMES[model]
        try:
            if force or not _is_trained(config, model, prepared.fingerprint, bundle=bundle_encoder):
                # The models that a stop has not reached have nothing to resume.
                resumes = resume and train_command.can_resume(config, model, prepared.fingerprint)
                trained[name] = train_command.run(
                    config, model, resume=resumes, bundle_encoder=bundle_encoder, **options
                )
                tests[name] = trained[name].test
            else:
                skipped.append(f"train {model}")
                tests[name] = _test(config, model, options, skipped)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other models go on
            failures[name] = error
            _tell_failure(name, error)
    files = {"results": paths.results_json(config.paths.results_dir)}
    comparisons: list[tuple[Comparison, str, str]] = []
    if tests:
        try:
            comparisons = _compare(config, tests)
            files["comparison"] = _draw(config, tests)
        except SenthyError as error:
            failures["comparison"] = error
    seconds = time.perf_counter() - started
    return RunAllResult(prepared, tests, comparisons, skipped, failures, files, seconds, trained)


def _is_trained(config: Config, model: str, data_fingerprint: str, *, bundle: bool) -> bool:
    """Whether the published model is the one that training would give again; says so if it is."""
    from sentiment_hybrid.console import note

    if not train_command.is_published(config, model, data_fingerprint, bundle=bundle):
        return False
    name = paths.DISPLAY_NAMES[model]
    note(f"{name} is already trained on this data with these settings (--force trains it again)")
    return True


def _test(config: Config, model: str, options: dict[str, Any], skipped: list[str]) -> TestResult:
    """The last test of the published model if nothing has changed since, else a new one."""
    from sentiment_hybrid.engine.checkpoint import read_info

    directory = paths.published_model(config.paths.models_dir, model)
    kept = test_command.kept_result(config, directory, read_info(directory))
    if kept is not None:
        skipped.append(f"test {model}")
        return kept
    return test_command.run(config, model, **options)


def _compare(config: Config, tests: dict[str, TestResult]) -> list[tuple[Comparison, str, str]]:
    """Each pair of models, and each model against the baseline, on the rows that both were tested on."""
    import numpy as np

    from sentiment_hybrid.engine import metrics
    from sentiment_hybrid.reporting.predictions import read_predictions

    level: dict[str, Any] = {
        "confidence": config.test.confidence,
        "resamples": config.test.resamples,
        "seed": config.project.seed,
    }
    compared = []
    said = {name: read_predictions(test.files["predictions"], test.labels) for name, test in tests.items()}
    for first, second in itertools.combinations(said, 2):
        one, two = said[first], said[second]
        if np.array_equal(one.rows, two.rows):
            compared.append((metrics.compare(one.labels, one.predicted, two.predicted, **level), first, second))
    compared += [(test.comparison, name, "the TF-IDF baseline") for name, test in tests.items() if test.comparison]
    return compared


def _draw(config: Config, tests: dict[str, TestResult]) -> Path:
    from sentiment_hybrid.reporting.plots import comparison

    rows = [{"name": name, "accuracy": t.scores.accuracy, "macro_f1": t.scores.macro_f1} for name, t in tests.items()]
    baseline = next((test.baseline for test in tests.values() if test.baseline is not None), None)
    if baseline is not None:
        rows.append({"name": "TF-IDF baseline", "accuracy": baseline.accuracy, "macro_f1": baseline.macro_f1})
    path = paths.comparison_png(config.paths.results_dir)
    tested = next(iter(tests.values()))
    comparison(
        path, rows, title=f"{config.project.name}: {tested.rows:,} test texts, {config.test.confidence:.0%} intervals"
    )
    return path


def _tell_failure(name: str, error: Exception) -> None:
    import logging

    from sentiment_hybrid.console import warn

    warn(f"{name} failed, the others go on: {error}")
    logging.getLogger(__name__).debug("%s failed", name, exc_info=error)
