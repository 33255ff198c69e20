"""``senthy report``: one page about models, searches and data, or the table of a paper."""

from __future__ import annotations

import heapq
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sentiment_hybrid import __version__, console, paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.slice_column import marks_of, source_of, values_by_row
from sentiment_hybrid.data.store import Split, open_store
from sentiment_hybrid.engine.evaluation.slices import LEAST_ROWS, Membership
from sentiment_hybrid.engine.evaluation.triage import risk_coverage
from sentiment_hybrid.engine.inference import testing
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.inference.opening import open_model
from sentiment_hybrid.engine.inference.tested import identifier, latest_tests, predictions_of
from sentiment_hybrid.engine.inference.testing import TestResult
from sentiment_hybrid.engine.training.runs import Run, flat
from sentiment_hybrid.errors import DatabaseError, DataError, ModelError, SenthyError, UsageError, count
from sentiment_hybrid.files import replace_text
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.redaction import redact
from sentiment_hybrid.reporting import paper
from sentiment_hybrid.reporting.page.content import (
    Check,
    Curve,
    DataCard,
    Group,
    Mistake,
    ModelFigures,
    Report,
    Search,
    Word,
)
from sentiment_hybrid.reporting.page.render import render
from sentiment_hybrid.reporting.predictions import Predictions, read_predictions, stream_predictions
from sentiment_hybrid.reporting.results import read_results
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tables import mean_and_std
from sentiment_hybrid.tuning import study

if TYPE_CHECKING:
    from sentiment_hybrid.engine.inference.explanations import Explanation

Format = Literal["html", "md", "latex", "csv"]
_SUFFIXES: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".tex": "latex", ".csv": "csv"}

_ANOTHER = "Choose another file: --output FILE"
#: Mistakes shown per model, and characters of a text.
_MISTAKES, _LONGEST = 20, 2_000
#: Models on one page, the newest of each group; pairs grow with the square.
_MOST_MODELS = 12
_TARGETS = (0.95, 0.98)
_CURVE_POINTS = 200
#: What is shown of a row that a check has flagged.
_FLAGGED = ("row", "text", "label", "likely_label", "why", "detail", "confidence")


@dataclass(frozen=True)
class ReportResult:
    """The report, and the file it was written to; None for a table on standard output."""

    report: Report
    path: Path | None
    table: str = ""


def run(
    config: Config,
    names: Sequence[str] = (),
    *,
    output: Path | None = None,
    style: Format | None = None,
    slice_by: str | None = None,
    explain: bool = True,
    runtime: Runtime = Runtime(),
) -> ReportResult:
    """Write a report on the models in the results file.

    Raises:
        OutputError: there are no results, the results file is damaged, or the output cannot be written.
        UsageError: a name is of nothing in the results.
    """
    style = _style(output, style)
    report = gather(config, names, slice_by=slice_by, whole=style == "html")
    if style == "html":
        if explain:
            explain_mistakes(config, report, runtime)
        path = output or config.paths.results_dir / "report.html"
        replace_text(path, render(report), hint=_ANOTHER)
        return ReportResult(report, path)
    table = paper.FORMATS[style](report.groups)
    if output is not None:
        replace_text(output, table, hint=_ANOTHER)
    return ReportResult(report, output, table)


def _style(output: Path | None, style: Format | None) -> Format:
    """The format: the one given, else that of the extension. Raises UsageError for a page of another extension."""
    suffix = ".html" if output is None else output.suffix.lower()
    found = style or _SUFFIXES.get(suffix)
    if found is None or (found == "html" and _SUFFIXES.get(suffix) != "html"):
        raise UsageError(
            f"{output} is not the name of a page or a table",
            hint=f"Known extensions: {', '.join(_SUFFIXES)}; --format md, latex or csv writes a table to any file.",
        )
    return found


def show(result: ReportResult) -> None:
    """Show where the page is, or the table itself."""
    for line in result.report.notes:
        console.warn(line)
    if result.path is None:
        console.raw(result.table.rstrip("\n"))
        return
    models = sum(len(group.models) for group in result.report.groups)
    console.say(f"{result.path}: {count(models, 'model')}, {count(len(result.report.groups), 'set')} of texts")


