"""Rows on disk between reading and writing: finds repeats and puts rows in their fixed order in bounded memory."""

from __future__ import annotations

import marshal
import operator
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.data import splits as split

Int64s = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]

_RECORD = np.dtype([("id", "<i8"), ("key", "<u8"), ("clean", "<i8"), ("row", "<i8"), ("value", "<i4"), ("split", "u1")])
#: Per split; the memory that writing takes is a bucket's.
BUCKETS = 32
_RECORDS_AT_ONCE = 2_000_000
_LAST_BITS = 20
_NOTHING = np.empty(0, dtype=np.int64)

KEEP, OTHER_SPLIT, CONFLICT, REPEAT = range(4)
#: The label-value number of a row that is left out for a reason found late; it is the last one of ``label_of``.
LEFT_OUT = -1

#: Columns of what is written: position, label, source row, key hash, text, raw text or None where it is the same.
Rows = list[Sequence[Any]]


@dataclass(frozen=True)
class Sheaf:
    """Rows of one batch bound up for the spool, bucket by bucket; what another process can make and send.

    ``order`` has the place in the batch of each row, (N,) as int32 bytes; ``sizes`` and ``texts`` the number of rows
    and the packed texts of each bucket in ``buckets``.
    """

    order: bytes
    buckets: list[int]
    sizes: list[int]
    texts: list[bytes]


def bind(
    kept: Int64s,
    splits: Int64s,
    keys: split.UInt64s,
    texts: Sequence[str],
    raws: Sequence[str],
    buckets: int = BUCKETS,
) -> Sheaf:
    """Bind up the rows of a batch that are ``kept`` (N,).

    Args:
        kept: places in the batch, ascending.
        splits, keys: split code and order hash of each row of the batch.
        texts, raws: cleaned and raw text of each.
        buckets: per split.
    """
    share = (keys[kept] >> np.uint64(32)).astype(np.int64) * buckets >> 32
    # Few and small numbers: sorting them as such is several times as fast.
    bucket = (splits[kept] * buckets + share).astype(np.int16)
    by_bucket = np.argsort(bucket, kind="stable")
    order, bucket = kept[by_bucket], bucket[by_bucket]
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    places = order.tolist()
    cleaned = _pick(texts, places)
    others = [None if raw == text else raw for raw, text in zip(_pick(raws, places), cleaned, strict=True)]
    edges = [*starts.tolist(), len(places)]
    packed = [marshal.dumps((cleaned[a:b], others[a:b])) for a, b in pairwise(edges)]
    return Sheaf(order.astype(np.int32).tobytes(), bucket[starts].tolist(), np.diff(edges).tolist(), packed)


class _Segment(NamedTuple):
    """Where some rows of a bucket lie: first record and number of rows; offset and length of the packed texts."""

    record: int
    rows: int
    offset: int
    length: int


