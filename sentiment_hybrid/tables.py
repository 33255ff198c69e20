"""Tables of figures that several commands print: scores, comparisons, seeds, a training, a test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentiment_hybrid import console


def percent(interval: Any) -> str:
    """``82.41 % [81.90, 82.93]``; a dash for NaN."""
    if math.isnan(interval.value):
        return "-"
    return f"{100 * interval.value:.2f} % [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def decimal(interval: Any) -> str:
    """``0.648 [0.638, 0.659]``; a dash for NaN."""
    if math.isnan(interval.value):
        return "-"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def p_value(value: float) -> str:
    """``p = 0.031``, or ``p < 0.0001``."""
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.2g}"


def difference(comparison: Any, first: str, second: str) -> str:
    """A paired test in words: the difference between two models on the same rows, and whether it is significant."""
    gap, level = comparison.accuracy, 100 * comparison.confidence
    low, high, alone = gap.low, gap.high, (comparison.only_a, comparison.only_b)
    if comparison.differs and gap.value < 0:
        # The better model is named first, and the numbers are from its perspective.
        first, second, low, high, alone = second, first, -high, -low, alone[::-1]
    value = abs(gap.value) if comparison.differs else gap.value
    facts = (
        f"{100 * value:+.2f} points of accuracy, {level:g} % interval {100 * low:+.2f} to {100 * high:+.2f}; "
        f"correct for one model only: {alone[0]:,} and {alone[1]:,} of {comparison.rows:,} texts; "
        f"exact McNemar {p_value(comparison.p_value)}"
    )
    named = f"{first[0].upper()}{first[1:]}"
    if not comparison.differs:
        return f"{named} and {second} do not differ measurably on these rows ({facts})."
    return f"{named} is better than {second} on these rows, beyond chance ({facts})."


_HEADLINES = (
    ("accuracy", "accuracy", percent),
    ("macro-F1", "macro_f1", percent),
    ("macro precision", "macro_precision", percent),
    ("macro recall", "macro_recall", percent),
    ("MCC", "mcc", decimal),
    ("ROC-AUC", "roc_auc", decimal),
    ("calibration error", "ece", decimal),
)


def scores(title: str, scores: Mapping[str, Any]) -> None:
    """Show the main metrics with intervals, one column per model; ``scores`` is name -> Scores."""
    rows = [[words, *(render(getattr(one, field)) for one in scores.values())] for words, field, render in _HEADLINES]
    level = 100 * next(iter(scores.values())).confidence
    console.table(title, [f"metric [{level:g} % interval]", *scores], rows)


def test(result: Any) -> None:
    """Show a test: metrics next to the baseline, metrics per class, the paired test, and the files."""
    columns = {result.model: result.scores}
    if result.baseline is not None:
        columns["baseline"] = result.baseline
    scores(f"{result.model} on {result.rows:,} texts ({result.split})", columns)
    classes = [
        [
            one.label,
            f"{100 * one.precision:.2f} %",
            f"{100 * one.recall:.2f} %",
            f"{100 * one.f1:.2f} %",
            f"{one.support:,}",
        ]
        for one in result.scores.per_class
    ]
    console.table("Per class", ["class", "precision", "recall", "F1", "texts"], classes)
    overlap = result.overlap
    if overlap and overlap.get("rows"):
        # No verdict on the difference then: rows that were trained on favor whichever contestant remembers more.
        console.warn(
            f"{overlap['rows']:,} of these {result.rows:,} texts ({100 * overlap['rows'] / max(result.rows, 1):.1f} %) "
            "were in the model's training data, so the scores are too high"
        )
    elif result.comparison is not None:
        console.say(difference(result.comparison, result.model, "the TF-IDF baseline"))
    if overlap and not overlap.get("rows"):
        console.say("None of these texts was in the model's training data.")
    files(result.files)
    if result.results_file_set_aside is not None:
        console.warn(
            f"the results file was damaged and renamed to {result.results_file_set_aside}; a new one was started"
        )


def metric_name(metric: str) -> str:
    """As tables and messages call it."""
    return metric.replace("_f1", "-F1").replace("_", " ")


def best_epoch(result: Any) -> str:
    """``best of 5 epochs: epoch 3``, or ``one epoch``."""
    return f"best of {result.epochs} epochs: epoch {result.best_epoch}" if result.epochs > 1 else "one epoch"


def training(result: Any) -> None:
    """Show a training: model directory, best epoch, results over seeds, and test."""
    resumed = " (resumed)" if result.resumed else ""
    console.say(f"{result.model_dir} trained{resumed} in {console.duration(result.seconds)}; run {result.run_dir}")
    if result.valid:
        best = ", ".join(f"{metric_name(name)} {value:.4f}" for name, value in result.valid.items())
        console.say(f"{best_epoch(result)}, on the validation split {best}")
    if result.seeds:
        seeds(result.seeds)
    if result.test is not None:
        test(result.test)


def seeds(summary: Mapping[str, Any]) -> None:
    """Show mean and standard deviation over seeds; ``summary`` is metric -> {mean, deviation, values}."""
    rows = [
        [
            name.replace("_", " "),
            f"{one['mean']:.4f}",
            f"{one['deviation']:.4f}",
            ", ".join(f"{v:.4f}" for v in one["values"]),
        ]
        for name, one in summary.items()
        if isinstance(one, Mapping)
    ]
    console.table("Over seeds", ["metric", "mean", "std", "values"], rows)


def files(files: Mapping[str, object]) -> None:
    """Show the files that were written."""
    for what, path in files.items():
        if path is not None:
            console.say(f"{what.replace('_', ' ')}: {path}")


def results_file(set_aside: Path | None) -> None:
    """Warn if the results file was damaged, and a new one was started."""
    if set_aside is not None:
        console.warn(f"the results file was damaged and renamed to {set_aside}; a new one was started")
