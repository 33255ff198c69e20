"""Evaluates a model on held-out rows, with intervals and a baseline on the same rows."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note, progress, warn
from sentiment_hybrid.data.labelled import read_labelled
from sentiment_hybrid.data.labels import finder
from sentiment_hybrid.data.normalizers import from_id
from sentiment_hybrid.data.ordering import in_proportion
from sentiment_hybrid.data.slice_column import marks_of, source_of, values_by_row
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.splits import hash_raw
from sentiment_hybrid.data.store import Examples, Split, Store, open_store
from sentiment_hybrid.engine.device import resolve
from sentiment_hybrid.engine.evaluation import baseline, metrics
from sentiment_hybrid.engine.evaluation.metrics import Comparison, Level, Scores
from sentiment_hybrid.engine.evaluation.seen import SeenTexts
from sentiment_hybrid.engine.evaluation.triage import Calibration, binomial, risk_coverage
from sentiment_hybrid.engine.inference.answers import among
from sentiment_hybrid.engine.inference.kept_models import copies, has_published_copy, model_id
from sentiment_hybrid.engine.inference.model_card import add_figures
from sentiment_hybrid.engine.inference.model_directory import LoadedModel, ModelInfo, head_of, load_model, read_info
from sentiment_hybrid.engine.inference.predictor import model_directory
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.engine.inference.thresholds import save_calibration
from sentiment_hybrid.errors import DatabaseError, DataError, LabelError, OutputError, UsageError, count
from sentiment_hybrid.files import atomic_file, link_or_copy, sha256, written
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.reporting import plots
from sentiment_hybrid.reporting.canvas import titled
from sentiment_hybrid.reporting.card import Tested
from sentiment_hybrid.reporting.predictions import Predictions, write_predictions
from sentiment_hybrid.reporting.results import read_results
from sentiment_hybrid.runtime import Runtime

#: Target accuracies for which the share of texts that reach them is reported.
TARGETS = (0.95, 0.98)
#: Validation rows that thresholds are computed from: at most, at least, and so that unused ones are enough.
_CALIBRATED_ROWS, _FEWEST_CALIBRATED, _FRESH_ROWS = 10_000, 50, 1000
#: Points of the risk-coverage curve that are drawn.
_CURVE_POINTS = 400
#: Prefix of output files of a test on a user's file.
_FILE = "file_"


@dataclass(frozen=True)
class TestResult:
    """Scores of a model and of the baseline on the same rows; ``entry`` is its entry in the results file."""

    __test__ = False

    model: str
    model_dir: Path
    entry: dict[str, Any]
    scores: Scores
    baseline: Scores | None
    comparison: Comparison | None
    encoder_passes: int = 0

    @classmethod
    def of(cls, model: str, model_dir: Path, entry: dict[str, Any], *, encoder_passes: int = 0) -> TestResult:
        """From an entry. Raises KeyError, TypeError or ValueError if the entry is incomplete."""
        if entry["split"] == "finetune":  # a fine-tuned model has no baseline
            baseline = comparison = None
        else:
            baseline, comparison = entry["baseline"], entry["comparison_with_baseline"]
        return cls(
            model,
            model_dir,
            entry,
            scores=Scores.from_dict(entry["test"]),
            baseline=Scores.from_dict(baseline) if baseline else None,
            comparison=Comparison.from_dict(comparison) if comparison else None,
            encoder_passes=encoder_passes,
        )

    @property
    def split(self) -> str:
        """A split of the database, or the path of a user's file."""
        return str(self.entry["split"])

    @property
    def rows(self) -> int:
        """Number of texts."""
        return self.scores.rows

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that were tested."""
        return self.scores.labels

    @property
    def files(self) -> dict[str, Path]:
        """The predictions and the figures."""
        return {name: Path(path) for name, path in self.entry["files"].items()}

    @property
    def before_corrections(self) -> tuple[Scores, int, int] | None:
        """Scores on the labels before corrections, labels that they changed, and rows that they dropped."""
        before = self.entry.get("before_corrections")
        return (Scores.from_dict(before["test"]), before["changed"], before["dropped"]) if before else None

    @property
    def overlap(self) -> dict[str, Any] | None:
        """For a user's file, the number of texts that the model was trained on, if it is known."""
        overlap: dict[str, Any] | None = self.entry.get("overlap_with_training")
        return overlap


