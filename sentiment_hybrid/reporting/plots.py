"""The figures: confusion matrix, reliability, learning curves, comparison of models; PNG, no display needed."""

from __future__ import annotations

import math
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.files import aside_of, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sentiment_hybrid.engine.metrics import Interval, ReliabilityBin

_DPI = 150
_INK, _MUTED, _GRID = "#1f2933", "#65727f", "#dde3e9"
_BLUE, _ORANGE, _GREEN = "#2166ac", "#d9730d", "#2f8f5b"
#: Looked at in this order for characters that the font before lacks, where they are installed.
_FALLBACK_FONTS = (
    "Noto Emoji",
    "Segoe UI Emoji",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "Arial Unicode MS",
)
#: More classes than this leave no room for numbers in the cells.
_MOST_WRITTEN_CLASSES = 25
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def confusion_matrix(path: Path, confusion: Sequence[Sequence[int]], labels: Sequence[str], *, title: str) -> None:
    """Draw counts and row percentages: ``confusion[i][j]`` rows of true label i predicted as j.

    Raises OutputError where the file cannot be written.
    """
    size = len(labels)
    side = min(24.0, max(4.2, 0.85 * size + 1.6))
    with _figure(path, (side + 1.6, side)) as figure:
        axes = figure.subplots()
        shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
        image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        if size <= _MOST_WRITTEN_CLASSES:
            _write_cells(axes, confusion, shares)
        _name_classes(axes, labels)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted", ylabel="true")
        _title(figure, title)
        bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, format=_percent())
        bar.set_label("share of the true label's rows")
        bar.outline.set_visible(False)


def reliability(path: Path, bins: Sequence[ReliabilityBin], *, title: str) -> None:
    """Draw the calibration curve over the rows per bin, and the ECE that the bins give.

    Raises OutputError where the file cannot be written.
    """
    filled = [part for part in bins if part.rows]
    total = sum(part.rows for part in filled)
    ece = sum(part.rows * abs(part.accuracy - part.confidence) for part in filled) / max(1, total)
    with _figure(path, (6.0, 6.6)) as figure:
        curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
        curve.plot([0, 1], [0, 1], color=_MUTED, linewidth=1.2, linestyle="--", label="perfectly calibrated", zorder=2)
        for part in filled:
            ends = sorted((part.confidence, part.accuracy))
            curve.vlines(part.confidence, *ends, color=_ORANGE, linewidth=3, alpha=0.45, zorder=2)
        curve.plot(
            [part.confidence for part in filled],
            [part.accuracy for part in filled],
            color=_BLUE,
            linewidth=1.6,
            zorder=3,
            label=f"model (ECE {ece:.2%})",
        )
        largest = max((part.rows for part in filled), default=1)
        curve.scatter(
            [part.confidence for part in filled],
            [part.accuracy for part in filled],
            s=[18 + 90 * part.rows / largest for part in filled],
            color=_BLUE,
            edgecolor="white",
            zorder=4,
        )
        curve.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
        curve.yaxis.set_major_formatter(_percent())
        curve.grid(True)
        curve.legend(loc="upper left")
        _title(figure, title)
        for part in filled:
            counts.bar(
                (part.low + part.high) / 2, part.rows, width=0.9 * (part.high - part.low), color=_BLUE, alpha=0.75
            )
        counts.set(xlabel="confidence in the predicted label", ylabel="texts")
        counts.xaxis.set_major_formatter(_percent())
        counts.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        counts.yaxis.get_major_locator().set_params(integer=True, nbins=4)
        counts.grid(True, axis="y")
        counts.set_axisbelow(True)


def learning_curves(path: Path, epochs: Sequence[Mapping[str, Any]], *, title: str, best: int | None = None) -> None:
    """Draw loss, validation accuracy and macro-F1, and learning rate per epoch.

    Each of ``epochs`` has epoch, train_loss, valid_loss, valid_accuracy, valid_macro_f1, learning_rate; what is missing
    or not finite is left out. ``best`` is the epoch to mark, by default the first of the highest valid_macro_f1.
    Raises OutputError where the file cannot be written.
    """
    numbers = [int(facts["epoch"]) for facts in epochs]
    chosen = _best_epoch(epochs) if best is None else best
    with _figure(path, (11.0, 3.9)) as figure:
        loss, quality, rate = figure.subplots(1, 3, width_ratios=[1.2, 1.2, 0.8])
        _curve(loss, numbers, _values(epochs, "train_loss"), color=_ORANGE, label="train")
        _curve(loss, numbers, _values(epochs, "valid_loss"), color=_BLUE, label="validation")
        loss.set_ylabel("loss")
        _curve(quality, numbers, _values(epochs, "valid_accuracy"), color=_GREEN, label="accuracy")
        _curve(quality, numbers, _values(epochs, "valid_macro_f1"), color=_BLUE, label="macro-F1")
        quality.set_ylabel("validation")
        quality.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
        _curve(rate, numbers, _values(epochs, "learning_rate"), color=_MUTED, label=None)
        rate.set_ylabel("learning rate")
        rate.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
        for axes in (loss, quality, rate):
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True, nbins=7)
            if len(numbers) == 1:
                axes.set_xlim(numbers[0] - 1, numbers[0] + 1)
            axes.grid(True)
            if chosen is not None and axes is not rate:
                axes.axvline(chosen, color=_INK, linewidth=1.6, linestyle=":", label=f"best: epoch {chosen}", zorder=1)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best")
        _title(figure, title)


