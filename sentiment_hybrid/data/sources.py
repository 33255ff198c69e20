"""Where texts come from: Kaggle, csv, tsv, jsonl, parquet, lines, SQLite, the sample; streamed in batches of rows."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import json
import operator
import queue
import shutil
import sqlite3
import stat
import tempfile
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO

from sentiment_hybrid import paths
from sentiment_hybrid.borrowed import Borrowed
from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data import quick
from sentiment_hybrid.errors import ColumnError, SourceError

BATCH_SIZE = 10_000
#: Longest field of a csv file; more is an unclosed quote rather than a text.
LONGEST_FIELD = 10_000_000
SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
    ".pq": "parquet", ".txt": "lines", ".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite",
}  # fmt: skip
_KNOWN = "csv, tsv, jsonl, parquet (each also .gz), txt, db, sqlite, sqlite3"
_LOCK_SECONDS = 5.0
#: For zlib: gzip's header and checksum around the data.
_GZIP = 31
_GZIP_MAGIC, _PARQUET_MAGIC, _SQLITE_MAGIC = b"\x1f\x8b", b"PAR1", b"SQLite format 3\x00"
#: After the last line; a csv reader that is still inside quotes there swallows it.
_END = "\x1eend of file\x1e"

BadRows = Literal["error", "skip"]


class Missing:
    """The type of MISSING."""

    def __repr__(self) -> str:
        return "MISSING"


#: What a JSON object has where it lacks a key that others have; only ``native`` batches contain it.
MISSING = Missing()


@dataclass(frozen=True)
class Batch:
    """Some rows in a row: their numbers (1-based, counting data rows) and their values by column, None for null."""

    rows: Sequence[int]
    columns: dict[str, list[Any]]
    skipped: dict[str, int] = field(default_factory=dict)
    #: The values are known to be texts without NULs and broken characters.
    sound: bool = False

    def __len__(self) -> int:
        return len(self.rows)


class Source(ABC):
    """A table of rows that can be read from the start, any number of times unless it is a stream."""

    def __init__(self, name: str, *, bad_rows: BadRows = "error") -> None:
        self.name = name
        self.bad_rows = bad_rows

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Column names in order, trimmed."""

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 over the name and the content."""

    @abstractmethod
    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        """Batches as read; values of any type."""

    def _every_column(self) -> Sequence[str]:
        return self.columns

    def place(self, row: int) -> str:
        """Where a row stands, in words that lead to it: here its number."""
        return f"row {row}"

    def batches(
        self, columns: Sequence[str] | None = None, *, size: int = BATCH_SIZE, native: bool = False
    ) -> Iterator[Batch]:
        """Stream the rows.

        Args:
            columns: those wanted; None is all, also of a stream. Of jsonl, all are the keys of each batch's objects,
                so that a key which turns up late is not lost.
            size: rows per batch at most.
            native: leave numbers of jsonl, parquet and SQLite as they are instead of making them text.

        Raises:
            SourceError: unreadable, damaged, or a bad row (unless ``bad_rows`` is skip: then counted in ``skipped``).
        """
        wanted = list(columns if columns is not None else self._every_column())
        for batch in self._tables(wanted, size):
            yield batch if batch.sound else self._checked(batch if native else _as_text(batch))

    def _checked(self, batch: Batch) -> Batch:
        """Look for bytes that are not in the encoding and NULs, cheaply: row by row only where a batch has some."""
        if all(_is_sound(_joined(values)) for values in batch.columns.values()):
            return batch
        skipped = dict(batch.skipped)
        keep = []
        for index, row in enumerate(batch.rows):
            reason = next((found for values in batch.columns.values() if (found := _unsound(values[index]))), "")
            if not reason:
                keep.append(index)
            elif self.bad_rows == "error":
                raise self._bad_row(row, reason)
            else:
                kind = reason.split(":")[0]
                skipped[kind] = skipped.get(kind, 0) + 1
        rows = [batch.rows[index] for index in keep]
        return Batch(rows, {name: [v[i] for i in keep] for name, v in batch.columns.items()}, skipped)

    def _bad_row(self, row: int, reason: str) -> SourceError:
        hint = "Leave such rows out with --set data.bad_rows=skip."
        if reason.startswith("not text"):
            hint = f"Name the file's encoding, e.g. --set data.encoding=latin-1, or: {hint}"
        return SourceError(f"{self.name}, {self.place(row)}: {reason}", hint=hint)


def _joined(values: Sequence[Any]) -> str:
    try:
        return "".join(values)
    except TypeError:
        return "".join(value for value in values if isinstance(value, str))


def _is_sound(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unsound(value: Any) -> str:
    """What is wrong with a text, or nothing."""
    if not isinstance(value, str) or _is_sound(value):
        return ""
    if "\0" in value:
        return "NUL byte: this is no text file, or one in UTF-16"
    code = next(ord(character) for character in value if "\ud800" <= character <= "\udfff")
    if 0xDC80 <= code <= 0xDCFF:
        return f"not text in the given encoding: byte 0x{code - 0xDC00:02X}"
    return f"not text: half a character, U+{code:04X}"


def _as_text(batch: Batch) -> Batch:
    columns = {}
    for name, values in batch.columns.items():
        plain = set(map(type, values)) <= {str, type(None)}
        columns[name] = values if plain else [value_text(value) for value in values]
    return Batch(batch.rows, columns, batch.skipped)


def value_text(value: Any) -> str | None:
    """Any value of a table as the text that training would read; None for null."""
    if value is None or value is MISSING:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


# --- files ---------------------------------------------------------------------------------------------------------


class FileSource(Source):
    """Base of sources that are one file; gzip is recognised by its first bytes."""

    def __init__(self, path: Path, *, name: str | None = None, bad_rows: BadRows = "error") -> None:
        super().__init__(name or path.name, bad_rows=bad_rows)
        self.path = path
        self._stamp: tuple[int, ...] | None = None

    def fingerprint(self) -> str:
        """sha256 over the file's name and bytes; what is read from then on must be that file, unchanged."""
        self._stamp = self._stamped()
        digest = hashlib.sha256(self.name.encode("utf-8", "surrogateescape") + b"\0")
        with self._reading(), self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def batches(
        self, columns: Sequence[str] | None = None, *, size: int = BATCH_SIZE, native: bool = False
    ) -> Iterator[Batch]:
        """As of any source. Raises SourceError also for a file that changes until its last row is read."""
        before = self._stamp or self._stamped()
        try:
            yield from super().batches(columns, size=size, native=native)
        except SourceError as error:
            # What is wrong with a file that is just being written is not worth telling.
            self._check_unchanged(before, error)
            raise
        self._check_unchanged(before)

    def _stamped(self) -> tuple[int, ...]:
        """What changes with the content of a file; nothing of what is no file on disk."""
        with self._reading():
            facts = self.path.stat()
        return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns) if stat.S_ISREG(facts.st_mode) else ()

    def _check_unchanged(self, before: tuple[int, ...], cause: SourceError | None = None) -> None:
        if self._stamped() != before:
            raise SourceError(
                f"{self.path} changed while it was read",
                hint="Wait until whatever writes to it is done, or copy it, and run the command again.",
            ) from cause

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Every way in which reading can fail, as a SourceError."""
        try:
            yield
        except EOFError as error:
            raise SourceError(f"{self.path}: the gzip file is cut off", hint="Download or copy it again.") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise SourceError(f"{self.path}: damaged gzip file ({error})", hint="Download or copy it again.") from error
        except UnicodeError as error:
            raise SourceError(
                f"{self.path}: not text in the given encoding ({error})", hint="Name it with --set data.encoding=..."
            ) from error
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _binary(self) -> Iterator[BinaryIO]:
        with self._reading(), self.path.open("rb") as file:
            magic = file.read(2)
            file.seek(0)
            if magic != _GZIP_MAGIC:
                yield file
                return
            with _Ahead(_Unzipped(file)) as ahead:
                yield io.BufferedReader(ahead, buffer_size=1 << 20)


class _Unzipped:
    """The content of a gzip file, in large pieces; gzip's own reader takes eight thousand bytes at a time."""

    _PIECE = 1 << 18

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._member: Any = None
        self._packed = b""

    def read(self, size: int) -> bytes:
        """Some bytes, ``size`` at most; none at the end. Raises EOFError for a file that is cut off, zlib.error."""
        data = b""
        while not data:
            if self._member is None:
                if not self._at_member():
                    return b""
                self._member = zlib.decompressobj(_GZIP)
            self._packed = self._packed or self._file.read(self._PIECE)
            ended = not self._packed
            data = self._member.decompress(self._packed, size)
            self._packed = self._member.unconsumed_tail
            if self._member.eof:
                self._packed, self._member = self._member.unused_data, None
            elif ended and not data:
                raise EOFError("the gzip file ends too early")
        return data

    def _at_member(self) -> bool:
        """Go on to the next member, past padding. False at the end of the file."""
        while not (packed := self._packed.lstrip(b"\0")):
            self._packed = self._file.read(self._PIECE)
            if not self._packed:
                return False
        self._packed = packed
        return True


