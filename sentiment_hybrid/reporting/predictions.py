"""predictions.csv: every tested row with its label, the predictions of model and baseline, and probabilities."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from sentiment_hybrid.borrowed import LONG_FIELDS
from sentiment_hybrid.errors import DataError
from sentiment_hybrid.files import atomic_file, written

_FIXED = ("row", "text", "label", "prediction", "score")
_BASELINE = "baseline"
#: Before the name of a column of the source.
_SLICE = "slice:"


@dataclass(frozen=True)
class Predictions:
    """Source rows, true and predicted class indices, all (N,); ``baseline`` is None without a baseline."""

    rows: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    baseline: np.ndarray | None


@dataclass(frozen=True)
class PredictedRow:
    """One line of the file; ``slices``: its values in columns of the source, by name; ``baseline``: its prediction."""

    row: int
    text: str
    label: str
    prediction: str
    score: float
    slices: Mapping[str, str] = field(default_factory=dict)
    baseline: str | None = None


def write_predictions(
    path: Path,
    *,
    rows: np.ndarray,
    texts: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    baseline: np.ndarray | None = None,
    slices: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Write the file atomically; probabilities (N, C), ``baseline`` class indices (N,), ``slices`` (N,) of each name.

    Raises:
        OutputError: the file cannot be written.
    """
    predicted = probabilities.argmax(axis=1)
    header = [*_FIXED, *(f"p_{name}" for name in names), *([_BASELINE] if baseline is not None else [])]
    header += [f"{_SLICE}{name}" for name in slices]
    with (
        written(path, hint="Choose another directory: --set paths.results_dir=..."),
        atomic_file(path) as aside,
        aside.open("w", encoding="utf-8", errors="replace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        for place, (row, text, label, guess) in enumerate(zip(rows, texts, labels, predicted, strict=True)):
            chances = probabilities[place]
            line = [int(row), text, names[label], names[guess], f"{chances[guess]:.6f}"]
            line += [f"{chance:.6f}" for chance in chances]
            line += [] if baseline is None else [names[baseline[place]]]
            writer.writerow([*line, *(values[place] for values in slices.values())])


def read_predictions(path: Path, names: Sequence[str]) -> Predictions:
    """Read a file written by write_predictions, as class indices in the order of ``names``.

    Raises:
        DataError: the file is missing or damaged, or has other labels.
    """
    place = {name: index for index, name in enumerate(names)}
    found: list[tuple[int, int, int, int]] = []
    try:
        for one in stream_predictions(path):
            baseline = -1 if one.baseline is None else place[one.baseline]
            found.append((one.row, place[one.label], place[one.prediction], baseline))
    except KeyError as error:
        raise DataError(f"{path} cannot be read: {error}", hint="Run `senthy test` again.") from error
    rows, labels, predicted, of_baseline = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return Predictions(rows, labels, predicted, of_baseline if (of_baseline >= 0).any() else None)


def stream_predictions(path: Path) -> Iterator[PredictedRow]:
    """The lines of a file written by write_predictions, one by one.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with LONG_FIELDS, path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if header[: len(_FIXED)] != list(_FIXED):
                raise ValueError(f"its columns are not {', '.join(_FIXED)}")
            places = {at: name.removeprefix(_SLICE) for at, name in enumerate(header) if name.startswith(_SLICE)}
            baseline_at = header.index(_BASELINE) if _BASELINE in header else None
            for line in lines:
                row, text, label, prediction, score = line[: len(_FIXED)]
                slices = {name: line[at] for at, name in places.items() if line[at]}
                baseline = None if baseline_at is None else line[baseline_at]
                yield PredictedRow(int(row), text, label, prediction, float(score), slices, baseline)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="Run `senthy test` again.") from error
