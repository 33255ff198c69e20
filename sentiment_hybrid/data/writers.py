"""Writers for csv, tsv, jsonl (each also .gz), parquet and SQLite; a file appears only when it is complete."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sentiment_hybrid.console import rows_stream
from sentiment_hybrid.data.sources import MISSING, ExactTime, kind_by_suffix
from sentiment_hybrid.errors import OutputError, UsageError
from sentiment_hybrid.files import atomic_file, holds_any_text, written

#: What a hint suggests where a file cannot be written.
ANOTHER_FILE = "another output file"
#: The table of an SQLite output.
TABLE = "predictions"

Quoting = Literal["auto", "minimal", "none", "backslash"]
Rows = Mapping[str, Sequence[Any]]

#: What a spreadsheet takes for the start of a formula, full-width forms included, and what it strips before one.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
#: Types that the csv module writes as `_cell` does, but for NaN; subclasses may differ.
_PLAIN = {str, int, float, type(None)}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

_KNOWN = ".csv, .tsv, .jsonl (each also .gz), .parquet, .db"


@dataclass(frozen=True)
class Style:
    """How rows are written.

    ``types`` are Arrow types of columns, for parquet; others are inferred from the first batch. ``quoting`` none writes
    quotes as ordinary characters; any other quotes the values that need it. ``numbers`` are columns of texts that are
    all numbers or empty: jsonl gets them as numbers and null.
    """

    types: Mapping[str, Any] = field(default_factory=dict)
    quoting: Quoting = "auto"
    numbers: Collection[str] = ()


class Writer(ABC):
    """Writes batches of rows, given as columns; None is null, MISSING a key that a JSON object lacks."""

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Append rows; the columns have equal lengths.

        Raises:
            OutputError: the disk is full, or the format cannot represent a value or a new column.
        """

    @abstractmethod
    def close(self) -> None:
        """Complete the output."""


def kind_of_output(path: Path) -> str:
    """csv, tsv, jsonl, parquet or sqlite, detected from the extension. Raises UsageError for any other."""
    kind, zipped = kind_by_suffix(path), path.suffix.lower() == ".gz"
    if kind in (None, "lines", "excel", "json") or (zipped and kind in ("parquet", "sqlite")):
        raise UsageError(f"the extension of {path} is not a known output format", hint=f"Known extensions: {_KNOWN}.")
    return kind


@contextlib.contextmanager
def open_writer(
    target: Path | None, columns: Sequence[str], *, kind: str | None = None, style: Style = Style()
) -> Iterator[Writer]:
    """A writer for ``target``, which is replaced when the block ends without an error; None means stdout.

    Args:
        target: its extension sets the format. Until the block ends, and after an error, an existing file is unchanged.
        columns: column names in order; only jsonl accepts others later.
        kind: the format on stdout: csv, tsv or jsonl.
        style: of the rows.

    Raises:
        UsageError: unknown extension.
        OutputError: the file cannot be written.
    """
    if target is None:
        writer = _text_writer(kind or "csv", rows_stream(), columns, style)
        yield writer
        writer.close()
        return
    kind = kind_of_output(target)
    target = target.expanduser().resolve()
    with written(target, other=ANOTHER_FILE):
        check_target(target)
        with atomic_file(target, wait=False) as aside, file_writer(aside, target, columns, style) as writer:
            yield writer


def check_target(target: Path) -> None:
    """Refuse a target that must not be replaced."""
    if target.is_dir():
        raise OutputError(f"{target} is a directory", hint="Choose a file name.")
    if kind_of_output(target) == "sqlite" and target.is_file() and target.stat().st_size:
        _check_replaceable(target)


def _check_replaceable(target: Path) -> None:
    """A database is replaced as a whole, so one that contains other tables is refused."""
    try:
        with contextlib.closing(sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise OutputError(f"{target} is not an SQLite database ({error})", hint="Choose a new file.") from error
    if tables - {TABLE}:
        raise OutputError(
            f"{target} contains other tables ({', '.join(sorted(tables - {TABLE}))}), which would be lost",
            hint="Choose a new file.",
        )


@contextlib.contextmanager
def file_writer(
    path: Path, target: Path, columns: Sequence[str], style: Style, *, header: bool = True
) -> Iterator[Writer]:
    """A writer for the file ``path`` in the format of ``target``; complete if the block ends without an error."""
    kind = kind_of_output(target)
    with contextlib.ExitStack() as stack:
        writer: Writer
        if kind == "parquet":
            writer = parquet = _Parquet(path, columns, style.types)
            stack.callback(parquet.abandon)
        elif kind == "sqlite":
            writer = database = _Sqlite(path, columns)
            stack.callback(database.connection.close)
        else:
            file: Any = stack.enter_context(path.open("wb"))
            if target.suffix.lower() == ".gz":
                zipped = gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0)
                file = stack.enter_context(zipped)
            text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
            writer = _text_writer(kind, stack.enter_context(text), columns, style, header=header)
        yield writer
        writer.close()


def _text_writer(kind: str, stream: Any, columns: Sequence[str], style: Style, *, header: bool = True) -> Writer:
    if kind == "jsonl":
        return _JsonLines(stream, style.numbers)
    return _Delimited(stream, columns, kind, quoted=style.quoting != "none", header=header)


class _Lines:
    """What the csv module writes to: lines that end with \\n, in characters that the stream has.

    Before Python 3.13 that module quotes only the line ends among its own terminator: with \\r\\n, a lone \\r too.
    """

    TERMINATOR = "\r\n"

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._narrow = None if holds_any_text(stream) else stream.encoding

    def write(self, line: str) -> None:
        if self._narrow is not None:
            try:
                line.encode(self._narrow)
            except UnicodeEncodeError as error:
                raise OutputError(
                    f"standard output is {self._narrow}, which has no {line[error.start]!a}",
                    hint="Set PYTHONIOENCODING=utf-8, or use --json or --output FILE.",
                ) from error
        self._stream.write(line.removesuffix(self.TERMINATOR) + "\n")