def gather(config: Config, names: Sequence[str] = (), *, slice_by: str | None = None, whole: bool = True) -> Report:
    """The content of a report; without ``whole``, the figures of the tests alone. Errors as of `run`."""
    notes: list[str] = []
    tests = latest_tests(config, names, notes)
    tested = _on_the_same_rows(tests)
    groups = [_group(config, some, notes, slice_by=slice_by, whole=whole) for some in tested]
    data = _data_card(config, notes) if whole else None
    return Report(
        title=f"{config.project.name}: report",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        groups=groups,
        curves=_curves(config, tests) if whole else [],
        searches=_searches(config, notes) if whole else [],
        data=data,
        check=_check(config, data, notes) if whole else None,
        repeat=_repeat(config, tests),
        notes=notes,
    )


# --- tests


def _on_the_same_rows(tests: Sequence[TestResult]) -> list[list[TestResult]]:
    """Tests by what they were on: the data, the split, the labels and the number of rows; the largest group first."""
    groups: dict[tuple[Any, ...], list[TestResult]] = {}
    for test in tests:
        data = "" if Path(test.split).suffix else test.entry["data_fingerprint"]
        groups.setdefault((data, test.split, test.labels, test.rows), []).append(test)
    return sorted(groups.values(), key=len, reverse=True)


def _group(config: Config, tests: list[TestResult], notes: list[str], *, slice_by: str | None, whole: bool) -> Group:
    if len(tests) > _MOST_MODELS:
        notes.append(f"the newest {_MOST_MODELS} of {len(tests)} models are shown for {_title(tests[0])}")
        tests = tests[-_MOST_MODELS:]
    models, predictions = [], {}
    for test, name in zip(tests, _names(tests), strict=True):
        model = ModelFigures(
            name, test.scores, identifier(test), str(test.entry.get("created", "")), str(test.model_dir)
        )
        model.weights = str(test.entry["model_fingerprint"])
        model.seeds = _seeds(test)
        model.notes = _warnings(test)
        models.append(model)
        try:
            path = predictions_of(test)
            predictions[name] = read_predictions(path, test.labels)
            if whole:
                values = _column_or_note(config, test, path, slice_by, notes) if slice_by else {}
                _add_rows(model, path, predictions[name], values, kind=slice_by or "")
        except DataError as error:
            notes.append(f"{name}: {error.message}; no comparison, slices or mistakes of it")
    baseline = next((ModelFigures("TF-IDF baseline", test.baseline) for test in tests if test.baseline), None)
    first = tests[0]
    tested = {model.name: test for model, test in zip(models, tests, strict=True)}
    pairs: list[tuple[Any, str, str]] = [*testing.comparisons(config, predictions, tested, baseline="TF-IDF baseline")]
    return Group(_title(first), first.rows, first.labels, models, baseline, pairs)


def _title(test: TestResult) -> str:
    named = {"test": "Test split", "valid": "Validation split", "train": "Training split"}
    if test.split == "finetune" and isinstance(data := test.entry.get("data"), dict):
        return f"New test rows of {Path(str(data.get('source'))).name}"
    return named.get(test.split, Path(test.split).name)


def _names(tests: Sequence[TestResult]) -> list[str]:
    """A name for each: the display name, and the run where two are alike."""
    names = [test.model for test in tests]
    return [f"{test.model} {identifier(test)}" if names.count(test.model) > 1 else test.model for test in tests]


def _seeds(test: TestResult) -> dict[str, Any]:
    """Number of seeds, and what their test figures came to; empty for a single one."""
    summary = test.entry.get("seeds") or {}
    try:
        figures = {name: mean_and_std(summary["figures"][f"test_{name}"]) for name in ("macro_f1", "accuracy")}
        text = ", ".join(f"{console.metric_name(name)} {value} %" for name, value in figures.items())
        return {"n": len(summary["seeds"]), "text": f"{text} (mean ± std); the best in validation is shown"}
    except (KeyError, TypeError):
        return {}


def _warnings(test: TestResult) -> list[str]:
    found = []
    for words, rows in (
        ("were used to make mini", test.entry.get("seen_by_mini")),
        ("are in the training data", (test.overlap or {}).get("rows")),
    ):
        if isinstance(rows, int) and rows:
            found.append(f"{rows:,} of these texts {words}, so the figures may be too high")
    return found


