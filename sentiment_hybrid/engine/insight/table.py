"""All rows of a prepared database, and what was found about them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from sentiment_hybrid.data.store import Split, Store

#: Kinds of findings, the most urgent first.
LABEL_ERROR, CONFLICT, LEAK, LANGUAGE, OUTLIER, REPEAT, CUT = WHYS = (
    "label error",
    "near-duplicate with another label",
    "near-duplicate in another split",
    "another language",
    "outlier",
    "near-duplicate",
    "cut",
)


@dataclass(frozen=True)
class Table:
    """N rows of all splits: texts, class indices (N,), source rows (N,), split numbers (N,) in ``Split``'s order.

    ``original`` (N,) are the labels in the source, before corrections. ``chosen`` (N,) bool are the rows that may be
    flagged.
    """

    names: tuple[str, ...]
    texts: list[str]
    raws: list[str]
    labels: np.ndarray
    original: np.ndarray
    rows: np.ndarray
    splits: np.ndarray
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def learned(self) -> np.ndarray:
        """Rows whose labels are learned from, (N,) bool: those of the test split only if they may be flagged."""
        learned: np.ndarray = self.chosen | (self.splits != get_args(Split).index("test"))
        return learned

    def places_of(self, keys: Collection[tuple[str, str]]) -> list[tuple[int, tuple[str, str]]]:
        """Places of rows that are named by split and row number, as far as they are there, each with its name."""
        rows = [int(row) for _, row in keys if row.isdecimal()]
        found = []
        for place in np.flatnonzero(np.isin(self.rows, rows)).tolist():
            key = (split_name(int(self.splits[place])), str(self.rows[place]))
            found += [(place, key)] if key in keys else []
        return found


@dataclass(frozen=True)
class Finding:
    """Something about one row: its place in the table, a confidence from 0 to 1, the likely label or -1, a detail."""

    place: int
    why: str
    confidence: float
    likely: int = -1
    detail: str = ""


def read_table(store: Store, splits: Sequence[Split]) -> Table:
    """Every row of a database; those of ``splits`` may be flagged. Errors as of `Store.read`."""
    parts = [store.read(name, with_raw=True) for name in get_args(Split)]
    sizes = [len(part) for part in parts]
    numbers = np.repeat(np.arange(len(parts), dtype=np.int8), sizes)
    return Table(
        store.labels,
        [text for part in parts for text in part.texts],
        [raw for part in parts for raw in part.raw or part.texts],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([store.original_labels(part) for part in parts]),
        np.concatenate([part.rows for part in parts]),
        numbers,
        np.isin(numbers, [get_args(Split).index(name) for name in splits]),
    )


def split_name(number: int) -> str:
    """The split of a number in a table."""
    return str(get_args(Split)[number])


def place_of(table: Table, place: int) -> str:
    """A row in words: ``test row 17``."""
    return f"{split_name(int(table.splits[place]))} row {table.rows[place]}"


def merged(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings by row, the most urgent kind first; rows by their first finding, the most confident first."""
    by_place: dict[int, list[Finding]] = {}
    for finding in findings:
        by_place.setdefault(finding.place, []).append(finding)
    for several in by_place.values():
        several.sort(key=_urgency)
    return sorted(by_place.values(), key=lambda several: (*_urgency(several[0]), several[0].place))


def _urgency(finding: Finding) -> tuple[Any, ...]:
    return WHYS.index(finding.why), -finding.confidence
