"""Asks every question about a table of labelled texts; one that cannot be answered says why."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note, progress
from sentiment_hybrid.engine.device import resolve
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.engine.insight.artefacts import Artefact, find_artefacts
from sentiment_hybrid.engine.insight.duplicates import find_duplicates
from sentiment_hybrid.engine.insight.features import States, fit_states, fit_words, mean_states, reduced_tfidf
from sentiment_hybrid.engine.insight.label_errors import FOLDS, find_label_errors, out_of_fold
from sentiment_hybrid.engine.insight.languages import find_other_languages
from sentiment_hybrid.engine.insight.outliers import find_outliers
from sentiment_hybrid.engine.insight.overview import by_split, cut_texts
from sentiment_hybrid.engine.insight.repeats import find_repeats
from sentiment_hybrid.engine.insight.table import LABEL_ERROR, LANGUAGE, OUTLIER, Finding, Table
from sentiment_hybrid.engine.training.prepare import load_or_build_encoder, open_session
from sentiment_hybrid.errors import EncoderError
from sentiment_hybrid.files import written
from sentiment_hybrid.runtime import Runtime

#: What label errors and outliers are found by; auto is the encoder if it can be loaded.
Features = Literal["auto", "encoder", "tfidf"]


@dataclass
class Found:
    """Findings, the most informative tokens, why some questions have no answer, and facts for the report."""

    findings: list[Finding] = field(default_factory=list)
    artefacts: list[Artefact] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def examine(config: Config, runtime: Runtime, table: Table, features: Features) -> Found:
    """Ask every question, with progress.

    Raises:
        EncoderError: ``features`` is encoder, and it cannot be loaded.
        TrainingError: there is no memory for a single text.
    """
    found, seed = Found(), config.project.seed
    chosen = np.flatnonzero(table.chosen)
    with progress("looking for near-duplicates", total=len(table), unit="texts") as bar:
        duplicates = find_duplicates(table.texts, progress=bar.advance)
    found.findings += find_repeats(table, duplicates)
    with progress("looking for other languages", total=len(chosen), unit="texts") as bar:
        language, others = find_other_languages(table.texts, chosen, seed=seed, progress=bar.advance)
    found.findings += others
    found.facts["language"] = language
    if not language:
        found.skipped[LANGUAGE] = "most texts are too short, or in no common language"
    learned = np.flatnonzero(table.learned)
    found.artefacts = find_artefacts(table.texts, learned, table.labels[learned], table.names, seed=seed)
    tokens = _by_model(config, runtime, table, duplicates.groups, features, found)
    found.facts["splits"] = by_split(table, tokens)
    return found


def _by_model(
    config: Config, runtime: Runtime, table: Table, groups: np.ndarray, features: Features, found: Found
) -> np.ndarray | None:
    """Label errors and outliers; the number of tokens of each text (N,), if there is an encoder."""
    cache, seed = config.paths.cache, config.project.seed
    with written(cache):
        cache.mkdir(parents=True, exist_ok=True)
    session = _session(config, runtime, table, features)
    tokens, states = None, None
    if session is None:
        states = reduced_tfidf(table.texts, cache, seed=seed)
    else:
        states, tokens = _encoded(session, table, cache, found)
    learned, chosen = np.flatnonzero(table.learned), np.flatnonzero(table.chosen)
    found.facts["features"] = "TF-IDF" if session is None else session.encoder.name
    fit = partial(fit_words, table.texts) if session is None or states is None else partial(fit_states, states)
    with progress("cross-validating", total=FOLDS, unit="folds") as bar:
        answers = out_of_fold(fit, learned, table.labels[learned], groups[learned], seed=seed, progress=bar.advance)
    if answers is None:
        found.skipped[LABEL_ERROR] = "too few rows, or too few of all classes but one"
    else:
        right = answers.probabilities.argmax(axis=1) == answers.labels
        found.facts["cross_validated_accuracy"] = float(right.mean())
        found.findings += [one for one in find_label_errors(answers) if table.chosen[one.place]]
    outliers = None if states is None else find_outliers(states, chosen, table.labels[chosen], seed=seed)
    found.findings += outliers or []
    if outliers is None:
        found.skipped[OUTLIER] = "too few rows"
    return tokens


def _session(config: Config, runtime: Runtime, table: Table, features: Features) -> Session | None:
    """The encoder; None to do without. Raises EncoderError when it is demanded, and cannot be loaded."""
    if features == "tfidf" or (features == "auto" and config.encoder.name == paths.SCRATCH and not runtime.encoder):
        return None
    try:
        loaded = load_or_build_encoder(config, lambda: table.texts, offline=runtime.offline, place=runtime.encoder)
    except EncoderError as error:
        if features == "encoder":
            raise
        note(
            f"{error.message}: label errors are looked for with TF-IDF instead, which finds fewer (--set "
            "encoder.name=mini needs no download)"
        )
        return None
    compute = resolve(runtime.device, config.training("linear").precision)
    return open_session(config, "linear", loaded, num_classes=max(2, len(table.names)), compute=compute)


def _encoded(session: Session, table: Table, cache: Path, found: Found) -> tuple[States, np.ndarray]:
    with progress("tokenizing and encoding", unit="windows") as bar:
        dataset = session.dataset(table.texts, table.labels, progress=bar.advance)
    with progress("reading states", total=len(table), unit="texts") as bar:
        states = mean_states(session, dataset, cache, progress=bar.advance)
    found.findings += cut_texts(session, table, dataset.tokenized)
    found.facts["several_windows"] = int((np.diff(dataset.tokenized.text_offsets) > 1).sum())
    found.facts["max_length"] = session.max_length
    return states, dataset.tokenized.lengths