def _add_rows(
    model: ModelFigures, path: Path, predictions: Predictions, values: Mapping[int, str], *, kind: str
) -> None:
    """Coverage, slices and mistakes, in one pass over the predictions; ``values`` are those of the column ``kind``."""
    import numpy as np

    membership, confidence = Membership(), np.empty(len(predictions.rows))
    right = predictions.predicted == predictions.labels
    worst: list[tuple[float, int, Mistake]] = []
    for place, row in enumerate(stream_predictions(path)):
        own = {name: value for name, value in row.slices.items() if kind in ("", name)}
        if row.row in values:
            own[kind] = values[row.row]
        membership.add(row.text, own)
        confidence[place] = row.score
        if not right[place]:
            text = row.text if len(row.text) <= _LONGEST else f"{row.text[:_LONGEST]}…"
            entry = (row.score, -place, Mistake(row.row, text, row.label, row.prediction, row.score))
            (heapq.heappush if len(worst) < _MISTAKES else heapq.heappushpop)(worst, entry)
    curve = risk_coverage(confidence, right)
    enough = LEAST_ROWS / len(right)  # the accuracy of fewer rows would be noise
    points = zip(*curve.thinned(_CURVE_POINTS), strict=True)
    model.coverage = [(float(share), float(accuracy)) for share, accuracy in points if share >= enough]
    model.coverage_at = {target: curve.coverage_at(target) for target in _TARGETS}
    model.slices = membership.slices(right)
    model.mistakes = [mistake for *_, mistake in sorted(worst, key=lambda one: one[:2], reverse=True)]


def _column_or_note(
    config: Config, test: TestResult, predictions: Path, column: str, notes: list[str]
) -> dict[int, str]:
    """The value of each tested row in a column, unless the predictions have it; empty, with a note, if unknown."""
    marks: dict[int, int] = {}
    for row in stream_predictions(predictions):
        if column in row.slices:
            return {}
        marks |= marks_of({row.row: row.text})
    try:
        return values_by_row(source_of(config.data, test.split), config.data, column, marks)
    except SenthyError as error:
        note = f"{_title(test)}: no slices by {column}: {error.message} (senthy test --slice-by keeps them)"
        notes += [note] if note not in notes else []
        return {}


# --- explanations


def explain_mistakes(config: Config, report: Report, runtime: Runtime) -> None:
    """Give the mistakes the words that speak for and against the answer; notes where that cannot be done."""
    models = [model for group in report.groups for model in group.models if model.mistakes]
    with console.progress("explaining mistakes", sum(len(model.mistakes) for model in models), unit="texts") as bar:
        for model in models:
            try:
                model.mistakes = _explained(config, model, runtime, bar.advance)
            except SenthyError as error:
                report.notes.append(f"the mistakes of {model.name} are not explained: {error.message}")


def _explained(
    config: Config, model: ModelFigures, runtime: Runtime, progress: Callable[[int], object]
) -> list[Mistake]:
    predictor = open_model(_directory(config, model), config, runtime, labels=model.scores.labels)
    texts = [mistake.text for mistake in model.mistakes]
    found = predictor.explain(texts, label=[mistake.prediction for mistake in model.mistakes], progress=progress)
    return [
        replace(mistake, words=_words(explanation)) for mistake, explanation in zip(model.mistakes, found, strict=True)
    ]


def _directory(config: Config, model: ModelFigures) -> Path:
    """The directory that still holds the tested model. Raises ModelError if another one is there, or none."""
    own = paths.kept_models(config.paths.models_dir) / model.id
    directory = own if own.is_dir() else Path(model.model_dir)
    if read_info(directory).weights_sha256 != model.weights:
        raise ModelError(f"another model is in {directory} now")
    return directory


def _words(explanation: Explanation) -> list[Word]:
    """The whole text in pieces: its words, with weights relative to the largest one, and what is between them."""
    largest = max((abs(word.weight) for word in explanation.words), default=0.0) or 1.0
    pieces, end = [], 0
    for word in explanation.words:
        pieces += [Word(explanation.text[end : word.start], 0.0), Word(word.text, word.weight / largest)]
        end = word.end
    return [piece for piece in (*pieces, Word(explanation.text[end:], 0.0)) if piece.text]


# --- training, search, data