def evaluate(
    config: Config,
    model: str | None = None,
    runtime: Runtime = Runtime(),
    *,
    load_model_path: Path | None = None,
    split: Split = "test",
    data_file: Path | None = None,
) -> TestResult:
    """Test a model; `commands.test.evaluate` has the arguments and errors."""
    if data_file is not None and split != "test":
        raise UsageError("--split and --data exclude each other", hint="Use only one of them.")
    loaded = open_model(config, model, load_model_path, runtime)
    if data_file is not None:
        rows = _rows_of_file(config, loaded, data_file, runtime)
    else:
        rows = _rows_of_split(config, loaded, split)
    slices = _slices(config, rows.split, rows.examples)
    seen_by_mini = warn_if_seen_by_mini(loaded, rows.examples)
    predicted = probabilities_of(config, loaded, rows.examples, split=rows.split, device=runtime.device)
    before = _score_original(config, loaded, rows, predicted[0], runtime.device)
    calibration = _calibrate(config, loaded, runtime.device) if rows.split == "test" else None
    facts = {"before_corrections": before, "seen_by_mini": seen_by_mini}
    result = _measured(config, loaded, rows, predicted, slices, calibration, facts)
    if rows.split not in ("train", "valid"):  # figures on rows that the model knows say nothing about new texts
        known = max((rows.overlap or {}).get("rows", 0), seen_by_mini or 0)
        data, kind = (rows.data, "test") if rows.split == "test" else (Path(rows.data).name, "file")
        add_to_card(config, loaded, [Tested(data, kind, result.scores, result.baseline, known=known)])
    return result


def add_to_card(config: Config, loaded: LoadedModel, tests: Sequence[Tested]) -> None:
    """Add tests to the cards of a model, if it is outside the package."""
    if loaded.directory.parent != paths.mini_dir():
        add_figures(config, copies(config, loaded.directory, loaded.info), loaded.info, tests)


def _calibrate(config: Config, loaded: LoadedModel, device: str) -> Calibration | None:
    """Count right and wrong answers on validation rows, and store them with the model, for `senthy predict`.

    These are rows without a part in the model, where there are enough. None if there are not, and it was trained on
    the others, or if the database has other labels or too few rows.
    """
    info = loaded.info
    with open_store(config.paths.data_db) as store:
        rows = store.count("valid")
        if store.labels != info.labels or rows < _FEWEST_CALIBRATED:
            return None
        used = _used_for_validation(info, store)
        least = _FEWEST_CALIBRATED if info.set_aside else _FRESH_ROWS
        fresh = None if used is None else rows - used >= least
        if info.trained_on_valid and not fresh:
            return None
        first = used if fresh and used is not None else 0
        examples = own_texts(loaded, store, store.read("valid", min(rows, first + _CALIBRATED_ROWS), with_raw=True))
    examples = examples.chosen(np.arange(first, len(examples)))
    if info.parent is not None:  # its texts may have been among these rows
        seen = _finetuned_on(config, info, examples)
        fresh = fresh if seen else None
        examples = examples.chosen(np.flatnonzero(~seen[0])) if seen else examples
    probabilities, _ = probabilities_of(config, loaded, examples, split="valid", device=device)
    right = probabilities.argmax(1) == examples.labels
    calibration = Calibration.of(probabilities.max(1), right, fresh=fresh)
    for place in copies(config, loaded.directory, info):
        try:
            save_calibration(place, info, calibration)
        except OutputError as error:
            note(f"{error.message}: thresholds for target accuracies are not kept")
    return calibration


def _used_for_validation(info: ModelInfo, store: Store) -> int | None:
    """How many of the first rows of the validation split had a part in a model; None if nobody knows.

    Models of earlier versions have not stored it, and in a database that was prepared again the rows may have another
    order.
    """
    known = {info.data_fingerprint, *(one.get("data_fingerprint") for one in info.ancestors)}
    return info.valid_rows if store.fingerprint in known else None


def open_model(config: Config, model: str | None, load_model_path: Path | None, runtime: Runtime) -> LoadedModel:
    """The given model directory, else the published model of this head (``lstm`` if None).

    Raises:
        ModelError, EncoderError: it cannot be loaded, or has another head.
    """
    directory = paths.published_model(config.paths.models_dir, model or "lstm")
    if load_model_path is not None:
        directory = model_directory(load_model_path)
    head_of(directory, model)
    return load_model(directory, encoder=runtime.encoder, offline=runtime.offline)


