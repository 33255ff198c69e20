"""Texts on disk between reading and writing, partitioned so that each part can be sorted in memory."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.data import splits as split

Int64s = npt.NDArray[np.int64]

#: Number of a partition, and its rows of one batch, packed.
Piece = tuple[int, bytes]
#: Partitions per split; one of them at a time is in memory.
COUNT = 32


def pack(
    texts: Sequence[str],
    raws: Sequence[str | None],
    *,
    splits: npt.NDArray[np.integer],
    keys: split.UInt64s,
    count: int = COUNT,
) -> list[Piece]:
    """Rows of a batch by partition: cleaned text, raw text (or None), split code and order hash of each, (N,)."""
    share = (keys >> np.uint64(32)).astype(np.int64) * count >> 32
    partition = splits.astype(np.int64) * count + share
    order = np.argsort(partition.astype(np.int16), kind="stable")  # a radix sort, for numbers this small
    starts = np.flatnonzero(np.diff(partition[order], prepend=-1, append=-1))
    pieces = []
    for start, end in pairwise(starts.tolist()):
        places = order[start:end]
        some = places.tolist()
        packed = marshal.dumps((places.tobytes(), [texts[at] for at in some], [raws[at] for at in some]))
        pieces.append((int(partition[some[0]]), packed))
    return pieces


class Partitions:
    """A temporary file of rows, by split and range of the order hash; it vanishes with the process.

    Args:
        folder: where the file is made.
        count: partitions per split, as when packing.
    """

    def __init__(self, folder: Path, *, count: int = COUNT) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        #: Offset, length and first row of each piece of each partition.
        self._pieces: list[list[tuple[int, int, int]]] = [[] for _ in range(len(split.SPLITS) * count)]

    def __enter__(self) -> Partitions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, pieces: Sequence[Piece], first: int) -> None:
        """Append packed rows; ``first`` is the number of the row that is 0 in the pieces."""
        for partition, packed in pieces:
            self._pieces[partition].append((self._file.tell(), len(packed), first))
            self._file.write(packed)

    def in_order(self, positions: Int64s) -> Iterator[tuple[Int64s, list[str], list[str | None]]]:
        """All rows by position: numbers (N,), texts and raw texts of some at a time.

        Args:
            positions: of each row by its number, from 1 without gaps; 0 leaves a row out.
        """
        rows, texts, raws = np.empty(0, dtype=np.int64), list[str](), list[str | None]()
        done = 0
        for number in range(len(self._pieces)):
            more_rows, more_texts, more_raws = self._read(number)
            rows, texts, raws = np.concatenate([rows, more_rows]), texts + more_texts, raws + more_raws
            places = positions[rows]
            order = np.argsort(places)[np.count_nonzero(places == 0) :]
            # A row of a rare class may belong behind rows of the next partition: it waits for them.
            gaps = places[order] - np.arange(done + 1, done + 1 + len(order))
            ready = int(np.searchsorted(gaps, 0, side="right"))
            some, rest = order[:ready].tolist(), order[ready:].tolist()
            yield rows[some], [texts[at] for at in some], [raws[at] for at in some]
            rows, texts, raws = rows[rest], [texts[at] for at in rest], [raws[at] for at in rest]
            done += ready

    def _read(self, number: int) -> tuple[Int64s, list[str], list[str | None]]:
        rows, texts, raws = [np.empty(0, dtype=np.int64)], list[str](), list[str | None]()
        for offset, length, first in self._pieces[number]:
            self._file.seek(offset)
            places, some_texts, some_raws = marshal.loads(self._file.read(length))
            rows.append(first + np.frombuffer(places, dtype=np.int64))
            texts += some_texts
            raws += some_raws
        return np.concatenate(rows), texts, raws
