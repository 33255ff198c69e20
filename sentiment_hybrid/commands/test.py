"""``senthy test``: one model on rows that it never saw, with intervals, beside a baseline on the same rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import DatabaseError, DataError, LabelError, ModelError, OutputError, UsageError
from sentiment_hybrid.heads import HEADS

if TYPE_CHECKING:
    import numpy as np

    from sentiment_hybrid.data.store import Examples, Split, Store
    from sentiment_hybrid.engine.evaluation.metrics import Comparison, Scores
    from sentiment_hybrid.engine.evaluation.seen import SeenTexts
    from sentiment_hybrid.engine.inference.model_directory import LoadedModel, ModelInfo

__test__ = False  # pytest, this module is a verb


@dataclass(frozen=True)
class TestResult:
    """Scores of a model and of the baseline on the same rows; ``entry`` is what the results file says of it.

    ``overlap`` tells, for a file of the user's, how many of its texts the model was trained on.
    """

    __test__ = False

    model: str
    model_dir: Path
    split: str
    rows: int
    labels: tuple[str, ...]
    scores: Scores
    baseline: Scores | None
    comparison: Comparison | None
    files: dict[str, Path]
    entry: dict[str, Any]
    overlap: dict[str, Any] | None = None
    encoder_passes: int = 0
    results_file_set_aside: Path | None = field(default=None, compare=False)


def run(config: Config, model: str | None = None, **options: Any) -> TestResult:
    """``evaluate``, whose options these are, and an entry ``LSTMRoBERTa_Test`` in the results file."""
    from dataclasses import replace

    from sentiment_hybrid.engine.training.runs import now, versions
    from sentiment_hybrid.reporting.results import append_result

    result = evaluate(config, model, **options)
    entry = {
        "name": f"{result.model}_Test",
        "created": now(),
        "model_dir": str(result.model_dir),
        **result.entry,
        "versions": versions(),
    }
    aside = append_result(paths.results_json(config.paths.results_dir), entry)
    return replace(result, results_file_set_aside=aside)


def evaluate(
    config: Config,
    model: str | None = None,
    *,
    load_model_path: Path | None = None,
    split: Split = "test",
    data_file: Path | None = None,
    device: str = "auto",
    offline: bool = False,
    encoder: str | Path | None = None,
) -> TestResult:
    """Test a model with its own labels, normaliser and encoder; draws figures, writes predictions.

    Args:
        config: says where the database and the results lie, and how to test.
        model: whose published model to test when ``load_model_path`` is None (``lstm``).
        load_model_path: a model directory.
        split: ``test``, ``valid`` or ``train``.
        data_file: labelled texts of one's own instead of the database's split.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        offline: never reach a network.
        encoder: where the encoder lies that the model was trained on.

    Raises:
        ModelError, EncoderError: the model cannot be loaded, or is not the kind asked for.
        LabelError: the data has other labels than the model.
        DatabaseError: the model was trained on another split, so its test rows may be among its training rows.
    """
    from sentiment_hybrid.console import warn
    from sentiment_hybrid.data.store import open_store

    if data_file is not None and split != "test":
        raise UsageError("--split names rows of the database, and --data a file instead", hint="Use one of them.")
    loaded = open_model(config, model, load_model_path, encoder=encoder, offline=offline)
    if data_file is not None:
        return _evaluate_file(config, loaded, data_file, device=device, offline=offline)
    with open_store(config.paths.data_db) as store:
        _check_fits(loaded, store)
        if split == "valid" and loaded.info.trained_on_valid:
            warn(f"{loaded.directory} was trained on the validation rows too: figures on them flatter it")
        examples, answers = _in_labels(loaded, store, store.read(split, config.test.sample_size, with_raw=True))
        examples = own_texts(loaded, store, examples)
        baseline = _baseline(config, loaded, store, examples) if store.labels == loaded.info.labels else None
    return _measure(config, loaded, examples, baseline, answers, split=split, device=device)


def open_model(
    config: Config,
    model: str | None,
    load_model_path: Path | None,
    *,
    encoder: str | Path | None = None,
    offline: bool = False,
) -> LoadedModel:
    """The model directory named, else the published model of this head (``lstm`` for None).

    Raises:
        ModelError, EncoderError: it cannot be loaded, or is not the kind asked for.
    """
    from sentiment_hybrid.engine.inference.model_directory import load_model, read_info
    from sentiment_hybrid.engine.inference.predictor import model_directory

    directory = (
        model_directory(load_model_path)
        if load_model_path
        else paths.published_model(config.paths.models_dir, model or "lstm")
    )
    if model is not None and (head := read_info(directory).head) != model:
        raise ModelError(f"{directory} is a {head} model, not {model}", hint=f"Use --model {head}.")
    return load_model(directory, encoder=encoder, offline=offline)


def kept_result(config: Config, directory: Path, info: ModelInfo) -> TestResult | None:
    """The last result on the test split if the same model was tested in the same way and its files are there."""
    from sentiment_hybrid.engine.evaluation.metrics import Comparison, Scores
    from sentiment_hybrid.files import sha256
    from sentiment_hybrid.reporting.results import read_results

    wanted = {
        "split": "test",
        "model_fingerprint": info.weights_sha256,
        "train_fingerprint": info.train_fingerprint,
        "test_config": config.test.model_dump(mode="json"),
    }
    try:
        entries = read_results(paths.results_json(config.paths.results_dir))
    except OutputError:
        return None  # damaged: the test is done again, and its entry sets the damaged file aside
    for entry in reversed(entries):
        if all(entry.get(key) == value for key, value in wanted.items()):
            break
    else:
        return None
    files = {name: Path(path) for name, path in entry["files"].items()}
    if not all(path.is_file() for path in files.values()):
        return None
    # Another model of the same head may have been tested since, and have left its predictions there.
    if sha256(files["predictions"]) != entry.get("predictions_sha256"):
        return None
    baseline, comparison = entry["baseline"], entry["comparison_with_baseline"]
    return TestResult(
        model=info.display_name,
        model_dir=directory,
        split="test",
        rows=entry["rows"],
        labels=tuple(entry["labels"]),
        scores=Scores.from_dict(entry["test"]),
        baseline=Scores.from_dict(baseline) if baseline else None,
        comparison=Comparison.from_dict(comparison) if comparison else None,
        files=files,
        entry=entry,
    )


def _evaluate_file(config: Config, loaded: LoadedModel, data_file: Path, *, device: str, offline: bool) -> TestResult:
    """Test on labelled texts of the user's, and say how many of them the model was trained on."""
    import numpy as np

    from sentiment_hybrid.console import note
    from sentiment_hybrid.data.labelled import read_labelled
    from sentiment_hybrid.data.normalizers import from_id, prepare_nltk
    from sentiment_hybrid.data.sources import open_source
    from sentiment_hybrid.data.store import open_store

    source = open_source(str(data_file), config.data, offline=offline)
    info = loaded.info
    if info.normalizer.startswith("classic"):
        prepare_nltk(paths.cache_dir(config.paths.cache_dir), offline)
    data = config.data.model_copy(update={"unknown_labels": "drop"})
    labelled = read_labelled(source, data, labels=info.labels, normalizer=from_id(info.normalizer))
    answers = _answers(info.labels, np.unique(labelled.examples.labels), labelled.unknown)
    examples = labelled.examples.first(config.test.sample_size)
    if labelled.dropped:
        note("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in labelled.dropped.items()))
    baseline, seen = None, []
    beside = [texts.contains(examples.raw or examples.texts) for texts in [texts_beside(loaded)] if texts is not None]
    unchecked = "" if beside or _of_mini(loaded) else ", and no check for texts trained on"
    try:
        with open_store(config.paths.data_db) as store:
            if store.split_fingerprint == info.split_fingerprint:
                seen.append(_among(examples, store, rows=info.train_rows))
                baseline = _baseline(config, loaded, store, examples)
    except DatabaseError as error:
        if unchecked:
            note(error.message)
    if not seen:
        note(f"the model's own database is not at paths.data_db: no baseline{unchecked}")
    if info.parent is not None:
        seen += _among_those_of_tuning(config, info, examples)
    seen += beside
    overlap = {"rows": int(np.any(seen, axis=0).sum()), "of": len(examples)} if seen else None
    return _measure(config, loaded, examples, baseline, answers, split=str(data_file), device=device, overlap=overlap)


@dataclass(frozen=True)
class _Answers:
    """Places of the model's labels that a test is among, and rows that the model cannot answer, by their label."""

    places: tuple[int, ...]
    unanswered: dict[str, int]


def _answers(labels: tuple[str, ...], occurring: Iterable[int], unanswered: dict[str, int]) -> _Answers:
    """What a test of a model with these labels is among: those that occur, if there are two or more. Says so."""
    from sentiment_hybrid.console import note, warn

    places = tuple(map(int, occurring))
    if len(places) < 2:
        places = tuple(range(len(labels)))
    elif len(places) < len(labels):
        names = ", ".join(labels[place] for place in places)
        note(f"the rows are labelled {names} alone: the model's probabilities of these are renormalised")
    if unanswered:
        which = ", ".join(f"{label or 'nothing'} ({rows:,})" for label, rows in list(unanswered.items())[:12])
        warn(
            f"the model cannot answer {sum(unanswered.values()):,} rows, labelled {which}: its labels are "
            f"{', '.join(labels)}; they are left out"
        )
    return _Answers(places, unanswered)


def _among(examples: Examples, store: Store, *, rows: int | None) -> np.ndarray:
    """Which of these texts have the split key of a text in the first ``rows`` of train, or in valid: (N,) bool."""
    import numpy as np

    from sentiment_hybrid.data.splits import hash_raw

    _, keys = hash_raw(examples.raw or examples.texts, store.split_seed)
    return np.isin(keys, trained_keys(store, rows))


def _among_those_of_tuning(config: Config, info: ModelInfo, examples: Examples) -> list[np.ndarray]:
    """The same for the texts that a model was fine-tuned on; empty where they are not kept any more."""
    from sentiment_hybrid.console import note
    from sentiment_hybrid.data.store import open_store

    path = paths.finetune_db(paths.cache_dir(config.paths.cache_dir), info.data_fingerprint)
    try:
        with open_store(path) as store:
            return [_among(examples, store, rows=None)]
    except DatabaseError:
        note(f"the texts that the model was fine-tuned on are not at {path}: no check for them")
        return []


def texts_beside(loaded: LoadedModel) -> SeenTexts | None:
    """Texts of no database that the model was trained on, or all that its pack knows; mini has a warning of its own."""
    own = loaded.directory
    places = [] if own.parent == paths.mini_dir() else [own / paths.SEEN_TEXTS, own.parent / paths.SEEN_TEXTS]
    return next((_readable(path) for path in places if path.is_file()), None)


def _readable(path: Path) -> SeenTexts | None:
    """None for a damaged filter, which is said: a warning is not worth the figures."""
    from sentiment_hybrid.console import note
    from sentiment_hybrid.engine.evaluation.seen import SeenTexts

    try:
        return SeenTexts.load(path)
    except DataError as error:
        note(f"{error.message}: no check for texts trained on")
        return None


def trained_keys(store: Store, rows: int | None) -> np.ndarray:
    """Order hashes of the texts that a model was trained on (the first ``rows``, or all) or selected by."""
    import numpy as np

    return np.concatenate([store.key_hashes("train")[:rows], store.key_hashes("valid")])


def _check_fits(loaded: LoadedModel, store: Store) -> None:
    _check_labels(loaded, store.labels)
    if store.split_fingerprint != loaded.info.split_fingerprint:
        raise DatabaseError(
            f"{loaded.directory} was trained on another split than that of {store.path}: rows of this test split "
            "may have been trained on",
            hint="Train on this database, use the one that the model was trained on, or test a file with --data FILE.",
        )


def _check_labels(loaded: LoadedModel, labels: tuple[str, ...]) -> None:
    """Raises LabelError where the data and the model do not have two labels in common."""
    if len(set(labels) & set(loaded.info.labels)) < 2:
        raise LabelError(
            f"the data has the labels {', '.join(labels)}, and the model {', '.join(loaded.info.labels)}",
            hint="Test the model on labelled texts of its own kind with --data FILE; or prepare the data again with "
            "--label-map, so that its labels are the model's.",
        )


def _in_labels(loaded: LoadedModel, store: Store, examples: Examples) -> tuple[Examples, _Answers]:
    """Rows of a database in the model's labels; those of other labels are left out."""
    from dataclasses import replace

    import numpy as np

    own = loaded.info.labels
    codes = np.array([own.index(label) if label in own else -1 for label in store.labels])
    counts = np.bincount(examples.labels[codes[examples.labels] < 0], minlength=len(store.labels))
    unanswered = {label: int(count) for label, count in zip(store.labels, counts, strict=True) if count}
    answers = _answers(own, sorted(code for code in codes if code >= 0), unanswered)
    kept = examples.chosen(np.flatnonzero(codes[examples.labels] >= 0)) if unanswered else examples
    return replace(kept, labels=codes[kept.labels]), answers


def own_texts(loaded: LoadedModel, store: Store, examples: Examples) -> Examples:
    """The texts as the model's own normaliser gives them, when the database was cleaned with another one."""
    from dataclasses import replace

    from sentiment_hybrid.data.normalizers import from_id

    if store.normalizer == loaded.info.normalizer or examples.raw is None:
        return examples
    normalize = from_id(loaded.info.normalizer)
    return replace(examples, texts=[normalize(text) for text in examples.raw])


def _baseline(config: Config, loaded: LoadedModel, store: Store, examples: Examples) -> np.ndarray | None:
    """TF-IDF + logistic regression trained on the model's own training rows: probabilities (N, C) on these rows."""
    if not config.test.baseline:
        return None
    from sentiment_hybrid.console import note
    from sentiment_hybrid.engine.evaluation import baseline

    rows = min(loaded.info.train_rows, store.count("train"))
    facts = [store.fingerprint, rows, list(store.labels), loaded.info.normalizer]
    fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    folder = paths.baselines_dir(paths.cache_dir(config.paths.cache_dir))
    fitted = baseline.load(folder, fingerprint)
    if fitted is None:
        note(f"fitting the baseline: TF-IDF + logistic regression on the same {rows:,} training texts")
        train = own_texts(loaded, store, store.read("train", rows, with_raw=True))
        fitted = baseline.fit_or_load(
            train.texts, train.labels, num_classes=len(store.labels), folder=folder, fingerprint=fingerprint
        )
    return fitted.predict_proba(examples.texts)


def _measure(
    config: Config,
    loaded: LoadedModel,
    examples: Examples,
    baseline: np.ndarray | None,
    answers: _Answers,
    *,
    split: str,
    device: str,
    overlap: dict[str, Any] | None = None,
) -> TestResult:
    from dataclasses import replace

    import numpy as np

    from sentiment_hybrid.engine.evaluation import metrics
    from sentiment_hybrid.engine.inference.answers import among
    from sentiment_hybrid.files import sha256

    seen_by_mini = warned_of_mini(loaded, examples)
    probabilities, passes = probabilities_of(config, loaded, examples, split=split, device=device)
    info = loaded.info
    labels = tuple(info.labels[place] for place in answers.places)
    if labels != info.labels:
        examples = replace(examples, labels=np.searchsorted(answers.places, examples.labels))
        probabilities = among(probabilities, answers.places)
        baseline = None if baseline is None else among(baseline, answers.places)
    level = level_of(config)
    scores = metrics.score(examples.labels, probabilities, labels, **level)
    baseline_scores, comparison = None, None
    if baseline is not None:
        baseline_scores = metrics.score(examples.labels, baseline, labels, **level)
        comparison = metrics.compare(examples.labels, probabilities.argmax(1), baseline.argmax(1), **level)
    # A file of the user's is told by its name alone: a path does not belong into the name of a figure.
    name = split if split in ("train", "valid", "test") else f"file_{Path(split).stem}"
    files = write_files(config, loaded, examples, probabilities, baseline, scores, name=name, labels=labels)
    entry = {
        "split": split,
        "rows": len(examples.labels),
        "labels": list(labels),
        "model_labels": list(info.labels),
        "unanswered": answers.unanswered,
        "model_fingerprint": info.weights_sha256,
        "train_fingerprint": info.train_fingerprint,
        "data_fingerprint": info.data_fingerprint,
        "test_config": config.test.model_dump(mode="json"),
        "test": scores.to_dict(),
        "baseline": baseline_scores.to_dict() if baseline_scores else None,
        "comparison_with_baseline": comparison.to_dict() if comparison else None,
        "overlap_with_training": overlap,
        "seen_by_mini": seen_by_mini,
        "predictions_sha256": sha256(files["predictions"]),
        "files": {name: str(path) for name, path in files.items()},
    }
    return TestResult(
        model=info.display_name,
        model_dir=loaded.directory,
        split=split,
        rows=len(examples.labels),
        labels=labels,
        scores=scores,
        baseline=baseline_scores,
        comparison=comparison,
        files=files,
        entry=entry,
        overlap=overlap,
        encoder_passes=passes,
    )


def warned_of_mini(loaded: LoadedModel, examples: Examples) -> int | None:
    """How many of these texts mini was trained on or chosen by, if the model is mini's, or was made from it: warns.

    None for another model; 0 where the number is no more than chance makes it look.
    """
    from sentiment_hybrid.console import warn

    path = paths.mini_dir() / paths.SEEN_TEXTS
    texts = _readable(path) if path.is_file() and _of_mini(loaded) else None
    if texts is None:
        return None
    found = int(texts.contains(examples.raw or examples.texts).sum())
    by_chance = texts.chance * len(examples)
    if found <= by_chance + 4.0 * by_chance**0.5:
        return 0
    warn(
        f"{found:,} of these {len(examples):,} texts are among those that mini was made from (short ones may be "
        "others of the same words): figures on them flatter what stands on it"
    )
    return found


def _of_mini(loaded: LoadedModel) -> bool:
    """Whether it is one of mini's models, stands on its encoder, or was fine-tuned from such a one."""
    from sentiment_hybrid.engine.inference.model_directory import read_info

    own = paths.mini_dir()
    if loaded.directory.parent == own or loaded.info.encoder_name == paths.MINI:
        return True
    heads = {read_info(own / head).weights_sha256 for head in HEADS if (own / head).is_dir()}
    parent = loaded.info.parent
    while parent is not None:
        if parent["weights_sha256"] in heads:
            return True
        parent = parent.get("parent")
    return False


def level_of(config: Config) -> dict[str, Any]:
    """How intervals and tests are made: what `metrics.score` and `metrics.compare` take beside the predictions."""
    return {
        "confidence": config.test.confidence,
        "resamples": config.test.resamples,
        "seed": config.project.seed,
    }


def probabilities_of(
    config: Config, loaded: LoadedModel, examples: Examples, *, split: str, device: str
) -> tuple[np.ndarray, int]:
    """Probabilities (N, C), and how many windows went through the encoder for them."""
    from sentiment_hybrid.console import note, progress
    from sentiment_hybrid.engine.device import resolve
    from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
    from sentiment_hybrid.engine.training.session import session_for

    info, settings = loaded.info, config.model(loaded.info.head).train
    compute = resolve(device, settings.precision)
    session = session_for(
        loaded.classifier,
        loaded.encoder,
        compute=compute,
        cache=paths.cache_dir(config.paths.cache_dir),
        # A fine-tuned encoder's states serve this model alone: not worth keeping.
        keep_states=info.trainable_layers == 0,
        max_gb=config.cache.max_gb,
        token_budget=settings.token_budget,
        max_length=info.max_length,
        max_windows=info.max_windows,
    )
    with progress(f"encoding {split}", unit="windows") as bar:
        dataset = session.dataset(examples.texts, examples.labels, progress=bar.advance)
    if cut := dataset.tokenized.truncated:
        note(f"{cut:,} texts are longer than {info.max_windows} windows and were cut")
    with progress(f"testing on {split}", total=len(dataset), unit="texts") as bar:
        probabilities = predict_probabilities(
            session.classifier,
            dataset.tokenized,
            compute=compute,
            token_budget=settings.token_budget,
            states=dataset.states,
            progress=bar.advance,
        )
    live = len(dataset.tokenized.window_lengths) if dataset.states is None else 0
    return probabilities, live + (session.states.passes if session.states else 0)


def write_files(
    config: Config,
    loaded: LoadedModel,
    examples: Examples,
    probabilities: np.ndarray,
    baseline: np.ndarray | None,
    scores: Scores,
    *,
    name: str,
    labels: tuple[str, ...],
) -> dict[str, Path]:
    """Predictions and figures of a model on these rows; ``name`` says in the names of the files which rows."""
    from sentiment_hybrid.reporting import plots
    from sentiment_hybrid.reporting.predictions import write_predictions

    folder, info = config.paths.results_dir, loaded.info
    files = {
        "predictions": paths.predictions_csv(folder, info.head, name),
        "confusion_matrix": paths.confusion_png(folder, info.head, name),
        "reliability": paths.reliability_png(folder, info.head, name),
    }
    write_predictions(
        files["predictions"],
        rows=examples.rows,
        texts=examples.raw if examples.raw is not None else examples.texts,
        labels=examples.labels,
        probabilities=probabilities,
        names=labels,
        baseline=None if baseline is None else baseline.argmax(1),
    )
    title = f"{info.display_name} on {scores.rows:,} {name} texts"
    plots.confusion_matrix(files["confusion_matrix"], scores.confusion, labels, title=title)
    plots.reliability(files["reliability"], scores.reliability, title=title)
    return files