def kept_result(config: Config, directory: Path, info: ModelInfo) -> TestResult | None:
    """The last test of the same model with the same settings, if its files still exist."""
    wanted = {
        "split": "test",
        "model_fingerprint": info.weights_sha256,
        "train_fingerprint": info.train_fingerprint,
        "test_config": config.test.model_dump(mode="json"),
    }
    try:
        entries = read_results(paths.results_json(config.paths.results_dir))
    except OutputError:
        return None  # damaged: test again; adding the entry moves the damaged file aside
    found = (entry for entry in reversed(entries) if all(entry.get(key) == value for key, value in wanted.items()))
    try:
        entry = next(found)
        result = TestResult.of(info.display_name, directory, entry)
        kinds = {".csv", f".{config.project.figure_format}"}
        whole = all(path.is_file() and path.suffix in kinds for path in result.files.values())
        # A later test of another model with the same head may have overwritten the predictions.
        return result if whole and sha256(result.files["predictions"]) == entry["predictions_sha256"] else None
    except (StopIteration, KeyError, TypeError, ValueError, AttributeError, OSError):
        return None  # none, or one of another version, or changed by hand: test again


@dataclass(frozen=True)
class _TestRows:
    """Rows of a split or a file with the labels of the model, and what is known about them.

    ``places`` are the tested labels among the model's; ``unanswered`` counts rows that were left out, by their label.
    ``baseline`` has the probabilities (N, C) of the baseline, ``original`` the labels (N,) before corrections and the
    rows that these have left out. ``sampled``: these are not all rows of the split or the file.
    """

    examples: Examples
    split: str
    data: str
    places: tuple[int, ...]
    unanswered: dict[str, int]
    baseline: np.ndarray | None = None
    overlap: dict[str, Any] | None = None
    original: tuple[np.ndarray, Examples | None] | None = None
    sampled: bool = False


def _rows_of_split(config: Config, loaded: LoadedModel, split: Split) -> _TestRows:
    """Rows of the database; those with other labels are left out."""
    own = loaded.info.labels
    with open_store(config.paths.data_db) as store:
        _check_fits(loaded, store)
        if split == "valid" and loaded.info.trained_on_valid:
            warn(f"{loaded.directory} was also trained on the validation rows, so these scores are too high")
        stored = store.read(split, config.test.sample_size, with_raw=True)
        find = finder(own)
        codes = np.array([-1 if (place := find(label)) is None else place for label in store.labels])
        counts = np.bincount(stored.labels[codes[stored.labels] < 0], minlength=len(store.labels))
        unanswered = {label: int(rows) for label, rows in zip(store.labels, counts, strict=True) if rows}
        places = _tested_places(own, np.unique(codes[codes >= 0]), unanswered)
        kept = stored.chosen(np.flatnonzero(codes[stored.labels] >= 0)) if unanswered else stored
        examples = own_texts(loaded, store, replace(kept, labels=codes[kept.labels]))
        original = _before_corrections(loaded, store, stored, places)
        baseline = _baseline(config, loaded, store, examples) if store.labels == own else None
        sampled = len(stored) < store.count(split)
        return _TestRows(
            examples, split, store.source, places, unanswered, baseline, original=original, sampled=sampled
        )


