"""``senthy compare``: two tested models side by side, on the rows that both were tested on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sentiment_hybrid import console, paths, tables
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.evaluation.metrics import Comparison
from sentiment_hybrid.engine.inference import testing
from sentiment_hybrid.engine.inference.tested import identifier, latest_tests, predictions_of
from sentiment_hybrid.engine.inference.testing import TestResult
from sentiment_hybrid.engine.training.runs import Run, flat
from sentiment_hybrid.errors import UsageError, count
from sentiment_hybrid.reporting.predictions import read_predictions

#: Sections that shape every model.
_SHARED = ("data", "encoder", "distill")


@dataclass(frozen=True)
class CompareResult:
    """Two tests of the same rows; ``settings`` are those that differ, dotted key -> both values."""

    names: tuple[str, str]
    tests: tuple[TestResult, TestResult]
    comparison: Comparison
    settings: dict[str, tuple[Any, Any]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "models": list(self.names),
            "tests": [test.entry["test"] for test in self.tests],
            "comparison": self.comparison.to_dict(),
            "settings": {key: list(values) for key, values in self.settings.items()},
        }


def run(config: Config, first: str, second: str) -> CompareResult:
    """Compare two models, each named by its run, its directory or its name in the results file.

    Raises:
        UsageError: one of them has no test results, both are one model, or they were tested on different rows.
        DataError: the predictions of one of them are gone or were changed.
        OutputError: the results file cannot be read.
    """
    import numpy as np

    notes: list[str] = []
    of_first, of_second = (latest_tests(config, [name], notes) for name in (first, second))
    pairs = [(a, b) for a in reversed(of_first) for b in reversed(of_second) if _where(a) == _where(b) and a is not b]
    pairs = [(a, b) for a, b in pairs if identifier(a) != identifier(b)]
    if not pairs and {*map(identifier, of_first)} == {*map(identifier, of_second)}:
        raise UsageError(f"{first} and {second} are one model", hint="Name two models; senthy models list shows them.")
    if not pairs:
        raise UsageError(
            f"{first} and {second} were not tested on the same rows",
            hint="Test both on the same data: senthy test --load-model-path DIR --data FILE",
        )
    for line in notes:
        console.warn(line)
    for tests in pairs:
        one, two = (read_predictions(predictions_of(test), test.labels) for test in tests)
        if np.array_equal(one.rows, two.rows) and np.array_equal(one.labels, two.labels):
            break
    else:
        raise UsageError(
            f"{first} and {second} were tested on different rows of {pairs[0][0].split}",
            hint="Test both again on the same data and with the same test.sample_size.",
        )
    level = testing.level_of(config)
    comparison = metrics.compare(one.labels, one.predicted, two.predicted, level)
    names = tests[0].model, tests[1].model
    if names[0] == names[1]:
        names = identifier(tests[0]), identifier(tests[1])
    return CompareResult(names, tests, comparison, _different(config, tests))


def _where(test: TestResult) -> tuple[Any, ...]:
    """What a test was on; files differ by their rows."""
    return test.split, test.labels, test.rows


def _different(config: Config, tests: tuple[TestResult, TestResult]) -> dict[str, tuple[Any, Any]]:
    """The settings of the two trainings that differ; `head` and `train` are those of each one's own model.

    Empty if those of one are not known.
    """
    one, two = (_settings(config, test) for test in tests)
    keys = sorted(one.keys() | two.keys()) if one and two else []
    return {key: (one.get(key), two.get(key)) for key in keys if one.get(key) != two.get(key)}


def _settings(config: Config, test: TestResult) -> dict[str, Any]:
    run = Run(paths.runs_dir(config.paths.results_dir) / identifier(test))
    settings = test.entry.get("config") or run.settings()
    own = settings.get(run.id.partition("-")[0], {})
    chosen = {name: settings[name] for name in _SHARED if name in settings}
    return flat({**chosen, **{name: own[name] for name in ("head", "train") if name in own}})


def show(result: CompareResult) -> None:
    """Show the figures of both, whether they differ beyond chance, and the settings that differ."""
    scores = {name: test.scores for name, test in zip(result.names, result.tests, strict=True)}
    tables.scores(f"Tested on {count(result.tests[0].rows, 'text')} of {result.tests[0].split}", scores)
    tables.differences([(result.comparison, *result.names)])
    comparison = result.comparison
    console.say(
        f"{result.names[0]} alone is right on {count(comparison.only_a, 'text')}, {result.names[1]} alone on "
        f"{comparison.only_b:,}."
    )
    if result.settings:
        rows = [[key, *map(json.dumps, values)] for key, values in result.settings.items()]
        console.table("Settings that differ", ["setting", *result.names], rows, left=3)
