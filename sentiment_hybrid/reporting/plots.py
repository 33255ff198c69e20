"""Figures as PNG, PDF or SVG files: confusion matrix, reliability diagram, learning curves, comparison of models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.reporting.canvas import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    figure,
    finite,
    number,
    percent,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: With more classes, there is no room for numbers in the cells.
_MOST_WRITTEN_CLASSES = 25


def confusion_matrix(path: Path, confusion: Sequence[Sequence[int]], labels: Sequence[str], *, title: str) -> None:
    """Draw counts and row percentages; ``confusion[i][j]`` counts rows with true label i and predicted label j.

    Raises OutputError if the file cannot be written.
    """
    size = len(labels)
    side = min(24.0, max(4.2, 0.85 * size + 1.6))
    with figure(path, (side + 1.6, side), title) as drawing:
        axes = drawing.subplots()
        shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
        image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        if size <= _MOST_WRITTEN_CLASSES:
            _write_cells(axes, confusion, shares)
        _name_classes(axes, labels)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted", ylabel="true")
        bar = drawing.colorbar(image, ax=axes, fraction=0.046, pad=0.03, format=percent())
        bar.set_label("fraction of the true class")
        bar.outline.set_visible(False)


def risk_coverage(path: Path, coverage: Any, accuracy: Any, *, title: str) -> None:
    """Draw the accuracy of the most confident answers over the share of rows that they are, both (K,).

    Raises OutputError if the file cannot be written.
    """
    with figure(path, (6.0, 4.4), title) as drawing:
        axes = drawing.subplots()
        axes.plot(coverage, accuracy, color=BLUE, linewidth=1.6, label=f"all answers {100 * accuracy[-1]:.1f} %")
        for target, style in ((0.95, "--"), (0.98, ":")):
            share = max((at for at, value in zip(coverage, accuracy, strict=True) if value >= target), default=0.0)
            label = f"{100 * target:.0f} % for {100 * share:.0f} % of the texts"
            axes.axhline(target, color=MUTED, linewidth=1.2, linestyle=style, label=label)
        axes.set(
            xlabel="share of texts that are answered, the most confident first", ylabel="accuracy of these answers"
        )
        axes.set(xlim=(0, 1), ylim=(min(0.94, *map(float, accuracy)) - 0.01, 1.005))
        axes.xaxis.set_major_formatter(percent())
        axes.yaxis.set_major_formatter(percent())
        axes.grid(True)
        axes.legend(loc="lower left")


def reliability(path: Path, bins: Sequence[Any], *, title: str) -> None:
    """Draw the calibration curve with its ECE, above a histogram of the rows per bin.

    Each bin has low, high, rows, confidence and accuracy.

    Raises OutputError if the file cannot be written.
    """
    filled = [part for part in bins if part.rows]
    total = sum(part.rows for part in filled)
    ece = sum(part.rows * abs(part.accuracy - part.confidence) for part in filled) / max(1, total)
    with figure(path, (6.0, 6.6), title) as drawing:
        curve, counts = drawing.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
        curve.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle="--", label="perfectly calibrated", zorder=2)
        for part in filled:
            ends = sorted((part.confidence, part.accuracy))
            curve.vlines(part.confidence, *ends, color=ORANGE, linewidth=3, alpha=0.45, zorder=2)
        points = [part.confidence for part in filled], [part.accuracy for part in filled]
        curve.plot(*points, color=BLUE, linewidth=1.6, zorder=3, label=f"model (calibration error {100 * ece:.2f} %)")
        largest = max((part.rows for part in filled), default=1)
        sizes = [18 + 90 * part.rows / largest for part in filled]
        curve.scatter(*points, s=sizes, color=BLUE, edgecolor="white", zorder=4)
        curve.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
        curve.yaxis.set_major_formatter(percent())
        curve.grid(True)
        curve.legend(loc="upper left")
        for part in filled:
            middle, width = (part.low + part.high) / 2, 0.9 * (part.high - part.low)
            counts.bar(middle, part.rows, width=width, color=BLUE, alpha=0.75)
        counts.set(xlabel="confidence in the predicted label", ylabel="texts")
        counts.xaxis.set_major_formatter(percent())
        counts.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        counts.yaxis.get_major_locator().set_params(integer=True, nbins=4)
        counts.grid(True, axis="y")
        counts.set_axisbelow(True)


def learning_curves(path: Path, epochs: Sequence[Mapping[str, Any]], *, title: str, best: int) -> None:
    """Draw loss, validation accuracy and macro-F1, and learning rate per epoch.

    Each of ``epochs`` has epoch, train_loss, valid_loss, valid_accuracy, valid_macro_f1, learning_rate; values that
    are missing or not finite are skipped. ``best`` is the epoch to mark.
    Raises OutputError if the file cannot be written.
    """
    numbers = [int(facts["epoch"]) for facts in epochs]
    with figure(path, (11.0, 3.9), title) as drawing:
        loss, quality, rate = drawing.subplots(1, 3, width_ratios=[1.2, 1.2, 0.8])
        _curve(loss, numbers, _values(epochs, "train_loss"), color=ORANGE, label="training", style="--s")
        _curve(loss, numbers, _values(epochs, "valid_loss"), color=BLUE, label="validation")
        loss.set_ylabel("loss")
        _curve(quality, numbers, _values(epochs, "valid_accuracy"), color=GREEN, label="accuracy", style="--s")
        _curve(quality, numbers, _values(epochs, "valid_macro_f1"), color=BLUE, label="macro-F1")
        quality.set_ylabel("validation")
        quality.yaxis.set_major_formatter(percent())
        _curve(rate, numbers, _values(epochs, "learning_rate"), color=MUTED, label=None)
        rate.set_ylabel("learning rate")
        rate.yaxis.set_major_formatter(lambda value, _: number(value))
        for axes in (loss, quality, rate):
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True, nbins=7)
            if len(numbers) == 1:
                axes.set_xlim(numbers[0] - 1, numbers[0] + 1)
            axes.grid(True)
            if axes is not rate:
                axes.axvline(best, color=INK, linewidth=1.6, linestyle=":", label=f"best: epoch {best}", zorder=1)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best")


def comparison(path: Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draw each model's scores; ``rows`` have name, and accuracy and macro_f1, each with value, low and high.

    ``seeds`` of a row, if not None, summarizes several seeds: each is drawn beside the published one, with mean and
    standard deviation.

    Raises OutputError if the file cannot be written.
    """
    with figure(path, (8.6, 1.6 + 0.72 * max(1, len(rows))), title) as drawing:
        axes = drawing.subplots()
        for offset, key, label, color, marker, style in (
            (-0.14, "accuracy", "accuracy", BLUE, "o", "-"),
            (0.14, "macro_f1", "macro-F1", ORANGE, "D", (0, (4, 0.6))),
        ):
            places = [(i + offset, row[key]) for i, row in enumerate(rows) if finite(row[key].value)]
            _dots(axes, places, label=label, color=color, marker=marker, style=style)
            seeds = [(i, row["seeds"]["figures"][f"test_{key}"]) for i, row in enumerate(rows) if row.get("seeds")]
            for i, of in seeds:
                _seeds(axes, i + 1.9 * offset, of, color=color, marker=marker)
        if any(row.get("seeds") for row in rows):  # legend entries, in a neutral colour
            axes.scatter([], [], s=14, facecolor="none", edgecolor=INK, label="a seed")
            label = "mean ± std of the seeds"
            axes.errorbar([], [], xerr=[], color=INK, linewidth=0.8, marker="|", markersize=8, label=label)
        axes.set_yticks(range(len(rows)), [_named(row) for row in rows])
        axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
        axes.margins(x=0.14)
        axes.xaxis.set_major_formatter(percent())
        axes.grid(True, axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        drawing.legend(loc="outside lower center", ncols=4)


# --- parts


def _write_cells(axes: Axes, confusion: Sequence[Sequence[int]], shares: list[list[float]]) -> None:
    font = 12 if len(confusion) <= 4 else 10 if len(confusion) <= 8 else 8.5
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            ink = "white" if shares[i][j] > 0.55 else INK
            words = f"{count:,}\n{100 * shares[i][j]:.1f} %"
            axes.text(j, i, words, ha="center", va="center", color=ink, fontsize=font)


def _name_classes(axes: Axes, labels: Sequence[str]) -> None:
    names = [wrapped(name) for name in labels]
    axes.set_yticks(range(len(names)), names)
    if len(names) <= 4 and all(len(line) <= 12 for name in names for line in name.split("\n")):
        axes.set_xticks(range(len(names)), names)
        return
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")


def _dots(axes: Axes, places: list[tuple[float, Any]], *, label: str, color: str, marker: str, style: Any) -> None:
    heights = [place for place, _ in places]
    lows, highs = [part.low for _, part in places], [part.high for _, part in places]
    values = [part.value for _, part in places]
    axes.hlines(heights, lows, highs, color=color, linestyle=style, linewidth=2.4, alpha=0.55)
    axes.scatter(values, heights, color=color, marker=marker, s=42, edgecolor="white", zorder=3, label=label)
    for place, part in places:
        mark = axes.annotate(f"{100 * part.value:.1f} %", (part.high, place), (7, 0), textcoords="offset points")
        mark.set(color=color, fontsize=8.5, va="center")


def _named(row: Mapping[str, Any]) -> str:
    name, seeds = wrapped(str(row["name"]), width=28), row.get("seeds")
    return f"{name}\nseed {seeds['published']}, of {len(seeds['seeds'])} seeds" if seeds else name


def _seeds(axes: Axes, place: float, of: Mapping[str, Any], *, color: str, marker: str) -> None:
    """Each seed as a hollow mark, over a thin line from mean - std to mean + std."""
    axes.hlines(place, of["mean"] - of["std"], of["mean"] + of["std"], color=color, linewidth=0.8)
    axes.scatter(of["values"], [place] * len(of["values"]), s=14, marker=marker, facecolor="none", edgecolor=color)
    axes.scatter([of["mean"]], [place], s=60, marker="|", color=color)


def _values(epochs: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(facts[key]) if finite(facts.get(key)) else math.nan for facts in epochs]


def _curve(
    axes: Axes, numbers: list[int], values: list[float], *, color: str, label: str | None, style: str = "-o"
) -> None:
    """Lines differ in style and marker (``-o``), not only in colour."""
    if any(math.isfinite(value) for value in values):
        fmt = style if len(numbers) <= 40 else style[:-1]
        axes.plot(numbers, values, fmt, color=color, linewidth=1.8, markersize=4, label=label)
