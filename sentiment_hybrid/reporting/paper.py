"""The figures of tested models as the table of a paper: Markdown, LaTeX with booktabs, or CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sentiment_hybrid.reporting.page.content import Group, ModelFigures

_COLUMNS = (("macro_f1", "macro-F1"), ("accuracy", "accuracy"), ("mcc", "MCC"), ("roc_auc", "ROC-AUC"), ("ece", "ECE"))
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def _best(group: Group, field: str) -> float:
    """The best figure of a column; of the calibration error, the lowest."""
    values = [value for model in group.rivals if not math.isnan(value := getattr(model.scores, field).value)]
    return (min if field == "ece" else max)(values, default=math.nan)


def _cells(group: Group, model: ModelFigures, bold: Callable[[str], str], dash: str) -> list[str]:
    cells = []
    for field, _ in _COLUMNS:
        figure: Any = getattr(model.scores, field)
        if math.isnan(figure.value):
            cells.append(dash)
            continue
        shown = f"{100 * figure.value:.1f}"
        value = bold(shown) if len(group.rivals) > 1 and figure.value == _best(group, field) else shown
        cells.append(f"{value} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]")
    return cells


def _caption(group: Group) -> str:
    level = 100 * group.models[0].scores.confidence
    return f"{group.title}, {group.rows:,} texts; percent, with {level:g} % bootstrap intervals"


def markdown(groups: Sequence[Group]) -> str:
    """A table for each group."""
    parts = []
    for group in groups:
        lines = [f"{_caption(group)}:", ""]
        lines.append("| model | " + " | ".join(name for _, name in _COLUMNS) + " |")
        lines.append("|---|" + "---|" * len(_COLUMNS))
        for model in group.rivals:
            name = re.sub(r"([\\|*_`<>\[\]])", r"\\\1", model.name)
            lines.append(f"| {name} | " + " | ".join(_cells(group, model, "**{}**".format, "–")) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def latex(groups: Sequence[Group]) -> str:
    """A table environment for each group; the document needs the package booktabs."""
    parts = []
    for group in groups:
        lines = [
            "% \\usepackage{booktabs}",
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{_escaped(_caption(group))}}}",
            f"  \\begin{{tabular}}{{l{'r' * len(_COLUMNS)}}}",
            "    \\toprule",
            "    Model & " + " & ".join(name for _, name in _COLUMNS) + " \\\\",
            "    \\midrule",
        ]
        for model in group.rivals:
            cells = _cells(group, model, "\\textbf{{{}}}".format, "--")
            lines.append(f"    {_escaped(model.name)} & " + " & ".join(cells) + " \\\\")
        parts.append("\n".join([*lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}"]))
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def comma_separated(groups: Sequence[Group]) -> str:
    """A row for each model and group, with a column for each figure and the ends of its interval, as fractions."""
    text = io.StringIO()
    ends = ("", "_low", "_high")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["data", "rows", "model", "run", *(f"{field}{end}" for field, _ in _COLUMNS for end in ends)])
    for group in groups:
        for model in group.rivals:
            figures = [getattr(model.scores, field) for field, _ in _COLUMNS]
            values = [value for one in figures for value in (one.value, one.low, one.high)]
            shown = ["" if math.isnan(value) else f"{value:.6f}" for value in values]
            writer.writerow([group.title, group.rows, model.name, model.id, *shown])
    return text.getvalue()


#: By what people call them.
FORMATS: Mapping[str, Callable[[Sequence[Group]], str]] = {"md": markdown, "latex": latex, "csv": comma_separated}