class Spool:
    """Takes rows in reading order, gives them back in the fixed order; its files vanish with the process."""

    def __init__(self, folder: Path, *, buckets: int = BUCKETS, records_at_once: int = _RECORDS_AT_ONCE) -> None:
        self._records = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._texts = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._segments: list[list[_Segment]] = [[] for _ in range(len(split.SPLITS) * buckets)]
        self._buckets = buckets
        self._records_at_once = records_at_once
        self._end_of_records = self._end_of_texts = 0
        #: Taken so far, with those that a batch had and its sheaf left out.
        self.rows = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._records.close()
        self._texts.close()

    def add(
        self,
        sheaf: Sheaf,
        *,
        splits: Int64s,
        values: Int64s,
        rows: Sequence[int],
        keys: split.UInt64s,
        identities: Int64s,
    ) -> None:
        """Take the rows that a sheaf binds up.

        Args:
            sheaf: which rows of the batch, in which order, and their texts.
            splits: split code of each row of the batch; so are the following.
            values: number of the label's value; ``LEFT_OUT`` leaves the row out after all.
            rows: number in the source.
            keys: order hash.
            identities: hash of the cleaned text.
        """
        order = np.frombuffer(sheaf.order, dtype=np.int32)
        records = np.empty(len(order), dtype=_RECORD)
        records["id"] = self.rows + order
        for name, column in (("key", keys), ("clean", identities), ("value", values), ("split", splits)):
            records[name] = column[order]
        records["row"] = np.asarray(rows)[order]
        first = self._end_of_records
        self._records.write(records.tobytes())
        for bucket, size, packed in zip(sheaf.buckets, sheaf.sizes, sheaf.texts, strict=True):
            self._texts.write(packed)
            self._segments[bucket].append(_Segment(first, size, self._end_of_texts, len(packed)))
            first += size
            self._end_of_texts += len(packed)
        self._end_of_records = first
        self.rows += len(values)

    def find_drops(
        self, label_of: Int64s, *, official: bool, drop_conflicts: bool, drop_repeats: bool
    ) -> npt.NDArray[np.uint8]:
        """Why each row is left out, (rows,): KEEP, OTHER_SPLIT, CONFLICT or REPEAT.

        Identity is the cleaned text; with official splits first the split key too. A text that stands in several
        splits belongs to the test split first, then to valid.

        Args:
            label_of: label of each label-value number, -1 for one that is not known (such rows count for nothing).
            official: the splits were given.
            drop_conflicts: leave out all rows of a text that has several labels.
            drop_repeats: of rows with the same text and label keep the one with the smallest order hash.
        """
        reasons = np.zeros(self.rows, dtype=np.uint8)
        if official:
            for name in ("key", "clean"):
                for records in self._shared(reasons, label_of, by=name):
                    reasons[records["id"][_straddles(records, name)]] = OTHER_SPLIT
        for records in self._shared(reasons, label_of, by="clean"):
            labels = label_of[records["value"]]
            order = np.lexsort((records["id"], records["key"], labels, records["clean"]))
            records, labels = records[order], labels[order]
            if drop_conflicts:
                reasons[records["id"][_conflicting(records["clean"], labels)]] = CONFLICT
            if drop_repeats:
                repeated = _same_as_before(records["clean"]) & _same_as_before(labels)
                ids = records["id"][repeated]
                reasons[ids[reasons[ids] == KEEP]] = REPEAT
        if not (drop_conflicts and drop_repeats):
            for records in self._shared(reasons, label_of, by="clean"):
                reasons[records["id"][_straddles(records, "clean")]] = OTHER_SPLIT
        return reasons

    def _shared(self, reasons: npt.NDArray[np.uint8], label_of: Int64s, *, by: str) -> Iterator[Records]:
        """Records not yet dropped that share their key or text with another; in passes, so that memory stays bounded.

        Most share it with none: of those only the one number is ever held.
        """
        passes = max(1, -(-self.rows // self._records_at_once))
        for number in range(passes):

            def alive(records: Records, number: int = number) -> npt.NDArray[np.bool_]:
                found: npt.NDArray[np.bool_] = (reasons[records["id"]] == KEEP) & (label_of[records["value"]] >= 0)
                if passes > 1:
                    found &= records[by].view(np.uint64) % np.uint64(passes) == number
                return found

            shared = _twice(np.concatenate([records[by][alive(records)] for records in self._chunks()] or [_NOTHING]))
            parts = [records[alive(records) & _among(records[by], shared)] for records in self._chunks()]
            yield np.concatenate(parts) if parts else np.empty(0, dtype=_RECORD)

    def _chunks(self) -> Iterator[Records]:
        self._records.seek(0)
        while block := self._records.read(_RECORD.itemsize * 250_000):
            yield np.frombuffer(block, dtype=_RECORD)

    def class_counts(self, label_of: Int64s, reasons: npt.NDArray[np.uint8], classes: int) -> Int64s:
        """Rows kept by split and label, (3, classes)."""
        counts = np.zeros((len(split.SPLITS), classes), dtype=np.int64)
        for records in self._chunks():
            labels = label_of[records["value"]]
            kept = (reasons[records["id"]] == KEEP) & (labels >= 0)
            np.add.at(counts, (records["split"][kept], labels[kept]), 1)
        return counts

    def ordered(self, label_of: Int64s, reasons: npt.NDArray[np.uint8], counts: Int64s) -> Iterator[Rows]:
        """All kept rows by position: split after split, each class spread evenly over its split.

        A row stands at (rank in its class by order hash - 0.5) / class size, so every prefix keeps the class shares.
        """
        start = 1
        for code in range(len(split.SPLITS)):
            sizes = counts[code]
            ranks = np.zeros(len(sizes), dtype=np.int64)
            numbers = np.empty((4, 0), dtype=np.int64)  # position, label, source row, key hash
            texts: Sequence[str] = ()
            raws: Sequence[str | None] = ()
            for bucket in range(code * self._buckets, (code + 1) * self._buckets):
                records, found_texts, found_raws = self._get(bucket)
                labels = label_of[records["value"]]
                kept = np.flatnonzero((reasons[records["id"]] == KEEP) & (labels >= 0))
                kept = kept[np.lexsort((records["id"][kept], records["key"][kept], labels[kept]))]
                places = start + _places(labels[kept], ranks, sizes)
                keys = records["key"][kept].view(np.int64)  # SQLite has signed numbers alone
                found = np.stack([places, labels[kept], records["row"][kept], keys])
                # Those that wait stand behind all of the bucket, and are few.
                at = np.concatenate([kept, np.arange(len(records), len(records) + len(texts))])
                found_texts += texts
                found_raws += raws
                numbers = np.concatenate([found, numbers], axis=1)
                order = np.argsort(numbers[0])
                numbers, at = numbers[:, order], at[order].tolist()
                ready = int(np.searchsorted(numbers[0], start + _first_open_place(ranks, sizes)))
                yield [*numbers[:, :ready].tolist(), _pick(found_texts, at[:ready]), _pick(found_raws, at[:ready])]
                numbers, texts, raws = numbers[:, ready:], _pick(found_texts, at[ready:]), _pick(found_raws, at[ready:])
            yield [*numbers.tolist(), texts, raws]
            start += int(sizes.sum())

    def _get(self, bucket: int) -> tuple[Records, list[str], list[str | None]]:
        """Records, cleaned and raw texts of a bucket."""
        blocks: list[bytes] = []
        texts: list[str] = []
        raws: list[str | None] = []
        for segment in self._segments[bucket]:
            self._records.seek(segment.record * _RECORD.itemsize)
            blocks.append(self._records.read(segment.rows * _RECORD.itemsize))
            self._texts.seek(segment.offset)
            some_texts, some_raws = marshal.loads(self._texts.read(segment.length))
            texts += some_texts
            raws += some_raws
        return np.frombuffer(b"".join(blocks), dtype=_RECORD), texts, raws


def _pick(values: Sequence[Any], chosen: Sequence[int]) -> tuple[Any, ...]:
    return operator.itemgetter(*chosen)(values) if len(chosen) > 1 else tuple(values[i] for i in chosen)


def _places(labels: Int64s, ranks: Int64s, sizes: Int64s) -> Int64s:
    """Position in the split, from 0, of rows sorted by label and then rank; moves ``ranks`` on."""
    places = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = labels == label
        nth = ranks[label] + np.arange(1, int(mine.sum()) + 1)
        ranks[label] += len(nth)
        places[mine] = _place(nth, int(label), sizes)
    return places


def _place(nth: Int64s, label: int, sizes: Int64s) -> Int64s:
    """How many rows of all classes stand before the nth row (from 1) of a class, exactly, in whole numbers.

    Row m of class c stands before row n of class d if (m - 1/2) / size_c < (n - 1/2) / size_d, ties by label.
    """
    before = nth - 1
    for other, size in enumerate(sizes.tolist()):
        if other == label or not size:
            continue
        # m counts while (2m - 1) * size_d < (2n - 1) * size_c, or <= for a class that comes first.
        limit = (2 * nth - 1) * size + int(sizes[label])
        before = before + np.minimum(size, (limit - (0 if other < label else 1)) // (2 * int(sizes[label])))
    return before


def _first_open_place(ranks: Int64s, sizes: Int64s) -> int:
    """The lowest position that a row still to come can have."""
    places = [
        int(_place(np.array([rank + 1]), label, sizes)[0])
        for label, (rank, size) in enumerate(zip(ranks.tolist(), sizes.tolist(), strict=True))
        if rank < size
    ]
    return min(places, default=int(sizes.sum()))


def _twice(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values that stand there more than once, ascending."""
    values = np.sort(values)
    return np.unique(values[_same_as_before(values)])


def _among(values: npt.NDArray[Any], few: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of many hashes are among a few, which are sorted."""
    if not len(few):
        return np.zeros(len(values), dtype=bool)
    # Most are not, as their last bits tell.
    last = np.zeros(1 << _LAST_BITS, dtype=bool)
    mask = values.dtype.type((1 << _LAST_BITS) - 1)
    last[few & mask] = True
    found = last[values & mask]
    likely = values[found]
    found[found] = few[np.searchsorted(few, likely).clip(max=len(few) - 1)] == likely
    return found


def _straddles(records: Records, name: str) -> npt.NDArray[np.bool_]:
    """Rows whose text stands in a split that comes before theirs."""
    if not len(records):
        return np.zeros(0, dtype=bool)
    identity = records[name]
    order = np.lexsort((records["split"], identity))
    starts = np.flatnonzero(~_same_as_before(identity[order]))
    sizes = np.diff(np.append(starts, len(order)))
    result = np.empty(len(order), dtype=bool)
    result[order] = records["split"][order] > np.repeat(records["split"][order][starts], sizes)
    return result


def _conflicting(identity: Int64s, labels: Int64s) -> npt.NDArray[np.bool_]:
    """Rows, sorted by identity and label, of an identity with several labels."""
    if not len(identity):
        return np.zeros(0, dtype=bool)
    starts = np.flatnonzero(~_same_as_before(identity))
    ends = np.append(starts[1:], len(identity))
    return np.repeat(labels[starts] != labels[ends - 1], ends - starts)


def _same_as_before(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.concatenate(([False], values[1:] == values[:-1])) if len(values) else np.zeros(0, dtype=bool)
