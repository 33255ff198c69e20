"""Rows for people to label: the answers that are least sure, and a random sample of the others for control."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.labels import canonical
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.writers import kind_of_output, open_writer, without_formulas
from sentiment_hybrid.errors import ColumnError

COLUMNS = ("text", "prediction", "score", "part", "label")
#: Control rows are a sample of all other answers, or of those with a probability that is high enough.
LEAST_SURE, CONTROL, SURE_CONTROL = "least sure", "control", "control among sure answers"

Row = tuple[str, str, float]  # text, prediction, score


@dataclass
class ReviewRows:
    """Collects rows from a stream, no more than ``2 * rows + control`` at a time.

    Args:
        rows: how many of the least sure.
        control: how many of the others, chosen at random.
        sure_from: the lowest score of a control row: those whose accuracy is in question; None takes all.
        seed: of the choice.
    """

    rows: int
    control: int
    sure_from: float | None = None
    seed: int = 0
    _least: list[tuple[float, int, Row]] = field(default_factory=list)
    _sample: list[tuple[float, int, Row]] = field(default_factory=list)
    _seen: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def add(self, texts: Sequence[str | None], labels: Sequence[str | None], scores: Sequence[float | None]) -> None:
        """Consider some rows; those without an answer are none."""
        for text, label, score, key in zip(texts, labels, scores, self._random.random(len(texts)), strict=True):
            self._seen += 1
            if text is None or label is None or score is None:
                continue
            row = (text, label, score)
            _push(self._least, (-score, -self._seen, row), self.rows)
            if self.sure_from is None or score >= self.sure_from:
                # Some of these turn out to be among the least sure.
                _push(self._sample, (-float(key), -self._seen, row), self.rows + self.control)

    def write(self, path: Path, *, safe_csv: bool = False) -> int:
        """Write the rows, the least sure first, with an empty column ``label``; returns their number.

        ``safe_csv`` puts a ' before values that a spreadsheet would compute, in csv and tsv.

        Raises:
            UsageError: unknown extension.
            OutputError: it cannot be written.
        """
        least = sorted(self._least, reverse=True)
        taken = {number for _, number, _ in least}
        control = [entry for entry in sorted(self._sample, reverse=True) if entry[1] not in taken][: self.control]
        rows = [
            (*entry[2][:2], round(entry[2][2], 6), part, "")
            for part, some in ((LEAST_SURE, least), (CONTROL if self.sure_from is None else SURE_CONTROL, control))
            for entry in some
        ]
        with open_writer(path, COLUMNS) as writer:
            columns = {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}
            writer.write(without_formulas(columns) if safe_csv and kind_of_output(path) in ("csv", "tsv") else columns)
        return len(rows)


def _push(heap: list[tuple[float, int, Row]], entry: tuple[float, int, Row], most: int) -> None:
    """Keep the ``most`` entries with the largest values."""
    if len(heap) < most:
        heapq.heappush(heap, entry)
    elif heap and entry > heap[0]:
        heapq.heapreplace(heap, entry)


@dataclass(frozen=True)
class Reviewed:
    """A part of a reviewed file: its rows, how many have a label, and of these, how many agree with the answer."""

    part: str
    rows: int
    labelled: int
    right: int


def read_review(path: Path, data: Data) -> list[Reviewed]:
    """Count what people have labelled, the control rows last.

    Raises:
        SourceError: the file cannot be read.
        ColumnError: it is no review file.
    """
    source = open_source(str(path), data, offline=True)
    missing = [name for name in COLUMNS if name not in source.columns]
    if missing:
        raise ColumnError(
            f"{source.name} is no review file: it has no column {', '.join(missing)}",
            hint="Write one with senthy predict --review FILE, and fill in its column label.",
        )
    counts = {part: np.zeros(3, dtype=int) for part in (LEAST_SURE, CONTROL, SURE_CONTROL)}
    for batch in source.batches():
        for part, answer, label in zip(*(batch.columns[name] for name in ("part", "prediction", "label")), strict=True):
            given = canonical(label or "").casefold()
            counts.setdefault(part or "", np.zeros(3, dtype=int))[:] += (
                1,
                bool(given),
                given == canonical(answer or "").casefold(),
            )
    return [Reviewed(part, *map(int, found)) for part, found in counts.items() if found[0]]