class _Ahead(io.RawIOBase):
    """Unpacks in a thread of its own, a few blocks ahead of the reader."""

    _BLOCK, _BLOCKS = 1 << 20, 4

    def __init__(self, source: BinaryIO | _Unzipped) -> None:
        self._source = source
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(self._BLOCKS)
        self._closing = threading.Event()
        self._left = memoryview(b"")
        self._ended = False
        self._thread = threading.Thread(target=self._unpack, daemon=True)
        self._thread.start()

    def _unpack(self) -> None:
        try:
            while (block := self._source.read(self._BLOCK)) and not self._closing.is_set():
                self._queue.put(block)
            self._queue.put(b"")
        except BaseException as error:  # noqa: BLE001 - raised again where the reader waits, which would else wait on
            self._queue.put(error)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; raises what unpacking raised."""
        if not self._left and not self._ended:
            block = self._queue.get()
            if isinstance(block, BaseException):
                self._ended = True
                raise block
            self._ended = not block
            self._left = memoryview(block)
        some = self._left[: len(buffer)]
        buffer[: len(some)] = some
        self._left = self._left[len(some) :]
        return len(some)

    def close(self) -> None:
        """Stop the thread, also while it waits for room."""
        if not self.closed:
            self._closing.set()
            while self._thread.is_alive():
                with contextlib.suppress(queue.Empty):
                    self._queue.get(timeout=0.05)
            super().close()


class _TextSource(FileSource):
    """Base of sources that are lines of text, from a file or a stream."""

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        encoding: str = "utf-8",
        bad_rows: BadRows = "error",
        stream: BinaryIO | None = None,
    ) -> None:
        super().__init__(path, name=name, bad_rows=bad_rows)
        self.encoding = _codec(encoding)
        self._stream = stream
        self._columns: list[str] | None = None

    def fingerprint(self) -> str:
        """As of any file. Raises SourceError for a stream, which can be read once only."""
        if self._stream is not None:
            raise SourceError(f"{self.name} can be read once only and so has no fingerprint")
        return super().fingerprint()

    def _stamped(self) -> tuple[int, ...]:
        """A stream is read once, and is what it is."""
        return super()._stamped() if self._stream is None else ()

    def _every_column(self) -> Sequence[str]:
        # A stream's columns are known only once it is read: for sources of this kind, none named means all.
        return ()

    @contextlib.contextmanager
    def _text(self) -> Iterator[TextIO]:
        with contextlib.ExitStack() as stack:
            if self._stream is not None:
                stack.enter_context(self._reading())
                binary = self._stream
            else:
                binary = stack.enter_context(self._binary())
            text = io.TextIOWrapper(binary, encoding=self.encoding, errors="surrogateescape", newline=self._newline)
            stack.callback(text.detach if self._stream is not None else text.close)
            yield text

    _newline: str | None = None


def _codec(encoding: str) -> str:
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


#: Within, the csv module reads fields of any length that a row may have.
_LONG_FIELDS = Borrowed(lambda: partial(csv.field_size_limit, csv.field_size_limit(LONGEST_FIELD)))


class DelimitedSource(_TextSource):
    """csv or tsv with a header line; quoted fields may hold line breaks."""

    _newline = ""

    def __init__(self, path: Path, *, delimiter: str, quoting: bool, **options: Any) -> None:
        super().__init__(path, **options)
        self._format: dict[str, Any] = {
            "delimiter": delimiter,
            "quoting": csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        }

    def place(self, row: int) -> str:
        """The line on which a row begins, and its number among the rows below the header; of a stream, that alone."""
        line = None
        if self._stream is None:
            # Whoever asks is about to stop over this row: reading up to it once more costs less than counting always.
            with contextlib.suppress(SourceError, csv.Error), self._text() as text:
                line = self._line(self._reader(text), row)
        return f"data row {row}" if line is None else f"line {line}, data row {row}"

    def _line(self, reader: Any, row: int) -> int | None:
        """Where row ``row`` begins, counted as an editor does; blank lines are no rows, and row 0 is the header."""
        found, line = -1, 1
        for fields in reader:
            found += bool(fields)
            if found == row:
                return line
            line = int(reader.line_num) + 1
        return None

    @property
    def columns(self) -> list[str]:
        """The header, trimmed. Raises SourceError for an empty file, ColumnError for a name that stands twice."""
        if self._columns is None:
            if self._stream is not None:
                raise AssertionError("a stream's columns are known once its first batch is read")
            with self._text() as text:
                self._columns = self._header(self._reader(text))
        return self._columns

    @contextlib.contextmanager
    def _text(self) -> Iterator[TextIO]:
        with _LONG_FIELDS, super()._text() as text:
            yield text

    def _reader(self, text: TextIO) -> Iterator[list[str]]:
        return csv.reader(itertools.chain(text, [_END]), **self._format)

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        try:
            header = next((row for row in reader if row), [_END])
        except csv.Error as error:
            raise SourceError(f"{self.name}: {error} in the header line") from error
        if header == [_END]:
            raise SourceError(f"{self.name} is empty", hint="It must start with a header line of column names.")
        reason = _unsound("".join(header))
        if reason:
            raise SourceError(f"{self.name}, header line: {reason}", hint="Try --set data.encoding=utf-16 or latin-1.")
        names = [name.strip() for name in header]
        return _without_repeats(names, self.name)

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        done = 0
        try:
            for batch in self._quickly(columns, size):
                yield batch
                done += len(batch)
        except quick.OddError:
            yield from self._carefully(columns, size, done)

    def _quickly(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        """Rows of a file that is as it should be. Raises OddError where it is not, and for what is read carefully."""
        if self._stream is not None or self.encoding != "utf-8-sig":
            raise quick.OddError
        names = self.columns
        wanted = list(columns or names)
        with self._binary() as binary:
            header = binary.readline(quick.BLOCK).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
            plain = header.endswith("\n") and '"' not in header
            if not plain or [name.strip() for name in header.split(self._format["delimiter"])] != names:
                raise quick.OddError
            quoting = self._format["quoting"] != csv.QUOTE_NONE
            first = 1
            for values in quick.tables(
                binary, wanted, names=names, delimiter=self._format["delimiter"], quoting=quoting, size=size
            ):
                rows = range(first, first + len(values[0]))
                yield Batch(rows, dict(zip(wanted, values, strict=True)), sound=True)
                first = rows.stop

    def _carefully(self, columns: Sequence[str], size: int, done: int) -> Iterator[Batch]:
        """Rows below the first ``done``, each judged."""
        with self._text() as text:
            reader = self._reader(text)
            self._columns = names = self._header(reader)
            places = [names.index(column) for column in columns or names]
            first = 1
            while rows := self._some(
                reader, min(size, done + 1 - first) if first <= done else size, first, width=len(names)
            ):
                if first > done:
                    yield from self._table(rows, first, columns or names, places, width=len(names))
                first += len(rows)

    def _some(self, reader: Iterator[list[str]], size: int, first: int, *, width: int) -> list[list[str]]:
        """The next rows, blank lines left out; the end mark too."""
        rows: list[list[str]] = []
        try:
            rows.extend(itertools.islice(reader, size))
            while rows and not all(rows):
                rows = [row for row in rows if row]
                rows.extend(itertools.islice(reader, size - len(rows)))
        except csv.Error as error:
            long = "field larger" in str(error)
            what = f"a field of more than {LONGEST_FIELD:,} characters" if long else str(error)
            raise SourceError(
                f"{self.name}, {self.place(first + len(rows))}: {what}",
                hint="A quote that is never closed? Try --set data.quoting=none.",
            ) from error
        if rows and rows[-1] == [_END]:
            rows.pop()
        elif rows and _END in rows[-1][-1]:
            rows[-1] = [_END] * (width + 1)
        return rows

    def _table(
        self, rows: list[list[str]], first: int, columns: Sequence[str], places: Sequence[int], *, width: int
    ) -> Iterator[Batch]:
        numbers: Sequence[int] = range(first, first + len(rows))
        skipped: dict[str, int] = {}
        if set(map(len, rows)) != {width}:
            numbers, rows, skipped = self._regular(numbers, rows, width)
        values = {name: list(map(operator.itemgetter(i), rows)) for name, i in zip(columns, places, strict=True)}
        yield Batch(numbers, values, skipped)

    def _regular(
        self, numbers: Sequence[int], rows: list[list[str]], width: int
    ) -> tuple[list[int], list[list[str]], dict[str, int]]:
        kept_numbers, kept = [], []
        skipped: dict[str, int] = {}
        for number, row in zip(numbers, rows, strict=True):
            if len(row) == width:
                kept_numbers.append(number)
                kept.append(row)
                continue
            unclosed = row[-1] == _END
            reason = "a quote is never closed" if unclosed else f"{len(row)} fields, the header has {width}"
            if self.bad_rows == "error":
                hint = "Try --set data.quoting=none, or " if unclosed else "Is a text with commas not quoted? "
                raise SourceError(
                    f"{self.name}, {self.place(number)}: {reason}",
                    hint=f"{hint}Leave such rows out with --set data.bad_rows=skip.".replace("or Leave", "or leave"),
                )
            kind = "unclosed quote" if unclosed else "wrong number of fields"
            skipped[kind] = skipped.get(kind, 0) + 1
        return kept_numbers, kept, skipped


def _without_repeats(names: list[str], source: str) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ColumnError(f"{source}: column {repeated[0]!r} stands twice in the header", hint="Rename one of them.")
    return names


class JsonLinesSource(_TextSource):
    """One JSON object per line; the columns are the keys of the first ten thousand."""

    def place(self, row: int) -> str:
        """The line: a row is one."""
        return f"line {row}"

    @property
    def columns(self) -> list[str]:
        """Keys in the order in which they first occur."""
        if self._columns is None:
            with self._text() as text:
                records, _ = self._records(itertools.islice(text, BATCH_SIZE), 1)
                self._columns = _keys(record for _, record in records)
        return self._columns

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        with self._text() as text:
            first = 1
            while lines := list(itertools.islice(text, size)):
                records, skipped = self._records(lines, first)
                names = columns or _keys(record for _, record in records)
                values = {name: [record.get(name, MISSING) for _, record in records] for name in names}
                yield Batch([number for number, _ in records], values, skipped)
                first += len(lines)

    def _records(self, lines: Iterable[str], first: int) -> tuple[list[tuple[int, dict[str, Any]]], dict[str, int]]:
        records: list[tuple[int, dict[str, Any]]] = []
        skipped: dict[str, int] = {}
        for number, line in enumerate(lines, first):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                records.append((number, {key.strip(): value for key, value in record.items()}))
            elif self.bad_rows == "error":
                raise self._bad_row(number, _unsound(line) or f"no JSON object: {line.strip()[:60]}")
            else:
                skipped["no JSON object"] = skipped.get("no JSON object", 0) + 1
        return records, skipped


def _keys(records: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record))


class LinesSource(_TextSource):
    """Plain text, one per line, in a column named text; blank lines are texts too, so that rows stay aligned."""

    columns = ["text"]  # noqa: RUF012

    def place(self, row: int) -> str:
        """The line: a row is one."""
        return f"line {row}"

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        with self._text() as text:
            first = 1
            while lines := [line.rstrip("\r\n") for line in itertools.islice(text, size)]:
                yield Batch(range(first, first + len(lines)), {"text": lines})
                first += len(lines)


class ParquetSource(FileSource):
    """A parquet file, read one row group at a time."""

    @property
    def columns(self) -> list[str]:
        """Top-level fields of the schema."""
        with self._file() as file:
            return _without_repeats([name.strip() for name in file.schema_arrow.names], self.name)

    @property
    def types(self) -> dict[str, Any]:
        """Column -> Arrow type, so that what was read can be written as it was."""
        with self._file() as file:
            return {field.name.strip(): field.type for field in file.schema_arrow}

    @contextlib.contextmanager
    def _file(self) -> Iterator[Any]:
        import pyarrow
        import pyarrow.parquet

        with self._binary() as binary, contextlib.ExitStack() as stack:
            seekable: IO[bytes] = binary
            if isinstance(binary, io.BufferedReader) and isinstance(binary.raw, _Ahead):
                # Parquet is read from its end: a gzipped one must be unpacked first.
                seekable = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(binary, seekable, 1 << 20)
                seekable.seek(0)
            try:
                yield pyarrow.parquet.ParquetFile(seekable)
            except pyarrow.ArrowException as error:
                raise SourceError(f"{self.path}: not a sound parquet file ({str(error).splitlines()[0]})") from error

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        with self._file() as file:
            real = {name.strip(): name for name in file.schema_arrow.names}
            first = 1
            for part in file.iter_batches(batch_size=size, columns=[real[name] for name in columns]):
                values = {name: part.column(real[name]).to_pylist() for name in columns}
                yield Batch(range(first, first + part.num_rows), values)
                first += part.num_rows


class SqliteSource(FileSource):
    """One table or view of an SQLite database, opened read-only."""

    def __init__(self, path: Path, *, table: str | None, bad_rows: BadRows = "error") -> None:
        super().__init__(path, bad_rows=bad_rows)
        self.table = self._find(table)
        self.name = f"{path.name}:{self.table}"

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            address = f"{self.path.resolve().as_uri()}?mode=ro"
            # One thread at a time reads; another may be the one that lets go of it.
            with contextlib.closing(
                sqlite3.connect(address, uri=True, timeout=_LOCK_SECONDS, check_same_thread=False)
            ) as connection:
                connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
                yield connection
        except sqlite3.Error as error:
            locked = "locked" in str(error) or "busy" in str(error)
            raise SourceError(
                f"cannot read the SQLite database {self.path}: {error}",
                hint="Close whatever writes to it, and try again." if locked else "",
            ) from error

    def _find(self, wanted: str | None) -> str:
        with self._connected() as connection:
            query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
            tables = [str(row[0]) for row in connection.execute(f"{query} ORDER BY name")]
        shown = ", ".join(tables) or "no tables"
        if wanted is not None:
            if wanted not in tables:
                raise SourceError(f"{self.path} has no table {wanted!r}; it has {shown}", hint="Set data.table to one.")
            return wanted
        if len(tables) != 1:
            raise SourceError(f"{self.path} holds {shown}", hint="Name one table with --set data.table=NAME.")
        return tables[0]

    @property
    def columns(self) -> list[str]:
        """Columns of the table or view."""
        with self._connected() as connection:
            return [item[0].strip() for item in connection.execute(f"SELECT * FROM {_quoted(self.table)}").description]

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        with self._connected() as connection:
            cursor = connection.execute(f"SELECT * FROM {_quoted(self.table)}")
            names = [item[0].strip() for item in cursor.description]
            first = 1
            while rows := cursor.fetchmany(size):
                values = {name: [row[names.index(name)] for row in rows] for name in columns}
                yield Batch(range(first, first + len(rows)), values)
                first += len(rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- opening -------------------------------------------------------------------------------------------------------


def open_source(spec: str, data: Data, *, offline: bool = False) -> Source:
    """The source behind ``kaggle[:HANDLE]``, a file, or ``sample``.

    Raises:
        SourceError: missing, a directory, unreadable, of an unknown kind, or Kaggle cannot be reached.
        ColumnError: a column name stands twice.
    """
    if spec == "sample":
        return DelimitedSource(paths.sample_csv(), delimiter=",", quoting=True, name="sample", bad_rows=data.bad_rows)
    if spec == "kaggle" or spec.startswith("kaggle:"):
        from sentiment_hybrid.data.kaggle import DEFAULT_HANDLE, download

        handle = spec.partition(":")[2] or DEFAULT_HANDLE
        path = download(handle, offline=offline)
        return _open_file(path, data, name=f"kaggle:{handle} ({path.name})")
    return _open_file(Path(spec).expanduser(), data)


def open_stream(
    stream: BinaryIO,
    data: Data,
    *,
    kind: Literal["csv", "tsv", "jsonl", "lines"],
    name: str = "standard input",
) -> Source:
    """Rows from standard input or a pipe, readable once."""
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    return _text_source(kind, Path(name), data, stream=buffered)


def _open_file(path: Path, data: Data, *, name: str | None = None) -> Source:
    kind = kind_of(path)
    if kind == "sqlite":
        return SqliteSource(path, table=data.table, bad_rows=data.bad_rows)
    if kind == "parquet":
        return ParquetSource(path, name=name, bad_rows=data.bad_rows)
    return _text_source(kind, path, data, name=name)


def _text_source(kind: str, path: Path, data: Data, **options: Any) -> Source:
    options |= {"encoding": data.encoding, "bad_rows": data.bad_rows}
    if kind == "jsonl":
        return JsonLinesSource(path, **options)
    if kind == "lines":
        return LinesSource(path, **options)
    quoting = kind == "csv" if data.quoting == "auto" else data.quoting == "minimal"
    return DelimitedSource(path, delimiter="," if kind == "csv" else "\t", quoting=quoting, **options)


def kind_of(path: Path) -> str:
    """csv, tsv, jsonl, parquet, lines or sqlite, by suffix, else by the first bytes. Raises SourceError."""
    if path.is_dir():
        raise SourceError(f"{path} is a directory, not a file", hint=f"Name one file: {_KNOWN}.")
    try:
        with path.open("rb") as file:
            magic = file.read(16)
    except FileNotFoundError as error:
        raise SourceError(
            f"there is no file {path}", hint="A source is a file, `sample`, or `kaggle:OWNER/NAME`."
        ) from error
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if magic == _SQLITE_MAGIC:
        return "sqlite"
    if magic.startswith(_PARQUET_MAGIC):
        return "parquet"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    kind = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise SourceError(f"cannot tell what kind of file {path} is", hint=f"Known suffixes: {_KNOWN}.")
    if kind == "sqlite":
        raise SourceError(f"{path} is not an SQLite database", hint="It is damaged, or has the wrong suffix.")
    return kind
