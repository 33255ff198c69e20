"""Rows for people to label: the answers that are least sure, and a random sample of the others for control."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.labels import canonical
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.sources.base import REVIEW_COLUMNS
from sentiment_hybrid.data.writers import check_target, kind_of_output, open_writer, without_formulas
from sentiment_hybrid.errors import ColumnError, UsageError
from sentiment_hybrid.files import replace_text

COLUMNS = REVIEW_COLUMNS
#: Control rows are a sample of all other answers, or of those with a probability that is high enough.
LEAST_SURE, CONTROL, SURE_CONTROL = "least sure", "control", "control among sure answers"
#: Rows that were chosen among the least sure for being different.
SPREAD = "spread"
#: Rows that nobody asked for.
OTHER = "other rows"
_PARTS = (LEAST_SURE, SPREAD, CONTROL, SURE_CONTROL)
#: The suffix of tasks for Label Studio.
TASKS = ".json"

Row = tuple[str, str, float]  # text, prediction, score


@dataclass
class ReviewRows:
    """Collects rows from a stream, no more than ``(candidates + 1) * rows + control`` at a time.

    Args:
        sure_from: the lowest score of a control row: those whose accuracy is in question; None takes all.
        spread: (texts, rows) -> places of this many of the texts; chooses among ``candidates`` times as many of the
            least sure. None takes the least sure.
        model: its name, for tasks of Label Studio.
    """

    rows: int
    control: int
    sure_from: float | None = None
    seed: int = 0
    spread: Callable[[list[str], int], Sequence[int]] | None = None
    candidates: int = 1
    model: str = ""
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
            _push(self._least, (-score, -self._seen, row), self.candidates * self.rows)
            if self.sure_from is None or score >= self.sure_from:
                # Some of these turn out to be among the least sure.
                _push(self._sample, (-float(key), -self._seen, row), self.rows + self.control)

    def write(self, path: Path, *, safe_csv: bool = False) -> int:
        """Write the rows, those to label first, with an empty column ``label``; returns their number.

        ``safe_csv`` puts a ' before values that a spreadsheet would compute, in csv and tsv.

        Raises:
            UsageError: unknown extension.
            OutputError: it cannot be written.
        """
        least, first = sorted(self._least, reverse=True), LEAST_SURE
        if self.spread is not None and least:
            places = self.spread([row[0] for *_, row in least], min(self.rows, len(least)))
            least, first = [least[place] for place in places], SPREAD
        taken = {number for _, number, _ in least}
        control = [entry for entry in sorted(self._sample, reverse=True) if entry[1] not in taken][: self.control]
        rows = [
            (*entry[2][:2], round(entry[2][2], 6), part, "")
            for part, some in ((first, least), (CONTROL if self.sure_from is None else SURE_CONTROL, control))
            for entry in some
        ]
        if path.suffix.lower() == TASKS:
            _write_tasks(path, rows, self.model)
            return len(rows)
        with open_writer(path, COLUMNS) as writer:
            columns = {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}
            writer.write(without_formulas(columns) if safe_csv and kind_of_output(path) in ("csv", "tsv") else columns)
        return len(rows)


def check_review(path: Path) -> None:
    """Refuse a file that cannot be written. Raises UsageError or OutputError."""
    if path.suffix.lower() == TASKS and not path.is_dir():
        return
    try:
        check_target(path)
    except UsageError as error:
        raise UsageError(error.message, hint=f"{error.hint} {TASKS} is for Label Studio.") from error


def _write_tasks(path: Path, rows: Sequence[tuple[str, str, float, str, str]], model: str) -> None:
    """Write tasks of Label Studio, with the answers as predictions. Raises OutputError."""
    tasks = [
        {
            "data": {"text": text, "prediction": answer, "score": score, "part": part},
            "predictions": [
                {
                    "model_version": model,
                    "score": score,
                    "result": [
                        {
                            "id": f"answer{number}",
                            "from_name": "label",
                            "to_name": "text",
                            "type": "choices",
                            "value": {"choices": [answer]},
                        }
                    ],
                }
            ],
        }
        for number, (text, answer, score, part, _) in enumerate(rows, 1)
    ]
    replace_text(path, json.dumps(tasks, indent=1) + "\n", hint="Choose another file: --review FILE")


def _push(heap: list[tuple[float, int, Row]], entry: tuple[float, int, Row], most: int) -> None:
    """Keep the ``most`` entries with the largest values."""
    if len(heap) < most:
        heapq.heappush(heap, entry)
    elif heap and entry > heap[0]:
        heapq.heapreplace(heap, entry)


@dataclass(frozen=True)
class Reviewed:
    """A part of a reviewed file: its rows, how many have a label, and of these, how many agree with the answer.

    ``unknown``: labels that people gave and no answer in the file has, each with its number of rows; a typing error may
    be among them.
    """

    part: str
    rows: int
    labelled: int
    right: int
    unknown: Mapping[str, int] = field(default_factory=dict)


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
            hint="Write one with senthy predict --review FILE, and fill in its column label. From Label Studio, export "
            "JSON of a project whose question is called label.",
        )
    pairs: dict[str, Counter[tuple[str, str]]] = {part: Counter() for part in (*_PARTS, OTHER)}
    for batch in source.batches():
        for part, *pair in zip(*(batch.columns[name] for name in ("part", "prediction", "label")), strict=True):
            answer, label = (canonical(value or "").casefold() for value in pair)
            pairs[part if part in _PARTS and answer else OTHER][answer, label] += 1
    answers = {answer for of_part in pairs.values() for answer, _ in of_part}
    return [_reviewed(part, of_part, answers) for part, of_part in pairs.items() if of_part]


def _reviewed(part: str, pairs: Counter[tuple[str, str]], answers: Container[str]) -> Reviewed:
    """Count the pairs (answer, label) of a part; without a label, it is empty."""
    labels: Counter[str] = Counter()
    for (_, label), rows in pairs.items():
        labels[label] += rows
    rows, unlabelled = labels.total(), labels.pop("", 0)
    right = sum(rows for (answer, label), rows in pairs.items() if label and label == answer)
    unknown = {label: rows for label, rows in labels.items() if label not in answers}
    return Reviewed(part, rows, rows - unlabelled, right, unknown)
