"""Texts on disk between reading and writing, partitioned so that each part can be sorted in memory."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.data import splits as split

Int64s = npt.NDArray[np.int64]
Objects = npt.NDArray[np.object_]

#: Number of a partition, and its rows of one batch, packed.
Piece = tuple[int, bytes]
#: Partitions per split; one of them at a time is in memory.
COUNT = 32
#: Later versions of the format look for repeated objects, which takes as long as all the rest.
MARSHAL_VERSION = 2


def pack(
    texts: Sequence[str],
    raws: Sequence[str | None],
    *,
    rows: Int64s,
    splits: npt.NDArray[np.integer],
    keys: split.UInt64s,
    count: int = COUNT,
) -> list[Piece]:
    """Some rows (K,) of a batch by partition: cleaned text, raw text (or None), split code and order hash, (N,)."""
    partition = splits.astype(np.int64) * count + ((keys >> np.uint64(32)).astype(np.int64) * count >> 32)
    order = rows[np.argsort(partition[rows].astype(np.int16), kind="stable")]  # a radix sort, for numbers this small
    starts = np.flatnonzero(np.diff(partition[order], prepend=-1, append=-1))
    # Arrays of objects are the fastest way to reorder a list.
    columns = [np.array(values, dtype=object)[order].tolist() for values in (texts, raws)]
    pieces = []
    for start, end in pairwise(starts.tolist()):
        piece = (order[start:end].tobytes(), *(values[start:end] for values in columns))
        pieces.append((int(partition[order[start]]), marshal.dumps(piece, MARSHAL_VERSION)))
    return pieces


class Partitions:
    """A temporary file of rows by split and range of the order hash; the system deletes it when the process ends."""

    def __init__(self, folder: Path, *, count: int = COUNT) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        #: Offset, length and first row of each piece of each partition.
        self._pieces: list[list[tuple[int, int, int]]] = [[] for _ in range(len(split.SPLITS) * count)]

    def __enter__(self) -> Partitions:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def add(self, pieces: Sequence[Piece], first: int) -> None:
        """Append packed rows; ``first`` is the number of the first row of their batch."""
        for partition, packed in pieces:
            self._pieces[partition].append((self._file.tell(), len(packed), first))
            self._file.write(packed)

    def in_order(self, positions: Int64s) -> Iterator[tuple[Int64s, Objects, Objects]]:
        """Yield the rows by position, some at a time: numbers (N,), texts (N,), raw texts (N,).

        Args:
            positions: of each row by number, counted from 1 without gaps; 0 drops a row.
        """
        rows, texts, raws = np.empty(0, dtype=np.int64), np.empty(0, dtype=object), np.empty(0, dtype=object)
        done = 0
        for pieces in self._pieces:
            parts = zip((rows, texts, raws), self._read(pieces), strict=True)
            rows, texts, raws = map(np.concatenate, parts)
            places = positions[rows]
            order = np.argsort(places)[np.count_nonzero(places == 0) :]
            # A row of a rare class may come after rows of the next partition: it is kept until then.
            gaps = places[order] - np.arange(done + 1, done + 1 + len(order))
            ready = int(np.searchsorted(gaps, 0, side="right"))
            some, rest = order[:ready], order[ready:]
            yield rows[some], texts[some], raws[some]
            rows, texts, raws = rows[rest], texts[rest], raws[rest]
            done += ready

    def _read(self, pieces: Sequence[tuple[int, int, int]]) -> tuple[Int64s, Objects, Objects]:
        rows, texts, raws = [np.empty(0, dtype=np.int64)], list[str](), list[str | None]()
        for offset, length, first in pieces:
            self._file.seek(offset)
            places, some_texts, some_raws = marshal.loads(self._file.read(length))
            rows.append(first + np.frombuffer(places, dtype=np.int64))
            texts += some_texts
            raws += some_raws
        return np.concatenate(rows), np.array(texts, dtype=object), np.array(raws, dtype=object)