def comparison(path: Path, rows: Sequence[Mapping[str, Any]], *, title: str = "Models compared") -> None:
    """Draw a dot and an interval for each model: rows have name, and accuracy and macro_f1 as Interval.

    Raises OutputError where the file cannot be written.
    """
    with _figure(path, (8.6, 1.6 + 0.72 * max(1, len(rows)))) as figure:
        axes = figure.subplots()
        for offset, key, label, color, marker in (
            (-0.14, "accuracy", "accuracy", _BLUE, "o"),
            (0.14, "macro_f1", "macro-F1", _ORANGE, "D"),
        ):
            places = [(i + offset, row[key]) for i, row in enumerate(rows) if _finite(row[key].value)]
            _dots(axes, places, label=label, color=color, marker=marker)
        axes.set_yticks(range(len(rows)), [_label(str(row["name"]), width=28) for row in rows])
        axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
        axes.margins(x=0.14)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
        axes.grid(True, axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2)
        _title(figure, title)


# --- parts


@contextmanager
def _figure(path: Path, inches: tuple[float, float]) -> Iterator[Figure]:
    """A styled figure, saved aside and swapped in when the block ends well."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "font.sans-serif": _fonts()}), warnings.catch_warnings():
        # A character that no installed font has is drawn as a box; nothing a user could do about a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=inches, dpi=_DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        yield figure
        _save(path, canvas)


def _fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


def _save(path: Path, canvas: Any) -> None:
    hint = "check the folder's permissions and free space, or choose another with --set paths.results_dir=DIR"
    with written(f"figure {path}", hint=hint), aside_of(path) as aside:
        canvas.print_png(aside, metadata={"Software": None})


def _title(figure: Figure, title: str) -> None:
    width = max(24, int(figure.get_figwidth() * 9))
    figure.suptitle(_label(title, width=width, lines=3), x=0.012, ha="left", fontsize=12, fontweight="bold")


def _label(text: str, *, width: int = 18, lines: int = 2) -> str:
    """Text fit for an axis: printable characters only, wrapped, cut with an ellipsis."""
    shown = "".join(" " if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} else char for char in text)
    wrapped = textwrap.wrap(shown, width) or [""]
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: width - 1].rstrip() + "…"]
    return "\n".join(wrapped)


def _write_cells(axes: Axes, confusion: Sequence[Sequence[int]], shares: list[list[float]]) -> None:
    font = 12 if len(confusion) <= 4 else 10 if len(confusion) <= 8 else 8.5
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            ink = "white" if shares[i][j] > 0.55 else _INK
            axes.text(j, i, f"{count:,}\n{shares[i][j]:.1%}", ha="center", va="center", color=ink, fontsize=font)


def _name_classes(axes: Axes, labels: Sequence[str]) -> None:
    names = [_label(name) for name in labels]
    axes.set_yticks(range(len(names)), names)
    if len(names) <= 4 and all(len(line) <= 12 for name in names for line in name.split("\n")):
        axes.set_xticks(range(len(names)), names)
        return
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")


def _dots(axes: Axes, places: list[tuple[float, Interval]], *, label: str, color: str, marker: str) -> None:
    heights = [place for place, _ in places]
    lows, highs = [part.low for _, part in places], [part.high for _, part in places]
    values = [part.value for _, part in places]
    axes.hlines(heights, lows, highs, color=color, linewidth=2.4, alpha=0.55)
    axes.scatter(values, heights, color=color, marker=marker, s=42, edgecolor="white", zorder=3, label=label)
    for place, part in places:
        axes.annotate(
            f"{part.value:.1%}",
            (part.high, place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=color,
        )


def _percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1.0, decimals=0)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _values(epochs: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(facts[key]) if _finite(facts.get(key)) else math.nan for facts in epochs]


def _best_epoch(epochs: Sequence[Mapping[str, Any]]) -> int | None:
    scored = [(facts["valid_macro_f1"], facts) for facts in epochs if _finite(facts.get("valid_macro_f1"))]
    return int(max(scored, key=lambda pair: pair[0])[1]["epoch"]) if scored else None


def _curve(axes: Axes, numbers: list[int], values: list[float], *, color: str, label: str | None) -> None:
    if any(math.isfinite(value) for value in values):
        marker = "o" if len(numbers) <= 40 else None
        axes.plot(numbers, values, color=color, linewidth=1.8, marker=marker, markersize=4, label=label)
