"""Where rows go: csv, tsv, jsonl (each also .gz), parquet, SQLite; streamed aside and put in place when complete."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import sqlite3
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sentiment_hybrid.data.sources import MISSING, SUFFIXES
from sentiment_hybrid.errors import OutputError, UsageError
from sentiment_hybrid.files import reason

#: The table of an SQLite output.
TABLE = "predictions"

Quoting = Literal["auto", "minimal", "none"]
Rows = Mapping[str, Sequence[Any]]

_KNOWN = ".csv, .tsv, .jsonl (each also .gz), .parquet, .db"
_HINT = "Free some space, or choose another place."


class Sink(ABC):
    """Takes batches of rows as columns; null is None (or MISSING where a JSON object lacks a key)."""

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Append rows; the columns have equal lengths.

        Raises:
            OutputError: the disk is full, or the format cannot hold a value or a column that was not there before.
        """

    @abstractmethod
    def close(self) -> None:
        """Complete what was written."""


def kind_of_output(path: Path) -> str:
    """csv, tsv, jsonl, parquet or sqlite by suffix. Raises UsageError for any other."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    kind = SUFFIXES.get(suffixes[-2] if zipped and len(suffixes) > 1 else suffixes[-1]) if suffixes else None
    if kind is None or kind == "lines" or (zipped and kind in ("parquet", "sqlite")):
        raise UsageError(f"cannot tell from its suffix how to write {path}", hint=f"Known suffixes: {_KNOWN}.")
    return kind


@contextlib.contextmanager
def open_sink(
    target: Path | None,
    columns: Sequence[str],
    *,
    kind: str | None = None,
    types: Mapping[str, Any] | None = None,
    quoting: Quoting = "auto",
) -> Iterator[Sink]:
    """A sink that becomes the file ``target`` when the block ends well; None is stdout.

    Args:
        target: its suffix says the format. Until the block ends, and after a failure, what stood there stands there.
        columns: their names in order; only jsonl takes others later.
        kind: the format on stdout: csv, tsv or jsonl.
        types: Arrow types of columns, for parquet; those not named are taken from the first batch.
        quoting: as ``data.quoting``: auto quotes in csv and not in tsv.

    Raises:
        UsageError: the suffix is not known.
        OutputError: the place cannot be written.
    """
    if target is None:
        sink = _text_sink(kind or "csv", sys.stdout, columns, quoting)
        yield sink
        sink.close()
        return
    kind = kind_of_output(target)
    target = target.expanduser().resolve()
    aside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    with _told_as_output_error(target):
        _prepare(target, kind)
        try:
            with contextlib.ExitStack() as stack:
                sink = _file_sink(stack, aside, target, columns, kind=kind, types=types or {}, quoting=quoting)
                yield sink
                sink.close()
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)


def _prepare(target: Path, kind: str) -> None:
    """Refuse a place that must not be replaced, and remove what a killed run left beside it."""
    if target.is_dir():
        raise OutputError(f"{target} is a directory", hint="Name a file.")
    if kind == "sqlite" and target.is_file() and target.stat().st_size:
        _check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f".{target.name}.????????.partial"):
        stale.unlink(missing_ok=True)


def _check_replaceable(target: Path) -> None:
    """A database is replaced whole: one with other tables in it is somebody's data."""
    try:
        with contextlib.closing(sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise OutputError(f"{target} is there and is no SQLite database ({error})", hint="Name a new file.") from error
    if tables - {TABLE}:
        raise OutputError(
            f"{target} holds other tables ({', '.join(sorted(tables - {TABLE}))}), which would be lost",
            hint="Name a new file.",
        )


def _file_sink(
    stack: contextlib.ExitStack,
    aside: Path,
    target: Path,
    columns: Sequence[str],
    *,
    kind: str,
    types: Mapping[str, Any],
    quoting: Quoting,
) -> Sink:
    if kind == "parquet":
        parquet = _Parquet(aside, columns, types)
        stack.callback(parquet.abandon)
        return parquet
    if kind == "sqlite":
        database = _Sqlite(aside, columns)
        stack.callback(database.connection.close)
        return database
    stream: Any = stack.enter_context(aside.open("wb"))
    if target.suffix.lower() == ".gz":
        stream = stack.enter_context(gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0))
    text = stack.enter_context(io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline=""))
    return _text_sink(kind, text, columns, quoting)


def _text_sink(kind: str, stream: Any, columns: Sequence[str], quoting: Quoting) -> Sink:
    if kind == "jsonl":
        return _JsonLines(stream)
    quoted = kind == "csv" if quoting == "auto" else quoting == "minimal"
    return _Delimited(stream, columns, delimiter="," if kind == "csv" else "\t", quoted=quoted)


