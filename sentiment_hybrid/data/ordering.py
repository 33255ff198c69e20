"""Which rows a database keeps, and the fixed order of the rows in each split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.data import splits as split

Int64s = npt.NDArray[np.int64]

#: Whether a row is kept, or why it is dropped: its index in `REASONS`.
KEEP, UNKNOWN, EMPTY, CLEANED_AWAY, TESTED, TRAINED, CORRECTED, OTHER_SPLIT, CONFLICT, REPEAT = range(10)
REASONS = (
    "kept", "unknown label", "empty text", "empty after cleaning", "text that the model is tested on",
    "text that the model was trained on", "dropped by a correction", "text of another split", "conflicting labels",
    "repeated text",
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """What determines whether and where each row is stored, in reading order; every array is (N,).

    ``splits`` are split codes, ``labels`` class indices (-1: the row is dropped), ``keys`` order hashes of the raw
    texts, ``texts`` hashes of the cleaned ones, ``reasons`` why a row is dropped, or KEEP.
    """

    splits: npt.NDArray[np.uint8]
    labels: Int64s
    keys: split.UInt64s
    texts: Int64s
    reasons: npt.NDArray[np.uint8]

    def counts(self, classes: int) -> Int64s:
        """Rows kept by split and label, (3, classes)."""
        kept = self.reasons == KEEP
        cells = self.splits[kept].astype(np.int64) * classes + self.labels[kept]
        return np.bincount(cells, minlength=len(split.SPLITS) * classes).reshape(-1, classes)


def find_drops(rows: Rows, *, official: bool, drop_conflicts: bool, drop_repeats: bool) -> None:
    """Set the reasons of kept rows that are dropped because of others: OTHER_SPLIT, CONFLICT or REPEAT.

    Rows are equal if their cleaned texts are, with official splits also if their split keys are. A text that occurs
    in several splits belongs to the test split first, then to the validation split.

    Args:
        drop_conflicts: drop all rows of a text that has several labels.
        drop_repeats: of the rows with the same text and label, keep the one with the smallest order hash.
    """
    reasons = rows.reasons
    if official:
        _drop_from_later_splits(rows, rows.keys)
        _drop_from_later_splits(rows, rows.texts)
    shared = _shared(rows.texts, reasons)
    texts, labels = rows.texts[shared], rows.labels[shared]
    if drop_conflicts:
        several = _least(texts, labels) != -_least(texts, -labels)
        reasons[shared[several]] = CONFLICT
        shared, texts, labels = shared[~several], texts[~several], labels[~several]
    if drop_repeats:
        order = np.lexsort((rows.keys[shared], labels, texts))
        repeated = (texts[order][1:] == texts[order][:-1]) & (labels[order][1:] == labels[order][:-1])
        reasons[shared[order[1:][repeated]]] = REPEAT
    if not (drop_conflicts and drop_repeats):
        _drop_from_later_splits(rows, rows.texts)


def _drop_from_later_splits(rows: Rows, identity: npt.NDArray[np.generic]) -> None:
    shared = _shared(identity, rows.reasons)
    splits = rows.splits[shared]
    rows.reasons[shared[splits > _least(identity[shared], splits)]] = OTHER_SPLIT


def _shared(identity: npt.NDArray[np.generic], reasons: npt.NDArray[np.uint8]) -> Int64s:
    """Rows, ascending, that are still kept and share their identity with another one; usually few."""
    kept = np.flatnonzero(reasons == KEEP)
    order = kept[np.argsort(identity[kept])]
    same = np.flatnonzero(identity[order][1:] == identity[order][:-1])
    return np.unique(order[np.concatenate([same, same + 1])])


def _least(identity: npt.NDArray[np.generic], values: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """For each row the smallest of the values that rows of its identity have."""
    _, group = np.unique(identity, return_inverse=True)
    least = np.full(len(values), np.iinfo(values.dtype).max, dtype=values.dtype)
    np.minimum.at(least, group, values)
    return least[group]


def in_proportion(labels: Int64s, keys: split.UInt64s) -> Int64s:
    """Indices of rows in the order of `positions`, (N,): every prefix keeps the class shares to within a row."""
    zeros = np.zeros(len(labels), dtype=np.uint8)
    return np.argsort(positions(Rows(zeros, labels, keys, labels, reasons=zeros)))


def positions(rows: Rows) -> Int64s:
    """Position of each row in the database, (N,), counted from 1; 0 for a dropped row.

    The splits follow each other. Within a split, rows are sorted by (rank in their class by order hash - 1/2) / class
    size, ties by label, so that every prefix keeps the class shares. (All fractions are distinct in float64 as long as
    no class has more than 40 million rows.)
    """
    kept = np.flatnonzero(rows.reasons == KEEP)
    cells = rows.splits[kept].astype(np.int64) * (rows.labels.max(initial=0) + 1) + rows.labels[kept]
    cells = cells.astype(np.min_scalar_type(cells.max(initial=0)))  # numbers this small get a radix sort
    kept = kept[np.lexsort((rows.keys[kept], cells))]
    sizes = np.bincount(cells)
    starts, sizes = (np.repeat(values, sizes) for values in (np.cumsum(sizes) - sizes, sizes))
    fractions = (np.arange(len(kept)) - starts + 0.5) / sizes
    result = np.zeros(len(rows.reasons), dtype=np.int64)
    first = 0
    for size in np.bincount(rows.splits[kept], minlength=len(split.SPLITS)).tolist():
        # Ascending within each class: a merge sort takes next to no time.
        order = np.argsort(fractions[first : first + size], kind="stable")
        result[kept[first : first + size][order]] = np.arange(first + 1, first + size + 1)
        first += size
    return result
