"""Delimited text with a header line, such as csv and tsv."""

from __future__ import annotations

import contextlib
import csv
import itertools
import operator
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sentiment_hybrid.borrowed import LONG_FIELDS, LONGEST_FIELD
from sentiment_hybrid.data.columns import other_delimiter
from sentiment_hybrid.data.sources.base import (
    BATCH_BYTES,
    BATCH_SIZE,
    Batch,
    Position,
    TextSource,
    UnusualError,
    unsound,
    without_repeats,
)
from sentiment_hybrid.data.sources.dialect import BOM, Dialect, Quoting, column_names
from sentiment_hybrid.errors import SourceError

#: Rows of a batch from which on the fast reader pays: it loads pyarrow, which takes 30 MB.
_FAST_FROM = BATCH_SIZE
#: Rows to read between checks of their size.
_STEP = 16
_ADVICE = {
    "wrong number of fields": "Is a text with the delimiter in it not quoted?",
    "the header again": "Were files joined?",
    "malformed quoting": "Are quotes ordinary characters (--quoting none) or escaped by backslashes (--quoting "
    "backslash)?",
}
#: Lines that are numbers of JSON, within 64 bits, or empty.
_NUMBERS = re.compile(r"(?:(?:-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?)?\n)*+")


class DelimitedSource(TextSource):
    """Rows below a header line; quoted fields may hold line breaks."""

    _newline = ""

    def __init__(self, path: Path, *, dialect: Dialect, **options: Any) -> None:
        super().__init__(path, **options)
        self.dialect = dialect
        self._as_written: list[str] = []

    def place(self, row: int) -> str:
        """The line on which a row begins, and its number among the rows below the header; of a stream, that alone."""
        line = None
        if self._stream is None:
            # Called once, for an error: reading up to the row again is cheaper than always counting lines.
            with contextlib.suppress(SourceError), self._rows() as reader:
                line = self._line(reader, row)
        return f"data row {row}" if line is None else f"line {line}, data row {row}"

    def _line(self, reader: Any, row: int) -> int | None:
        """Where row ``row`` begins, counted as an editor does; blank lines are no rows, and row 0 is the header."""
        found, line = -1, 1 + self.dialect.preamble
        with contextlib.suppress(StopIteration):
            while True:
                try:
                    found += bool(next(reader))
                except csv.Error:
                    found += 1
                if found == row:
                    return line
                line = int(reader.line_num) + 1 + self.dialect.preamble
        return None

    @property
    def columns(self) -> list[str]:
        """The header, trimmed. Raises SourceError for an empty file, ColumnError for a name that occurs twice."""
        if self._columns is None:
            if self._stream is not None:
                raise AssertionError("a stream's columns are known once its first batch is read")
            with self._rows() as reader:
                self._columns = self._header(reader)
        return self._columns

    @property
    def quoting(self) -> Quoting:
        """As detected or set."""
        return self.dialect.quoting

    def numbers(self, columns: Sequence[str]) -> set[str]:
        """Those of the columns in which each value is written as JSON writes a number, or empty; not all are empty.

        A stream has none: rows are written before its last one is known. Nor has a file that is in error.
        """
        left, filled = set(columns), set[str]()
        if not left or self._stream is not None:
            return set()
        try:
            with contextlib.closing(self.batches(list(columns), native=True, size=_FAST_FROM - 1)) as batches:  # type: ignore[type-var]
                for batch in batches:
                    left = {name for name in left if _are_numbers(batch.columns[name])}
                    filled |= {name for name in left if any(batch.columns[name])}
                    if not left:
                        break
        except SourceError:
            return set()
        return left & filled

    @contextlib.contextmanager
    def _rows(self) -> Iterator[Any]:
        """A csv reader below the preamble."""
        with LONG_FIELDS, self._text() as text:
            yield self.dialect.reader(itertools.islice(text, self.dialect.preamble, None))

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        try:
            header = next((row for row in reader if row), None)
        except csv.Error as error:
            raise SourceError(f"{self.name}: {_malformed(error)} in the header line") from error
        if header is None:
            raise SourceError(f"{self.name} is empty", hint="It must start with a header line of column names.")
        if reason := unsound("".join(header)):
            raise SourceError(f"{self.name}, header line: {reason}", hint="Try --encoding utf-16 or cp1252.")
        self._as_written = header
        return without_repeats(column_names(header), self.name)

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        done = 0
        try:
            for batch in self._fast(columns, size):
                yield batch
                done += len(batch)
        except UnusualError:
            yield from self._careful(columns, size, done)

    def _fast(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        """Rows of a well-formed file. Raises UnusualError where it is not, and for files that need the other reader."""
        dialect = self.dialect
        if (
            size < _FAST_FROM
            or self._stream is not None
            or self.encoding != "utf-8-sig"
            or dialect.preamble
            or dialect.quoting == "backslash"
        ):
            raise UnusualError
        from sentiment_hybrid.data.sources import fast_csv

        names = self.columns
        wanted = list(columns or names)
        written = [self._as_written[names.index(name)] for name in wanted]
        first, position = 1, Position(self.path.stat().st_size)
        self._position = lambda: position
        for values in fast_csv.tables(
            self.path, wanted, names=names, dialect=dialect, size=size, longest=self.limit.size, position=position
        ):
            rows = range(first, first + len(values[0]))
            if len(names) > 1 and _has_row(values, written):  # probably a repeated header
                raise UnusualError
            yield Batch(rows, dict(zip(wanted, values, strict=True)), sound=True)
            first = rows.stop

    def _careful(self, columns: Sequence[str], size: int, done: int) -> Iterator[Batch]:
        """Rows after the first ``done``, each of them checked."""
        with self._rows() as reader:
            self._columns = names = self._header(reader)
            first = 1
            while rows := self._next(reader, min(size, done + 1 - first) if first <= done else size):
                if first > done:
                    yield self._batch(rows, first, columns or names, names)
                first += len(rows)

    def _next(self, reader: Iterator[list[str]], size: int) -> list[list[str] | csv.Error]:
        """The next rows without blank lines; an error takes the place of a row with malformed quoting."""
        rows: list[list[str] | csv.Error] = []
        assert self._bytes is not None
        enough = self._bytes.total + BATCH_BYTES
        while (missing := size - len(rows)) > 0 and (self._bytes.total < enough or not rows):
            before = len(rows)
            try:
                rows.extend(itertools.islice(reader, min(missing, _STEP)))
                if len(rows) == before:
                    break
            except csv.Error as error:
                rows.append(error)
            new = rows[before:]
            if not all(new):
                rows[before:] = [row for row in new if row]
        return rows

    def _batch(
        self, rows: list[list[str] | csv.Error], first: int, columns: Sequence[str], names: Sequence[str]
    ) -> Batch:
        width, last = len(names), self._as_written[-1]
        suspects = [at for at, row in enumerate(rows) if type(row) is not list or len(row) != width or row[-1] == last]
        problems = {at: problem for at in suspects if (problem := _problem(rows[at], names))}
        whole: Any = [names if at in problems else row for at, row in enumerate(rows)] if problems else rows
        values = {name: list(map(operator.itemgetter(names.index(name)), whole)) for name in columns}
        if names[0] in values:  # concatenated files: the byte order mark of a later one
            values[names[0]] = [value.removeprefix(BOM) for value in values[names[0]]]
        return self._without(problems, Batch(range(first, first + len(rows)), values))

    def _kind_of(self, problem: str) -> str:
        if " fields, " in problem:
            return "wrong number of fields"
        return "malformed quoting" if "quote" in problem else super()._kind_of(problem)

    def bad_row(self, row: int, problem: str) -> SourceError:
        """As for any source, with what may be wrong with the file."""
        error = super().bad_row(row, problem)
        if advice := _ADVICE.get(self._kind_of(problem)):
            error.hint = other_delimiter(self._columns or ()) or f"{advice} {error.hint}"
        return error


def _problem(row: list[str] | csv.Error, names: Sequence[str]) -> str:
    """What is wrong with a row; empty if nothing is."""
    if isinstance(row, csv.Error):
        return _malformed(row)
    if len(row) != len(names):
        return f"{len(row)} fields, the header has {len(names)}"
    if len(row) > 1 and column_names(row) == names:
        return "the header again"
    return ""


def _has_row(columns: Sequence[list[str]], wanted: Sequence[str]) -> bool:
    """Whether there is a row of these values."""
    at = -1
    with contextlib.suppress(ValueError):
        while True:
            at = columns[0].index(wanted[0], at + 1)
            if all(column[at] == value for column, value in zip(columns, wanted, strict=True)):
                return True
    return False


def _are_numbers(values: Sequence[str]) -> bool:
    # A line break in a value would pass for another value.
    return _NUMBERS.fullmatch(text := "\n".join([*values, ""])) is not None and text.count("\n") == len(values)


def _malformed(error: csv.Error) -> str:
    message = str(error)
    if "field larger" in message:
        return f"a field of more than {LONGEST_FIELD:,} characters: is a quote never closed?"
    if "unexpected end" in message:
        return "a quote is never closed"
    return "malformed quoting: a quote inside a quoted field must be doubled"