class _Delimited(Sink):
    """csv or tsv with a header line."""

    def __init__(self, stream: Any, columns: Sequence[str], *, delimiter: str, quoted: bool) -> None:
        self._columns = list(columns)
        self._stream = stream
        self._kind = "csv" if delimiter == "," else "tsv"
        # Without a quote character a quote is a character like any other, as the reader of unquoted files takes it.
        style: dict[str, Any] = {} if quoted else {"quoting": csv.QUOTE_NONE, "quotechar": None}
        self._writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n", **style)
        self._put([self._columns])

    def write(self, rows: Rows) -> None:
        values = [[_cell(value) for value in column] for column in _in_order(rows, self._columns, self._kind)]
        self._put(zip(*values, strict=True))

    def _put(self, rows: Any) -> None:
        try:
            self._writer.writerows(rows)
        except csv.Error as error:
            raise OutputError(
                f"a value has a separator or a line break in it, which an unquoted {self._kind} file cannot hold",
                hint="Write .csv or .jsonl, or use --set data.quoting=minimal.",
            ) from error

    def close(self) -> None:
        self._stream.flush()


class _JsonLines(Sink):
    """One object a line; a key that an object did not have is not put in."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, rows: Rows) -> None:
        names = list(rows)
        for values in zip(*rows.values(), strict=True):
            record = {
                name: _json_value(value) for name, value in zip(names, values, strict=True) if value is not MISSING
            }
            self._stream.write(json.dumps(record, ensure_ascii=False, default=_cell) + "\n")

    def close(self) -> None:
        self._stream.flush()


class _Parquet(Sink):
    """A parquet file whose types are those given, else what the first batch holds."""

    def __init__(self, path: Path, columns: Sequence[str], types: Mapping[str, Any]) -> None:
        self._path = path
        self._columns = list(columns)
        self._types = dict(types)
        self._writer: Any = None

    def write(self, rows: Rows) -> None:
        import pyarrow

        values = [self._plain(name, rows.get(name)) for name in self._columns]
        _in_order(rows, self._columns, "parquet")
        arrays = []
        for name, column in zip(self._columns, values, strict=True):
            try:
                array = pyarrow.array(column, type=self._types.get(name))
                if name not in self._types and pyarrow.types.is_null(array.type):
                    array = array.cast(pyarrow.string())
            except (pyarrow.ArrowException, OverflowError) as error:
                raise OutputError(
                    f"the values of column {name!r} have no common type, which parquet needs: {error}",
                    hint="Write .jsonl or .csv.",
                ) from error
            self._types.setdefault(name, array.type)
            arrays.append(array)
        writer = self._open()
        writer.write_table(pyarrow.table(arrays, schema=writer.schema))

    def _plain(self, name: str, column: Sequence[Any] | None) -> list[Any]:
        """Nested values without a type of their own become JSON: Arrow would drop keys that turn up late."""
        values = [None if value is MISSING else value for value in column or ()]
        if name in self._types:
            return values
        return [_cell(value) if isinstance(value, dict | list) else value for value in values]

    def _open(self) -> Any:
        if self._writer is None:
            import pyarrow
            import pyarrow.parquet

            schema = pyarrow.schema([(name, self._types.get(name, pyarrow.string())) for name in self._columns])
            self._writer = pyarrow.parquet.ParquetWriter(self._path, schema)
        return self._writer

    def close(self) -> None:
        self._open().close()

    def abandon(self) -> None:
        """Let go of the file, complete or not."""
        if self._writer is not None and self._writer.is_open:
            self._writer.close()


class _Sqlite(Sink):
    """A new database with one table, whose columns have no declared types: values stay what they are."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        # Opened and closed by one thread, written by another, never at the same time.
        self.connection = sqlite3.connect(path, check_same_thread=False)
        # The file is put in place when complete and thrown away otherwise: a journal would guard nothing.
        self.connection.execute("PRAGMA journal_mode = OFF")
        self.connection.execute("PRAGMA synchronous = OFF")
        names = ", ".join(_quoted(name) for name in self._columns)
        self.connection.execute(f"CREATE TABLE {TABLE} ({names})")
        self._insert = f"INSERT INTO {TABLE} VALUES ({', '.join('?' * len(self._columns))})"

    def write(self, rows: Rows) -> None:
        values = [[_sqlite_value(value) for value in column] for column in _in_order(rows, self._columns, "SQLite")]
        self.connection.executemany(self._insert, zip(*values, strict=True))

    def close(self) -> None:
        self.connection.commit()


def _in_order(rows: Rows, columns: Sequence[str], kind: str) -> list[Sequence[Any]]:
    """The columns of a batch in their fixed order; one that it lacks is null."""
    late = [name for name in rows if name not in columns]
    if late:
        raise OutputError(
            f"a later row has {late[0]!r}, which the rows before it do not have, and {kind} cannot add a column",
            hint="Write .jsonl (--json on stdout).",
        )
    count = len(next(iter(rows.values()), ()))
    return [rows[name] if name in rows else [None] * count for name in columns]


def _cell(value: Any) -> str:
    """A value as text; null is empty."""
    if value is None or value is MISSING or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False, default=_cell)
    return value.hex() if isinstance(value, bytes) else str(value)


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sqlite_value(value: Any) -> Any:
    if value is None or value is MISSING:
        return None
    if isinstance(value, str | float | bytes):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return int(value)
    return _cell(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def _told_as_output_error(target: Path) -> Iterator[None]:
    """A failed write in the user's words; what fails on the way into a pipe is no business of this file's."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {target}: {reason(error)}", hint=_HINT) from error
    except sqlite3.Error as error:
        raise OutputError(f"cannot write {target}: {error}", hint=_HINT) from error
