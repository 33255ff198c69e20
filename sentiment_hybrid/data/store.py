"""The prepared database of `senthy data`, opened read-only; each split has one fixed, nested order."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.data.splits import UInt64s, hash_raw
from sentiment_hybrid.errors import DatabaseError, DataError, LockedError

#: "snth", in the header of every prepared database.
APPLICATION_ID = 0x736E7468
FORMAT_VERSION = 1
LOCK_SECONDS = 5.0
#: Rows per checksum.
_BLOCK = 4096
#: Columns of the database that have checksums, in the order of the table.
CHECKED = ("label", "source_row", "key_hash", "text", "raw")

Split = Literal["train", "valid", "test"]
_HEADER = b"SQLite format 3\x00"
_ADVICE = "Run `senthy data --refresh`."


@dataclass(frozen=True)
class Examples:
    """Rows of one split: cleaned texts, label indices (N,), row numbers in the source (N,), and raw texts if asked.

    ``compared`` (N, C) says among which labels each row's label was chosen; None: among all.
    """

    split: str
    texts: list[str]
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    raw: list[str] | None = None
    compared: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def followed_by(self, other: Examples) -> Examples:
        """These rows followed by the others, under the name of this split."""
        raw = None if self.raw is None or other.raw is None else self.raw + other.raw
        labels, rows = (np.concatenate([getattr(one, name) for one in (self, other)]) for name in ("labels", "rows"))
        compared = _stacked(self, other)
        return Examples(self.split, self.texts + other.texts, labels, rows, raw, compared)

    def chosen(self, places: npt.NDArray[np.int64]) -> Examples:
        """The rows at these indices, in this order."""
        raw = None if self.raw is None else [self.raw[at] for at in places]
        compared = None if self.compared is None else self.compared[places]
        texts = [self.texts[at] for at in places]
        return Examples(self.split, texts, self.labels[places], self.rows[places], raw, compared)

    def first(self, rows: int | None) -> Examples:
        """At most the first ``rows`` rows; None: all."""
        return self if rows is None else self.chosen(np.arange(min(rows, len(self))))


def _stacked(*parts: Examples) -> npt.NDArray[np.bool_] | None:
    """``compared`` of several examples; None if none has it."""
    known = [part.compared for part in parts if part.compared is not None]
    if not known:
        return None
    full = (np.ones((len(part), known[0].shape[1]), bool) if part.compared is None else part.compared for part in parts)
    return np.concatenate(list(full))


class Checksums:
    """crc32 of each column for each block of rows, in the order of the database."""

    def __init__(self) -> None:
        self.of_columns: dict[str, list[int]] = {}
        self._rows = 0

    def add(self, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> None:
        """Add the next rows, given as columns of equal lengths."""
        size, at = len(next(iter(columns.values()))), 0
        while at < size:
            filled = self._rows % _BLOCK
            end = min(at + _BLOCK - filled, size)
            for name, values in columns.items():
                sums = self.of_columns.setdefault(name, [])
                before = sums.pop() if filled else 0
                sums.append(zlib.crc32(_as_bytes(values[at:end]), before))
            self._rows += end - at
            at = end

    def to_json(self, info: str) -> str:
        """The checksums and that of the metadata, as the database stores them."""
        return json.dumps({"info": zlib.crc32(info.encode()), "columns": self.of_columns})


def _as_bytes(values: Sequence[Any] | npt.NDArray[Any]) -> bytes:
    """Numbers as int64; texts, each followed by NUL; null is an empty text."""
    if isinstance(values[0], int | np.integer):
        return np.asarray(values, dtype=np.int64).tobytes()
    texts = values.tolist() if isinstance(values, np.ndarray) else values
    with contextlib.suppress(TypeError):  # null is rare in most columns
        return ("\0".join(texts) + "\0").encode()
    return ("\0".join([text or "" for text in texts]) + "\0").encode()


class Store:
    """A prepared database, open for reading; a context manager."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, info: dict[str, Any], checksums: dict[str, list[int]]
    ) -> None:
        self.path = path
        self._connection = connection
        self._info = info
        self._checksums = checksums
        self.labels: tuple[str, ...] = tuple(info["labels"])
        self.normalizer: str = info["normalizer"]
        self.fingerprint: str = info["fingerprint"]
        self.split_fingerprint: str = info["split_fingerprint"]
        #: How split keys are made, as settings of `data` and arguments of `SeenTexts`.
        self.split_keys: dict[str, int] = {
            "split_seed": info["split_seed"],
            "split_key_version": info.get("split_key_version", 1),
        }
        #: Meaning of label values, value -> label; None in databases of older versions.
        self.label_coding: dict[str, str] | None = info.get("label_coding")
        self.text_column: str | None = info.get("text_column")
        self.source: str = info["source"]
        self.report: dict[str, Any] = info["report"]
        #: What people changed: numbers, and what was there before; None without corrections.
        self.corrections: dict[str, Any] | None = info.get("corrections")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *failure: object) -> None:
        self._connection.close()

    def count(self, split: Split, most: int | None = None) -> int:
        """The number of rows of a split, or ``most`` if that is less."""
        rows = int(self._info["splits"][split]["rows"])
        return rows if most is None else min(most, rows)

    def read(self, split: Split, sample_size: int | None = None, *, with_raw: bool = False) -> Examples:
        """The first ``sample_size`` rows of a split in its fixed order, or all.

        Every sample is the start of every larger one and keeps the class shares to within a row.

        Raises:
            DataError: ``sample_size`` is more than there is.
            DatabaseError: the file is damaged or locked.
        """
        rows = self.count(split)
        if sample_size is not None and sample_size > rows:
            raise DataError(
                f"the sample size is {sample_size:,}, but the {split} split of {self.path} has only {rows:,} rows",
                hint=f"Use at most {rows}, or null for all.",
            )
        names = ("text", "label", "source_row", *(["raw"] if with_raw else []))
        texts, labels, source_rows, *raw = self._columns(names, split, rows if sample_size is None else sample_size)
        return Examples(
            split=split,
            texts=texts,
            labels=np.array(labels, dtype=np.int64),
            rows=np.array(source_rows, dtype=np.int64),
            raw=[text if own is None else own for own, text in zip(raw[0], texts, strict=True)] if with_raw else None,
        )

    def label_counts(self, split: Split) -> list[int]:
        """Rows of each label of a split. Raises DatabaseError."""
        (labels,) = self._columns(("label",), split, self.count(split))
        return [int(rows) for rows in np.bincount(np.array(labels, dtype=np.int64), minlength=len(self.labels))]

    def original_labels(self, examples: Examples) -> npt.NDArray[np.int64]:
        """Labels (N,) before corrections of the first rows of a split, in its order."""
        labels, first = examples.labels.copy(), int(self._info["splits"][examples.split]["first"])
        for position, label in (self.corrections or {}).get("original_labels", ()):
            if 0 <= position - first < len(labels):
                labels[position - first] = label
        return labels

    def dropped_from_test(self) -> Examples | None:
        """Rows that corrections have left out of the test split, with their labels; None if there are none."""
        gone = (self.corrections or {}).get("dropped_from_test")
        if not gone:
            return None
        rows, labels, texts, raws = map(list, zip(*gone, strict=True))
        return Examples("test", texts, np.array(labels, dtype=np.int64), np.array(rows, dtype=np.int64), raws)

    def key_hashes(self, split: Split) -> npt.NDArray[np.uint64]:
        """Order hash of each row's split key, (N,), to compare with ``store.hash_raw(texts)[1]``."""
        (keys,) = self._columns(("key_hash",), split, self.count(split))
        return np.array(keys, dtype=np.int64).view(np.uint64)

    def hash_raw(self, raws: Sequence[str]) -> tuple[UInt64s, UInt64s]:
        """(split hashes (N,), order hashes (N,)) of other raw texts, with this database's seed and key version."""
        return hash_raw(raws, self.split_keys["split_seed"], version=self.split_keys["split_key_version"])

    def _columns(self, names: Sequence[str], split: str, rows: int) -> list[list[Any]]:
        """Columns of the first rows of a split; the checksums of all their blocks are verified.

        Raises DatabaseError.
        """
        first, total = int(self._info["splits"][split]["first"]) - 1, sum(map(self.count, get_args(Split)))
        start, end = first // _BLOCK * _BLOCK, min(-(-(first + rows) // _BLOCK) * _BLOCK, total)
        if not rows:
            return [[] for _ in names]
        query = f"SELECT {', '.join(names)} FROM examples WHERE id > ? AND id <= ? ORDER BY id"
        with _told(self.path):
            columns = [list(column) for column in zip(*self._connection.execute(query, (start, end)), strict=True)]
            if not columns or len(columns[0]) != end - start:
                raise DatabaseError(f"{self.path} is damaged: rows of the {split} split are missing", hint=_ADVICE)
            if self._checksums:
                self._check(dict(zip(names, columns, strict=True)), start // _BLOCK, split)
        return [column[first - start : first - start + rows] for column in columns]

    def _check(self, columns: Mapping[str, Sequence[Any]], block: int, split: str) -> None:
        found = Checksums()
        found.add(columns)
        for name, sums in found.of_columns.items():
            if sums != self._checksums[name][block : block + len(sums)]:
                raise DatabaseError(
                    f"{self.path} is damaged: its checksum says that a {name.replace('_', ' ')} in or next to the "
                    f"{split} split has changed",
                    hint=_ADVICE,
                )


def open_store(path: Path) -> Store:
    """Open a prepared database for reading.

    Raises:
        DatabaseError: it is missing, locked, damaged, foreign, or of another version; the hint says what to type.
    """
    path = Path(path)
    _check_whole(path, check_ours(path, must_exist=True))
    with _told(path):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=LOCK_SECONDS)
    try:
        with _told(path):
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != FORMAT_VERSION:
                raise DatabaseError(
                    f"{path} has database format {version}, but this version of senthy reads format {FORMAT_VERSION}",
                    hint=_ADVICE,
                )
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            info, checksums = json.loads(meta["info"]), json.loads(meta.get("checksums", "{}"))
            if checksums and zlib.crc32(meta["info"].encode()) != checksums["info"]:
                raise DatabaseError(f"{path} is damaged: the checksum of its facts is wrong", hint=_ADVICE)
            last = connection.execute("SELECT max(id) FROM examples").fetchone()[0]
            if last != sum(item["rows"] for item in info["splits"].values()):
                raise DatabaseError(f"{path} is damaged: rows are missing", hint=_ADVICE)
            return Store(path, connection, info, checksums.get("columns", {}))
    except BaseException:
        connection.close()
        raise


