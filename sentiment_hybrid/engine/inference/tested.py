"""Tests in the results file: the last one of each model on each set of rows, and who was tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.inference.predictor import model_directory
from sentiment_hybrid.engine.inference.testing import TestResult
from sentiment_hybrid.errors import DataError, OutputError, UsageError, count
from sentiment_hybrid.files import sha256
from sentiment_hybrid.heads import HEADS, ROBERTA
from sentiment_hybrid.reporting.results import read_results


def latest_tests(config: Config, names: Sequence[str], notes: list[str]) -> list[TestResult]:
    """The last test of each model on each set of rows, the oldest first.

    Raises:
        OutputError: there is none, or the results file is damaged.
        UsageError: a name is of none of them.
    """
    place = paths.results_json(config.paths.results_dir)
    found: dict[tuple[Any, ...], TestResult] = {}
    damaged = 0
    for entry in read_results(place):
        if "test" not in entry:
            continue
        try:
            display = str(entry["name"]).rsplit("_", 1)[0]
            result = TestResult.of(display, Path(str(entry.get("model_dir", ""))), entry)
            key = (entry["model_fingerprint"], entry["data_fingerprint"], result.split, result.rows, result.labels)
            found.pop(key, None)
            _ = result.files["predictions"], dict(result.overlap or {})
            found[key] = result
        except (KeyError, TypeError, ValueError, AttributeError):
            damaged += 1
    if damaged:
        notes.append(f"left out: {count(damaged, 'entry', 'entries')} of {place} that could not be read")
    tests = list(found.values())
    if not tests:
        raise OutputError(f"there are no test results in {place}", hint="Train and test a model first: senthy train")
    for name in names:
        if not any(_is_named(test, name) for test in tests):
            known = dict.fromkeys(identifier(test) for test in tests)
            heads = [head for head in HEADS if any(_is_named(test, head) for test in tests)]
            raise UsageError(
                f"no test results of {name}", hint=f"Use one of {', '.join([*list(known)[-10:], *heads])}."
            )
    return [test for test in tests if not names or any(_is_named(test, name) for name in names)]


def identifier(test: TestResult) -> str:
    """What people name a tested model by: its run, or its folder."""
    folder = Path(str(test.entry.get("files", {}).get("predictions", ""))).parent
    run = folder.name if folder.parent.name == "tests" else ""
    return str(test.entry.get("run") or run or test.model_dir)


def _is_named(test: TestResult, name: str) -> bool:
    run_id = identifier(test)
    known = {run_id, test.model, str(test.entry["name"]), str(test.model_dir)}
    if name in known or str(model_directory(name)) in known:
        return True
    if name in HEADS:  # its display name, whatever encoder it stands on
        return test.model.partition("-")[0].removesuffix(ROBERTA) == HEADS[name].display_name.removesuffix(ROBERTA)
    return "-" in name and run_id.startswith(name)


def predictions_of(test: TestResult) -> Path:
    """The predictions of a test, as it wrote them. Raises DataError if they are gone or changed since."""
    path = test.files["predictions"]
    try:
        same = sha256(path) == test.entry.get("predictions_sha256")
    except OSError as error:
        raise DataError(f"its predictions {path} cannot be read") from error
    if not same:
        raise DataError(f"its predictions {path} were changed or replaced after the test")
    return path