def _curves(config: Config, tests: Sequence[TestResult]) -> list[Curve]:
    curves = {}
    for test in tests:
        run = Run(paths.runs_dir(config.paths.results_dir) / identifier(test))
        if run.folder.is_dir() and (epochs := run.epochs()):
            curves[run.id] = Curve(run.id, run.id, epochs, _text_of(run.folder / paths.RUN_CONFIG), flat(run.meta()))
    return list(curves.values())


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _searches(config: Config, notes: list[str]) -> list[Search]:
    """Those in the results folder, in the storage of the configuration, and in storages that the results name."""
    found: dict[str, Search] = {}
    for shown, (url, default, chosen) in _storages(config).items():
        try:
            for name, facts in study.studies_in(url, default=default, chosen=chosen).items():
                found.setdefault(name, _search(name, *facts))
        except SenthyError as error:
            notes.append(f"the search in {shown} cannot be read: {error.message}")
    return list(found.values())


def _storages(config: Config) -> dict[str, tuple[str | None, Path, Callable[[str, str], bool]]]:
    """Storage without its password -> URL or None, the file that None means, and which studies are wanted."""
    found: dict[str, tuple[str | None, Path, Callable[[str, str], bool]]] = {}
    files = {head: paths.study_db(config.paths.results_dir, head) for head in HEADS}
    for head, file in files.items():
        found[str(file)] = (None, file, lambda name, model: True)
        if (url := config.model(head).hpo.storage) is not None:
            found[f"{redact(url)} ({head})"] = (url, file, partial(study.is_of_project, config=config, head=head))
    known = {redact(url) for url, *_ in found.values() if url} | {f"sqlite:///{file}" for file in files.values()}
    for entry in read_results(paths.results_json(config.paths.results_dir)):
        shown, name = entry.get("storage"), entry.get("study")
        if isinstance(shown, str) and shown not in known:
            found[f"{shown} ({name})"] = (shown, Path(), partial(_is_called, name))
    return found


def _is_called(wanted: object, name: str, model: str) -> bool:
    return name == wanted


def _search(name: str, trials: Sequence[study.TrialFacts], importances: Mapping[str, float]) -> Search:
    best = study.best_of(trials)
    return Search(
        name,
        [(trial.number, trial.value) for trial in trials if trial.value is not None],
        sum(trial.state == "pruned" for trial in trials),
        sum(trial.state == "failed" for trial in trials),
        best[0].params if best else {},
        importances,
    )


def _data_card(config: Config, notes: list[str]) -> DataCard | None:
    splits: tuple[Split, ...] = ("train", "valid", "test")
    try:
        with open_store(config.paths.data_db) as store:
            counts: dict[str, list[int]] = {split: store.label_counts(split) for split in splits}
            return DataCard(store.source, store.normalizer, store.fingerprint, store.labels, counts, flat(store.report))
    except DatabaseError as error:
        notes.append(f"no data card: {error.message}")
        return None


def _check(config: Config, data: DataCard | None, notes: list[str]) -> Check | None:
    """What the last `senthy check` found, if it was on the data of now."""
    path = paths.check_json(config.paths.results_dir)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if data is not None and found["data_fingerprint"] != data.fingerprint:
            notes.append(f"{path} is about other data; run senthy check again")
            return None
        examples = found["examples"].values()
        flagged = [{name: row[name] for name in _FLAGGED} for rows in examples for row in rows[:_MISTAKES]]
        tokens = [token for token in found["artefacts"] if token["gives_away"]]
        return Check(str(found["created"]), int(found["rows"]), dict(found["counts"]), flagged, tokens)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        notes.append(f"{path} is damaged, or of another version; run senthy check again")
        return None


def _repeat(config: Config, tests: Sequence[TestResult]) -> list[str]:
    """Commands that give these models and tests again."""
    lines = [f"# senthy {__version__}"]
    for test in tests:
        if run := test.entry.get("run"):
            settings = paths.runs_dir(config.paths.results_dir) / identifier(test) / paths.RUN_CONFIG
            lines.append(f"senthy train --model {str(run).partition('-')[0]} --config {shlex.quote(str(settings))}")
        else:
            data = f"--data {shlex.quote(test.split)}" if Path(test.split).suffix else f"--split {test.split}"
            lines.append(f"senthy test --load-model-path {shlex.quote(str(test.model_dir))} {data}")
    return list(dict.fromkeys(lines))
