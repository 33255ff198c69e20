"""Tables of figures that several commands print: scores, comparisons, seeds, a training, a test, an explanation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sentiment_hybrid import console
from sentiment_hybrid.errors import count, promised_by


def percent(interval: Any, between: str = " ") -> str:
    """``82.41 [81.90, 82.93]``, without the unit; a dash for NaN."""
    if math.isnan(interval.value):
        return "-"
    return f"{100 * interval.value:.2f}{between}[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def p_value(value: float, equals: str = "") -> str:
    """``0.031``, after ``equals``, or ``< 0.001``."""
    return "< 0.001" if value < 0.001 else f"{equals}{value:.2g}"


def points(difference: Any, sign: int = 1) -> str:
    """``+4.50 [+1.60, +7.30]``, in percentage points; negated with a ``sign`` of -1."""
    low, high = sorted((sign * difference.low, sign * difference.high))
    return f"{100 * sign * difference.value:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


#: Metrics in which two models are compared.
_COMPARED = ("macro_f1", "accuracy")


def difference(comparison: Any, first: str, second: str) -> str:
    """Two paired tests as a sentence: the metrics in which one model is significantly better on the same rows."""
    signs = [comparison.better(metric) for metric in _COMPARED]
    turned = next((sign for sign in signs if sign), 1)
    if turned < 0:
        # The better model is named first, and the numbers are from its perspective.
        first, second, signs = second, first, [-sign for sign in signs]
    figures = "; ".join(
        f"{console.metric_name(metric)} {points(getattr(comparison, metric), turned)} points, "
        f"p {p_value(getattr(comparison, metric).p_value, equals='= ')}"
        for metric in _COMPARED
    )
    return f"{_verdict(first, second, signs)} on {_these(comparison.rows)} ({figures})."


def _these(texts: int) -> str:
    return f"{'this' if texts == 1 else 'these'} {count(texts, 'text')}"


def _verdict(first: str, second: str, signs: list[int]) -> str:
    """``signs``: for each metric, 1 if the first model is better, -1 if the second is, else 0."""
    better, worse, same = (
        " and ".join(console.metric_name(m) for m, sign in zip(_COMPARED, signs, strict=True) if sign == of)
        for of in (1, -1, 0)
    )
    named = f"{first[0].upper()}{first[1:]}"
    if not better:
        return f"{named} and {second} do not differ measurably"
    words = f"{named} is better than {second}, beyond chance, in {better}"
    if worse:
        return f"{words}, and worse in {worse},"
    return f"{words}, with no measurable difference in {same}," if same else words


def differences(compared: Sequence[tuple[Any, str, str]]) -> None:
    """Show which models differ beyond chance: each pair in a table, or a sentence for a single pair."""
    if len(compared) == 1:
        console.say(difference(*compared[0]))
    if len(compared) < 2:
        return
    rows: list[list[str]] = []
    for comparison, first, second in compared:
        for metric, name in zip(_COMPARED, (first, f"- {second.removeprefix('the ')}"), strict=True):
            gap = getattr(comparison, metric)
            better = {1: first, -1: second.removeprefix("the "), 0: "neither"}[comparison.better(metric)]
            rows.append([name, console.metric_name(metric), better, points(gap), p_value(gap.p_value)])
    one = compared[0][0]
    level = 100 * one.confidence
    columns = ["models", "metric", "better", f"points [{level:g} % interval]", "p"]
    console.table(f"Differences on {count(one.rows, 'text')}", columns, rows, left=3)
    console.say(
        f"p and intervals are corrected for {len(compared)} pairs (Holm): an interval includes 0 if neither is better."
    )


_HEADLINES = (
    ("macro-F1", "macro_f1"),
    ("accuracy", "accuracy"),
    ("macro precision", "macro_precision"),
    ("macro recall", "macro_recall"),
    ("MCC", "mcc"),
    ("ROC-AUC", "roc_auc"),
    ("calibration error", "ece"),
)


def scores(title: str, scores: Mapping[str, Any]) -> None:
    """Show the main metrics in percent with intervals; ``scores`` is name -> Scores.

    One column per model if the terminal is wide enough for them, with the intervals below the figures if need be; else
    one row per model and metric.
    """
    level = f"[{100 * next(iter(scores.values())).confidence:g} % interval]"
    columns = [f"in percent\n{level}", *scores]
    for between in (" ", "\n"):
        rows = [[words, *(percent(getattr(one, of), between) for one in scores.values())] for words, of in _HEADLINES]
        if console.fits(columns, rows):
            return console.table(title, columns, rows)
    rows = [
        [words if name == next(iter(scores)) else "", name, *percent(getattr(one, of)).split(" ", 1)]
        for words, of in _HEADLINES
        for name, one in scores.items()
    ]
    return console.table(title, ["metric", "model", "percent", level], rows, left=2)


def test(result: Any) -> None:
    """Show a test: metrics next to the baseline, metrics per class, the paired test, and the files."""
    columns = {result.model: result.scores}
    if result.baseline is not None:
        columns["baseline"] = result.baseline
    scores(f"{result.model} on {count(result.rows, 'text')} ({result.split})", columns)
    if result.before_corrections is not None:
        before, changed, dropped = result.before_corrections
        scores(f"{result.model} on {count(before.rows, 'text')} before corrections", {result.model: before})
        console.say(f"Corrections changed {count(changed, 'label')} and dropped {count(dropped, 'row')} of this split.")
    classes = [
        [one.label, *(_figure(getattr(one, of)) for of in ("precision", "recall", "f1")), f"{one.support:,}"]
        for one in result.scores.per_class
    ]
    console.table("Per class, in percent", ["class", "precision", "recall", "F1", "texts"], classes)
    _triage(result.entry.get("triage"))
    overlap = result.overlap
    if overlap and overlap.get("rows"):
        # No verdict on the difference then: training rows favor the model that memorizes more.
        share, were = 100 * overlap["rows"] / max(result.rows, 1), "was" if overlap["rows"] == 1 else "were"
        console.warn(
            f"{overlap['rows']:,} of {_these(result.rows)} ({share:.1f} %) {were} in the model's "
            "training data, so the scores are too high"
        )
    elif result.comparison is not None:
        console.say(difference(result.comparison, result.model, "the TF-IDF baseline"))
        if any(result.comparison.better(metric) < 0 for metric in _COMPARED):
            console.say("Before you use this model, try more epochs, more training rows, or trainable encoder layers.")
    if overlap and not overlap.get("rows"):
        console.say("None of these texts was in the model's training data.")
    files(result.files)


def _triage(found: Any) -> None:
    """How many answers reach an accuracy, and whether thresholds from validation rows keep it on these rows."""
    if not found:
        return
    rows = []
    for target, coverage in found["coverage"].items():
        promise = found.get("promises", {}).get(target)
        cells = ["-", "-", "-"]
        if promise:
            value, low, high = promise["accuracy"] or (math.nan,) * 3
            kept = "-" if math.isnan(value) else f"{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
            cells = [f"{promise['threshold']:.4g}", f"{100 * promise['coverage']:.1f}", kept]
        rows.append([f"{100 * float(target):g} %", f"{100 * coverage:.1f}", *cells])
    columns = ["accuracy", "possible coverage", "threshold", "coverage", "accuracy of these"]
    console.table("Most confident answers, in percent of the texts", columns, rows)
    if not (facts := found.get("validation")):
        return
    best = facts["best"]
    can = "none can be promised" if best is None else f"{100 * best:.5g} % is the most that can be promised"
    console.say(f"Thresholds are from {promised_by(facts['rows'], facts['fresh'])}; {can}.")
    if best is not None:
        target = next((float(target) for target in found["promises"]), best)
        console.say(f"Use them with senthy predict --target-accuracy {100 * target:.5g}%.")


def best_epoch(result: Any) -> str:
    """``best of 5 epochs: epoch 3``, or ``one epoch``."""
    return f"best of {result.epochs} epochs: epoch {result.best_epoch}" if result.epochs > 1 else "one epoch"


def training(result: Any) -> None:
    """Show a training: model directory, best epoch, results over seeds, and test."""
    resumed = " (resumed)" if result.resumed else ""
    console.say(f"{result.model_dir} trained{resumed} in {console.duration(result.seconds)}; run {result.run_dir}")
    if result.valid:
        console.say(f"{best_epoch(result)}, on the validation split {console.metric_values(result.valid)}")
    if result.seeds:
        seeds(result.model, result.seeds)
    if result.test is not None:
        test(result.test)


def seeds(model: str, summary: Mapping[str, Any]) -> None:
    """Show the figures of each seed, and their mean and standard deviation; ``summary`` is that of a training."""
    figures = summary["figures"]
    rows = [
        [
            f"{seed} (published)" if seed == summary["published"] else seed,
            *(_figure(of["values"][place]) for of in figures.values()),
        ]
        for place, seed in enumerate(summary["seeds"])
    ]
    rows.append(["mean ± std", *(mean_and_std(of) for of in figures.values())])
    columns = ["seed", *(console.metric_name(name).replace(" ", "\n", 1) for name in figures)]
    console.table(f"{model} over {len(summary['seeds'])} seeds, in percent", columns, rows)


def mean_and_std(of: Mapping[str, float]) -> str:
    """``82.41 ± 0.52``, in percent."""
    return f"{100 * of['mean']:.2f} ± {100 * of['std']:.2f}"


def varied(summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Explain what seeds change, and how much; ``summaries`` is model -> its summary."""
    if summaries:
        figures = ", ".join(
            f"{name} {mean_and_std(of['figures']['test_macro_f1'])} %" for name, of in summaries.items()
        )
        console.say(
            "Of several seeds, the model that is best in validation is compared. Seeds change the initial weights, the "
            f"order of the training rows and dropout, not the rows; test macro-F1 over seeds: {figures}."
        )