def _rows_of_file(config: Config, loaded: LoadedModel, data_file: Path, runtime: Runtime) -> _TestRows:
    """Rows of a labelled file, with the number of texts that the model was trained on."""
    source = open_source(str(data_file), config.data, offline=runtime.offline)
    info = loaded.info
    normalizer = from_id(info.normalizer)
    normalizer.prepare(config.paths.cache, offline=runtime.offline)
    data = config.data.changed({"unknown_labels": "drop"})
    labelled = read_labelled(
        source, data, labels=info.labels, normalizer=normalizer, coding=info.label_coding, trained_on=info.text_column
    )
    for line in labelled.notes:
        note(line)
    places = _tested_places(info.labels, np.unique(labelled.examples.labels), labelled.unknown)
    examples = _sample(labelled.examples, config)
    if labelled.dropped:
        note("dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in labelled.dropped.items()))
    baseline, seen = None, []
    beside = [texts.contains(examples.raw or examples.texts) for texts in [seen_texts(loaded)] if texts is not None]
    unchecked = "" if beside or _is_from_mini(loaded) else ", and no check for training texts"
    try:
        with open_store(config.paths.data_db) as store:
            if store.split_fingerprint == info.split_fingerprint:
                seen.append(_trained_on(examples, store, rows=info.train_rows))
                baseline = _baseline(config, loaded, store, examples) if store.labels == info.labels else None
    except DatabaseError as error:
        if unchecked:
            note(error.message)
    if not seen:
        of_mini = loaded.directory.parent == paths.mini_dir()
        why = "mini has none" if of_mini else "the database of the model is not at paths.data_db"
        note(f"no baseline{unchecked}: {why}")
    if info.parent is not None:
        seen += _finetuned_on(config, info, examples)
    seen += beside
    overlap = {"rows": int(np.any(seen, axis=0).sum()), "of": len(examples)} if seen else None
    name = str(data_file)
    sampled = len(examples) < len(labelled.examples)
    return _TestRows(examples, name, name, places, labelled.unknown, baseline, overlap, sampled=sampled)


def _slices(config: Config, split: str, examples: Examples) -> dict[str, list[str]]:
    """The values of the rows in ``test.slice_by``, by its name; raises as `values_by_row`."""
    if (column := config.test.slice_by) is None:
        return {}
    rows = examples.rows.tolist()
    marks = marks_of(dict(zip(rows, examples.raw or examples.texts, strict=True)))
    values = values_by_row(source_of(config.data, split), config.data, column, marks)
    return {column: [values.get(row, "") for row in rows]}


def _sample(examples: Examples, config: Config) -> Examples:
    """``test.sample_size`` rows of a file, chosen as in a database: nested, with the shares of the classes."""
    wanted, data = config.test.sample_size, config.data
    if wanted is None or wanted >= len(examples):
        return examples
    _, keys = hash_raw(examples.raw or examples.texts, data.split_seed, version=data.split_key_version)
    note(f"{wanted:,} of {len(examples):,} rows are tested, in the proportions of the classes (test.sample_size)")
    return examples.chosen(np.sort(in_proportion(examples.labels, keys)[:wanted]))


def _tested_places(labels: tuple[str, ...], occurring: Iterable[int], unanswered: dict[str, int]) -> tuple[int, ...]:
    """The labels to test: those that occur, if there are two or more. Prints notes."""
    places = tuple(map(int, occurring))
    if len(places) < 2:
        places = tuple(range(len(labels)))
    elif len(places) < len(labels):
        names = ", ".join(labels[place] for place in places)
        note(f"only the labels {names} occur: the model's probabilities are renormalised over them")
    if unanswered:
        which = ", ".join(f"{label or 'empty'} ({rows:,})" for label, rows in list(unanswered.items())[:12])
        warn(
            f"{count(sum(unanswered.values()), 'row')} skipped, with a label that is not one of the model's "
            f"({', '.join(labels)}): {which}"
        )
    return places


def _trained_on(examples: Examples, store: Store, *, rows: int | None) -> np.ndarray:
    """Whether each text equals one of the first ``rows`` of train, or one of valid: (N,) bool."""
    _, keys = store.hash_raw(examples.raw or examples.texts)
    return np.isin(keys, trained_keys(store, rows))


def _finetuned_on(config: Config, info: ModelInfo, examples: Examples) -> list[np.ndarray]:
    """The same for the texts of a fine-tuning, in a list; empty if they are no longer stored."""
    path = paths.finetune_db(config.paths.cache, info.data_fingerprint)
    try:
        with open_store(path) as store:
            return [_trained_on(examples, store, rows=None)]
    except DatabaseError:
        note(f"the fine-tuning data of the model is not at {path}: no check for these texts")
        return []


def seen_texts(loaded: LoadedModel) -> SeenTexts | None:
    """Filter of training texts outside the database, or of all training texts of a pack; not for mini."""
    own = loaded.directory
    places = [] if own.parent == paths.mini_dir() else [own / paths.SEEN_TEXTS, own.parent / paths.SEEN_TEXTS]
    return next((_readable(path) for path in places if path.is_file()), None)


def _readable(path: Path) -> SeenTexts | None:
    """The filter; None, with a note, if it is damaged."""
    try:
        return SeenTexts.load(path)
    except DataError as error:
        note(f"{error.message}: no check for training texts")
        return None


def trained_keys(store: Store, rows: int | None) -> np.ndarray:
    """Order hashes of the texts used for training (the first ``rows``, or all) or for model selection."""
    return np.concatenate([store.key_hashes("train")[:rows], store.key_hashes("valid")])


def _check_fits(loaded: LoadedModel, store: Store) -> None:
    """Refuse a database of another split, or with fewer than two of the model's labels."""
    find, labels = finder(loaded.info.labels), store.labels
    if len({place for label in labels if (place := find(label)) is not None}) < 2:
        raise LabelError(
            f"the data has the labels {', '.join(labels)}, but the model has {', '.join(loaded.info.labels)}",
            hint="Test on a file with the model's labels (--data FILE), or prepare the data again with --label-map so "
            "that the labels agree.",
        )
    if store.split_fingerprint != loaded.info.split_fingerprint:
        raise DatabaseError(
            f"{loaded.directory} was trained on another split than that of {store.path}, so rows of this test split "
            "may be among its training rows",
            hint="Train on this database, use the database of the model, or test on a file with --data FILE.",
        )


def _before_corrections(
    loaded: LoadedModel, store: Store, stored: Examples, places: tuple[int, ...]
) -> tuple[np.ndarray, Examples | None] | None:
    """``_TestRows.original``; None if no test row was corrected, or the model has other labels."""
    if stored.split != "test" or store.corrections is None:
        return None
    # It is unknown which dropped rows would be in a sample.
    dropped = store.dropped_from_test() if len(stored) == store.count("test") else None
    labels = store.original_labels(stored)
    if dropped is None and np.array_equal(labels, stored.labels):
        return None
    if store.labels != loaded.info.labels or len(places) < len(store.labels):
        note("no figures on the labels before the corrections: the model has other labels")
        return None
    return labels, None if dropped is None else own_texts(loaded, store, dropped)


def own_texts(loaded: LoadedModel, store: Store, examples: Examples) -> Examples:
    """The texts cleaned by the model's own normaliser, if the database was prepared with another one."""
    if store.normalizer == loaded.info.normalizer or examples.raw is None:
        return examples
    normalize = from_id(loaded.info.normalizer)
    return replace(examples, texts=[normalize(text) for text in examples.raw])


def _baseline(config: Config, loaded: LoadedModel, store: Store, examples: Examples) -> np.ndarray | None:
    """Probabilities (N, C) of TF-IDF + logistic regression, trained on the model's own training rows."""
    if not config.test.baseline:
        return None
    rows = min(loaded.info.train_rows, store.count("train"))
    facts = [store.fingerprint, rows, list(store.labels), loaded.info.normalizer]
    fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    folder = paths.baselines_dir(config.paths.cache)
    fitted = baseline.load(folder, fingerprint, num_classes=len(store.labels))
    if fitted is None:
        note(f"fitting the baseline: TF-IDF + logistic regression on the same {rows:,} training texts")
        train = own_texts(loaded, store, store.read("train", rows, with_raw=True))
        fitted = baseline.fit_and_keep(
            train.texts, train.labels, num_classes=len(store.labels), folder=folder, fingerprint=fingerprint
        )
    return fitted.predict_proba(examples.texts)


def _measured(
    config: Config,
    loaded: LoadedModel,
    rows: _TestRows,
    predicted: tuple[np.ndarray, int],
    slices: Mapping[str, Sequence[str]],
    calibration: Calibration | None,
    facts: Mapping[str, Any],
) -> TestResult:
    """Score predictions, and write them and their figures; ``facts`` are further ones for the entry."""
    info, examples, baseline = loaded.info, rows.examples, rows.baseline
    probabilities, passes = predicted
    labels = tuple(info.labels[place] for place in rows.places)
    if labels != info.labels:
        examples = replace(examples, labels=np.searchsorted(rows.places, examples.labels))
        probabilities = among(probabilities, rows.places)
        baseline = None if baseline is None else among(baseline, rows.places)
    level = level_of(config)
    scores = metrics.score(examples.labels, probabilities, labels, level)
    compared: dict[str, Any] = {"baseline": None, "comparison_with_baseline": None}
    if baseline is not None:
        comparison = metrics.compare(examples.labels, probabilities.argmax(1), baseline.argmax(1), level)
        compared["baseline"] = metrics.score(examples.labels, baseline, labels, level).to_dict()
        compared["comparison_with_baseline"] = comparison.to_dict()
    files = write_files(
        config, loaded, examples, probabilities, baseline, scores, name=_name_in_files(rows.split), data=rows.data,
        labels=labels, slices=slices, sampled=rows.sampled,
    )  # fmt: skip
    entry = {
        "split": rows.split,
        "rows": len(examples.labels),
        "labels": list(labels),
        "model_labels": list(info.labels),
        "unanswered": rows.unanswered,
        "model_fingerprint": info.weights_sha256,
        "train_fingerprint": info.train_fingerprint,
        "data_fingerprint": info.data_fingerprint,
        "test_config": config.test.model_dump(mode="json"),
        "test": scores.to_dict(),
        **facts,
        **compared,
        "triage": _triage(examples.labels, probabilities, calibration),
        "overlap_with_training": rows.overlap,
        "predictions_sha256": sha256(files["predictions"]),
        "files": {name: str(path) for name, path in files.items()},
    }
    return TestResult.of(info.display_name, loaded.directory, entry, encoder_passes=passes)


def _triage(labels: np.ndarray, probabilities: np.ndarray, calibration: Calibration | None) -> dict[str, Any]:
    """Coverage at target accuracies, and whether the thresholds from validation rows keep their promise here."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    curve = risk_coverage(confidence, right)
    result: dict[str, Any] = {"coverage": {str(target): curve.coverage_at(target) for target in TARGETS}}
    if calibration is None:
        return result
    promises: dict[str, Any] = {}
    for target in TARGETS:
        if threshold := calibration.threshold(target):
            sure = confidence >= threshold.value
            accuracy = binomial(int(right[sure].sum()), int(sure.sum())) if sure.any() else None
            promises[str(target)] = {"threshold": threshold.value, "coverage": float(sure.mean()), "accuracy": accuracy}
    facts = {"rows": calibration.rows, "fresh": calibration.fresh, "best": calibration.best()}
    return {**result, "validation": facts, "promises": promises}


def _score_original(
    config: Config, loaded: LoadedModel, rows: _TestRows, probabilities: np.ndarray, device: str
) -> dict[str, Any] | None:
    """Scores on the labels before corrections, for the results file; rows that were left out are counted in."""
    if rows.original is None:
        return None
    labels, dropped = rows.original
    changed, kept = int((labels != rows.examples.labels).sum()), len(labels)
    if dropped is not None:
        more, _ = probabilities_of(config, loaded, dropped, split="dropped rows", device=device)
        labels = np.concatenate([labels, dropped.labels])
        probabilities = np.concatenate([probabilities, more])
    scores = metrics.score(labels, probabilities, loaded.info.labels, level_of(config))
    return {"changed": changed, "dropped": len(labels) - kept, "test": scores.to_dict()}


def warn_if_seen_by_mini(loaded: LoadedModel, examples: Examples) -> int | None:
    """Number of these texts that mini has seen, if the model is mini or was made from it; prints a warning.

    None for another model; 0 if the number is explained by false positives of the filter.
    """
    path = paths.mini_dir() / paths.SEEN_TEXTS
    texts = _readable(path) if path.is_file() and _is_from_mini(loaded) else None
    if texts is None:
        return None
    found = int(texts.contains(examples.raw or examples.texts).sum())
    by_chance = texts.chance * len(examples)
    if found <= by_chance + 4.0 * by_chance**0.5:
        return 0
    warn(
        f"{found:,} of {count(len(examples), 'tested text')} were used to train mini, so the scores may be too high "
        "(short texts can match by coincidence)"
    )
    return found


def _is_from_mini(loaded: LoadedModel) -> bool:
    """Whether the model is part of mini, uses its encoder or vectors from it, or was fine-tuned from such a model."""
    own = paths.mini_dir()
    origins = (loaded.info.encoder_name, getattr(loaded.encoder.model.config, "distilled_from", None))
    if loaded.directory.parent == own or paths.MINI in origins:
        return True
    heads = {read_info(own / head).weights_sha256 for head in HEADS if (own / head).is_dir()}
    return any(one["weights_sha256"] in heads for one in loaded.info.ancestors)


def level_of(config: Config) -> Level:
    """The configured level of intervals and tests."""
    return Level(config.test.confidence, config.test.resamples, config.project.seed)


def comparisons(
    config: Config, predictions: Mapping[str, Predictions], tests: Mapping[str, TestResult], *, baseline: str
) -> list[tuple[Comparison, str, str]]:
    """Each pair of models that were tested on the same rows, and each model with its baseline, corrected for all."""
    level = level_of(config)
    found: list[tuple[Comparison, str, str]] = []
    for (first, one), (second, two) in itertools.combinations(predictions.items(), 2):
        if np.array_equal(one.rows, two.rows) and np.array_equal(one.labels, two.labels):
            found.append((metrics.compare(one.labels, one.predicted, two.predicted, level), first, second))
    found += [(test.comparison, name, baseline) for name, test in tests.items() if test.comparison]
    corrected = metrics.holm([comparison for comparison, *_ in found])
    return [(one, first, second) for one, (_, first, second) in zip(corrected, found, strict=True)]


def probabilities_of(
    config: Config, loaded: LoadedModel, examples: Examples, *, split: str, device: str
) -> tuple[np.ndarray, int]:
    """Probabilities (N, C), and the number of windows that were encoded for them."""
    info, settings = loaded.info, config.model(loaded.info.head).train
    compute = resolve(device, settings.precision)
    session = Session(
        loaded.classifier,
        loaded.encoder,
        compute=compute,
        cache=config.paths.cache,
        # The states of a fine-tuned encoder are useful for this model only.
        keep_states=info.trainable_layers == 0,
        max_gb=config.cache.max_gb,
        token_budget=settings.token_budget,
        max_length=info.max_length,
        max_windows=info.max_windows,
    )
    with progress(f"encoding {split}", unit="windows") as bar:
        dataset = session.dataset(examples.texts, examples.labels, progress=bar.advance)
    if cut := dataset.tokenized.truncated:
        note(f"{count(cut, 'text')} cut after {count(info.max_windows, 'window')}")
    with progress(f"testing on {split}", total=len(dataset), unit="texts") as bar:
        probabilities = session.predict(dataset, progress=bar.advance)
    live = len(dataset.tokenized.window_lengths) if dataset.states is None else 0
    return probabilities, live + (session.states.passes if session.states else 0)


#: Names of splits in titles.
_KINDS = {"test": "test ", "valid": "validation ", "train": "training ", "finetune": "new test "}


def write_files(
    config: Config,
    loaded: LoadedModel,
    examples: Examples,
    probabilities: np.ndarray,
    baseline: np.ndarray | None,
    scores: Scores,
    *,
    name: str,
    data: str,
    labels: tuple[str, ...],
    slices: Mapping[str, Sequence[str]] = MappingProxyType({}),
    sampled: bool = False,
) -> dict[str, Path]:
    """Write predictions and figures of a model into its own folder.

    ``name`` identifies the rows in file names, ``data`` in titles. A sample has files of its own, since reports read
    those of all rows. Those of a published model also get public names.
    """
    folder, info = config.paths.results_dir, loaded.info
    of_mini = loaded.directory.parent == paths.mini_dir()
    own = f"{name}_{scores.rows}" if sampled else name
    files = paths.test_files(folder, f"{paths.MINI}-{info.head}" if of_mini else model_id(info), own)
    files |= {kind: config.project.figure(files[kind]) for kind in files if kind != "predictions"}
    write_predictions(
        files["predictions"],
        rows=examples.rows,
        texts=examples.raw if examples.raw is not None else examples.texts,
        labels=examples.labels,
        probabilities=probabilities,
        names=labels,
        baseline=None if baseline is None else baseline.argmax(1),
        slices=slices,
    )
    of = {"data": data, "rows": count(scores.rows, f"{_KINDS.get(name, '')}text"), "encoder": info.encoder_name}
    title = titled(f"{info.display_name}: confusion matrix", **of)
    plots.confusion_matrix(files["confusion_matrix"], scores.confusion, labels, title=title)
    plots.reliability(files["reliability"], scores.reliability, title=titled(f"{info.display_name}: calibration", **of))
    curve = risk_coverage(probabilities.max(1), probabilities.argmax(1) == examples.labels)
    title = titled(f"{info.display_name}: risk and coverage", **of)
    plots.risk_coverage(files["risk_coverage"], *curve.thinned(_CURVE_POINTS), title=title)
    if not name.startswith(_FILE) and has_published_copy(config, info):
        for kind, public in paths.public_test_files(folder, info.head, own).items():
            place = public.with_suffix(files[kind].suffix)
            with written(place), atomic_file(place) as aside:
                link_or_copy(files[kind], aside)
    return files


def _name_in_files(split: str) -> str:
    """A split; of a file, its stem and a digest of its path, so that files with the same stem have different names."""
    if split in ("train", "valid", "test"):
        return split
    path = Path(split)
    digest = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()[:6]
    return f"{_FILE}{path.stem}-{digest}"