class _Delimited(Writer):
    """csv or tsv, with a header line unless it continues another file."""

    def __init__(self, stream: Any, columns: Sequence[str], kind: str, *, quoted: bool, header: bool = True) -> None:
        self._columns, self._stream, self._kind = list(columns), stream, kind
        # Without a quote character, quotes are ordinary characters, as for the reader of unquoted files.
        style: dict[str, Any] = {} if quoted else {"quoting": csv.QUOTE_NONE, "quotechar": None}
        lines = _Lines(stream)
        delimiter = "," if kind == "csv" else "\t"
        usual: dict[str, Any] = {"delimiter": delimiter, "lineterminator": _Lines.TERMINATOR}
        self._writer = csv.writer(lines, **usual, **style)
        if not header:
            return
        if quoted and self._kind == "tsv":
            # Readers take a tsv for unquoted unless it begins with quotes; the first value that needs them may be late.
            csv.writer(lines, **usual, quoting=csv.QUOTE_ALL).writerow(self._columns)
        else:
            self._put([self._columns])

    def write(self, rows: Rows) -> None:
        columns = _in_order(rows, self._columns, self._kind)
        values = [column if _is_plain(column) else [_cell(value) for value in column] for column in columns]
        self._put(zip(*values, strict=True))

    def _put(self, rows: Any) -> None:
        try:
            self._writer.writerows(rows)
        except csv.Error as error:
            raise OutputError(
                f"a value contains a delimiter or a line break, which an unquoted {self._kind} file cannot represent",
                hint="Write .csv or .jsonl.",
            ) from error

    def close(self) -> None:
        self._stream.flush()


class _JsonLines(Writer):
    """One object per line; a key that an input object lacks is not added."""

    def __init__(self, stream: Any, numbers: Collection[str]) -> None:
        self._stream = stream
        self._numbers = numbers
        self._ascii = not holds_any_text(stream)

    def write(self, rows: Rows) -> None:
        names = list(rows)
        columns = [[*map(_number, rows[name])] if name in self._numbers else rows[name] for name in names]
        for values in zip(*columns, strict=True):
            record = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in zip(names, values, strict=True)
                if value is not MISSING
            }
            self._stream.write(json.dumps(record, ensure_ascii=self._ascii, default=_cell) + "\n")

    def close(self) -> None:
        self._stream.flush()


def _number(text: Any) -> Any:
    """A number written as JSON writes one; null if empty."""
    return json.loads(text) if text else None


class _Parquet(Writer):
    """A parquet file with the given types, else those of the first batch."""

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
                    f"the values of column {name!r} have no common type, as parquet requires: {error}",
                    hint="Write .jsonl or .csv.",
                ) from error
            self._types.setdefault(name, array.type)
            arrays.append(array)
        writer = self._open()
        writer.write_table(pyarrow.table(arrays, schema=writer.schema))

    def _plain(self, name: str, column: Sequence[Any] | None) -> list[Any]:
        """Nested values without a declared type become JSON: Arrow would drop keys that first occur later."""
        import pyarrow

        values = [None if value is MISSING else value for value in column or ()]
        values = [value.nanoseconds if isinstance(value, ExactTime) else value for value in values]
        # Once a first part is written, the type of such a column is text.
        if name in self._types and pyarrow.types.is_nested(self._types[name]):
            return values
        return [_cell(value) if isinstance(value, dict | list) else value for value in values]

    def _open(self) -> Any:
        if self._writer is None:
            import pyarrow
            import pyarrow.parquet

            schema = pyarrow.schema([(name, self._types.get(name, pyarrow.string())) for name in self._columns])
            self._writer = pyarrow.parquet.ParquetWriter(self._path, schema, write_page_checksum=True)
        return self._writer

    def close(self) -> None:
        self._open().close()

    def abandon(self) -> None:
        """Close the file, complete or not."""
        if self._writer is not None and self._writer.is_open:
            self._writer.close()


class _Sqlite(Writer):
    """A new database with one table, whose columns have no declared types, so values keep theirs."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        # Opened and closed by one thread, written by another, never at the same time.
        self.connection = sqlite3.connect(path, check_same_thread=False)
        # An incomplete file is deleted, so a journal is not needed.
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
    """The columns of a batch in the fixed order; missing ones are null."""
    late = [name for name in rows if name not in columns]
    if late:
        raise OutputError(
            f"a later row has {late[0]!r}, which earlier rows do not have, and {kind} cannot add a column",
            hint="Write .jsonl (--json on stdout).",
        )
    count = len(next(iter(rows.values()), ()))
    return [rows[name] if name in rows else [None] * count for name in columns]


def _cell(value: Any) -> str:
    """A value as text; null becomes the empty string."""
    if value is None or value is MISSING or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False, default=_cell)
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
        return value.hex()
    return str(value)


def _is_plain(column: Sequence[Any]) -> bool:
    """Whether the csv module writes all values of a column as `_cell` does."""
    kinds = {*map(type, column)}
    return kinds <= _PLAIN and (float not in kinds or not any(value != value for value in column))


def without_formula(value: Any) -> Any:
    """A value that a spreadsheet shows and does not compute; numbers stay as they are."""
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def without_formulas(rows: Rows) -> Rows:
    """The same rows without formulas, in the names of columns too."""
    return {without_formula(name): [without_formula(value) for value in values] for name, values in rows.items()}


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