def files(files: Mapping[str, object]) -> None:
    """Show the files that were written."""
    for what, path in files.items():
        if path is not None:
            console.say(f"{what.replace('_', ' ')}: {path}")


#: Signs that the longest bar of a table has.
_BAR = 12
#: Below this share of the largest weight, a word is not coloured.
_FAINT = 0.15


def explanation(one: Any, *, top: int = 10, answer: str | None = None) -> None:
    """Print a text with its words marked, and a table of the ``top`` largest weights.

    ``answer`` is what is answered if that is not the explained label: unsure.
    """
    if one.label is None:
        console.say("nothing to explain: the text is empty after cleaning")
        return
    facts = "attention of the head"
    if one.method == "gradients":
        facts = f"logit {one.baseline:+.2f} without the words, {one.logit:+.2f} with them"
    predicted = "" if one.label == one.prediction else f"; predicted: {one.prediction}"
    explained = f"{one.label} {one.score:.3f}"
    answered = explained if answer in (None, one.label) else f"{answer} ({explained})"
    console.say(f"{answered} ({facts}{predicted})")
    largest = max((abs(word.weight) for word in one.words), default=0.0) or 1.0
    console.styled(_marked(one, largest))
    shown = one.strongest(top)
    rows = [[word.text, _bar(word.weight / largest), f"{word.weight:+.2f}", f"{word.attention:.2f}"] for word in shown]
    console.table("", ["word", "", "weight", "attention"], rows, left=2)
    if (more := len(one.words) - len(shown)) > 0:
        console.say(f"and {count(more, 'word')} with smaller weights")
    if one.is_inexact:
        change = one.logit - one.baseline
        console.say(f"The weights sum to {change + one.error:+.2f} instead of {change:+.2f}: they are estimates.")


def _marked(one: Any, largest: float) -> list[tuple[str, str]]:
    """The text in parts with their styles; green is for the label, red is against it."""
    parts, end = [], 0
    for word in one.words:
        share = word.weight / largest
        colour = "" if abs(share) < _FAINT else "green" if share > 0 else "red"
        style = f"bold {colour}" if colour and abs(share) > 0.5 else colour
        parts += [(one.text[end : word.start], ""), (word.text, style)]
        end = word.end
    return [*parts, ("" if not one.unread else " ...", "")]


def _bar(share: float) -> str:
    return ("+" if share > 0 else "-") * round(_BAR * abs(share))