def check_ours(path: Path, *, must_exist: bool = False) -> bytes:
    """Refuse a file that is not a prepared database, or (with ``must_exist``) a missing one; returns its header.

    Raises DatabaseError.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError as error:
        if must_exist:
            raise DatabaseError(f"there is no prepared database {path}", hint="Run `senthy data` first.") from error
        return b""
    except OSError as error:
        what = "it is a directory" if path.is_dir() else str(error.strerror)
        raise DatabaseError(f"cannot read the database {path}: {what}", hint="See paths.data_db.") from error
    if not header.startswith(_HEADER) or int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise DatabaseError(
            f"{path} is not a database prepared by senthy",
            hint="Choose another file with --set paths.data_db=FILE, or move this one away and run `senthy data`.",
        )
    return header


def _check_whole(path: Path, header: bytes) -> None:
    """Raise DatabaseError for a truncated file, which is shorter than its header says."""
    page = int.from_bytes(header[16:18], "big")
    expected = (65_536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    actual = path.stat().st_size
    if actual < expected:
        raise DatabaseError(f"{path} is damaged: it has {actual:,} of {expected:,} bytes", hint=_ADVICE)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn SQLite's errors, and those that damaged metadata cause, into DatabaseErrors."""
    try:
        yield
    except sqlite3.Error as error:
        if "locked" in str(error) or "busy" in str(error):
            raise LockedError(
                f"{path} is locked by another program", hint="Close the program that is using it, and try again."
            ) from error
        raise DatabaseError(f"{path} cannot be read: {error}", hint=_ADVICE) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatabaseError(f"{path} is damaged: {error}", hint=_ADVICE) from error
