"""Renders a report as one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sentiment_hybrid.reporting.page.charts import Axis, Series, chart, intervals
from sentiment_hybrid.reporting.page.content import Curve, Group, Report, Search
from sentiment_hybrid.reporting.rendering import environment

#: Columns of the table of models.
METRICS = (
    ("macro_f1", "macro-F1"),
    ("accuracy", "accuracy"),
    ("macro_precision", "macro precision"),
    ("macro_recall", "macro recall"),
    ("mcc", "MCC"),
    ("roc_auc", "ROC-AUC"),
    ("ece", "calibration error"),
)
_SHARE = Axis("share of the texts answered", 0.0, 1.0)


def render(report: Report) -> str:
    """The page; texts are escaped, and a policy in the page lets no other script than its own run."""
    templates = environment(
        "sentiment_hybrid.reporting.page", points=points, share=share, plain=plain, p=p_value, interval=interval,
        difference=difference, date=date,
    )  # fmt: skip
    script = (Path(__file__).parent / "templates" / "report.js").read_text(encoding="utf-8")
    return templates.get_template("report.html").render(
        report=report,
        metrics=METRICS,
        charts=_CHARTS,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


# --- figures as text


def points(value: float | None) -> str:
    """``82.4``: in percent, without the unit; a dash for what is undefined."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def share(value: float) -> str:
    """``82.4 %``."""
    return f"{points(value)}\N{NO-BREAK SPACE}%"


def interval(figure: Any) -> str:
    """``[81.9, 82.9]``; nothing for what is undefined."""
    return "" if math.isnan(figure.value) else f"[{points(figure.low)}, {points(figure.high)}]"


def difference(figure: Any) -> str:
    """``+4.5 [+1.6, +7.3]``, in percentage points."""
    return f"{100 * figure.value:+.1f} [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]"


def p_value(value: float) -> str:
    """``0.031``, or ``< 0.001``."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def plain(value: Any) -> str:
    """A number with thousands separated, or the value as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def date(moment: str) -> str:
    """``2026-11-29 11:47 UTC`` of a moment as files have it; the text itself if it is none."""
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return moment


# --- charts


def _figures(group: Group) -> Markup:
    figures = [(one.name, *vars(one.scores.macro_f1).values()) for one in group.rivals]
    return intervals("Macro-F1 with intervals", figures)


def _coverage(group: Group) -> Markup:
    series = [Series(model.name, model.coverage) for model in group.models if model.coverage]
    return chart("Accuracy of the most confident answers", _SHARE, Axis("accuracy"), series)


def _calibration(group: Group) -> Markup:
    return chart(
        "Calibration: accuracy by confidence",
        Axis("mean confidence", 0.0, 1.0),
        Axis("accuracy", 0.0, 1.0),
        [
            Series(
                model.name,
                [(part.confidence, part.accuracy) for part in model.scores.reliability if part.rows],
                dots=True,
            )
            for model in group.models
        ],
        diagonal=True,
    )


def _learning(curves: Sequence[Curve], metric: str, name: str) -> Markup:
    series = []
    for curve in curves:
        measured = [(one["epoch"], one[metric]) for one in curve.epochs if isinstance(one.get(metric), int | float)]
        series.append(Series(curve.name, measured, dots=True))
    return chart(name, Axis("epoch", percent=False, whole=True), Axis(name, percent="loss" not in metric), series)


def _search(search: Search) -> Markup:
    best: list[tuple[float, float]] = []
    for number, value in search.trials:
        best.append((number, max(value, best[-1][1]) if best else value))
    series = [Series("best so far", best), Series("trial", search.trials, line=False, dots=True)]
    axis = Axis("trial", percent=False, whole=True)
    return chart("Validation score of each trial", axis, Axis("validation score", percent=False), series)


_CHARTS: dict[str, Callable[..., Markup]] = {
    "figures": _figures,
    "coverage": _coverage,
    "calibration": _calibration,
    "learning": _learning,
    "search": _search,
}
