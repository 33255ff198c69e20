"""Parquet files."""

from __future__ import annotations

import contextlib
import datetime
import io
import operator
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from sentiment_hybrid.data.sources.base import Batch, ExactTime, FileSource, opened, without_repeats
from sentiment_hybrid.errors import SourceError, count


class ParquetSource(FileSource):
    """A parquet file, read one row group at a time."""

    @property
    def columns(self) -> list[str]:
        """Top-level fields of the schema."""
        with self._file() as file:
            return without_repeats([name.strip() for name in file.schema_arrow.names], self.name)

    @property
    def types(self) -> dict[str, Any]:
        """Column -> Arrow type."""
        with self._file() as file:
            return {field.name.strip(): field.type for field in file.schema_arrow}

    @contextlib.contextmanager
    def _file(self) -> Iterator[Any]:
        """The open file. Arrow opens it itself: its threads may release a Python file at shutdown."""
        with self._unpacked() as path, contextlib.ExitStack() as stack:
            try:
                # Few programs write checksums of pages; where there are some, they are compared.
                yield stack.enter_context(pyarrow.parquet.ParquetFile(str(path), page_checksum_verification=True))
            except (pyarrow.ArrowException, OSError) as error:
                first = (str(error).splitlines() or [type(error).__name__])[0]
                raise SourceError(f"{self.path}: not a sound parquet file ({first})") from error

    @contextlib.contextmanager
    def _unpacked(self) -> Iterator[Path]:
        """The file, decompressed if it is gzip: parquet is read from its end."""
        with opened(self.path) as binary, contextlib.ExitStack() as stack:
            path = self.path
            if isinstance(binary, io.BufferedReader) and not isinstance(binary.raw, io.FileIO):
                path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "unpacked.parquet"
                with path.open("wb") as file:
                    shutil.copyfileobj(binary, file, 1 << 20)
            yield path

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        with self._file() as file:
            real = {name.strip(): name for name in file.schema_arrow.names}
            first, rows = 1, int(file.metadata.num_rows)
            self.total = rows
            for part in file.iter_batches(batch_size=size, columns=[real[name] for name in columns]):
                problems: dict[int, str] = {}
                values = {name: _values(part.column(real[name]), name, problems) for name in columns}
                yield self._without(problems, Batch(range(first, first + part.num_rows), values))
                first += part.num_rows
            # Arrow takes a damaged count of values for the end.
            if columns and first - 1 != rows:
                raise SourceError(
                    f"{self.path}: not a sound parquet file ({first - 1:,} of {count(rows, 'row')} can be read)"
                )


def _values(column: Any, name: str, problems: dict[int, str]) -> list[Any]:
    """Python values; one that Python cannot represent, such as a date after year 9999, is a problem at its index."""
    convert: Callable[[Any], Any] = operator.methodcaller("as_py")
    if column.type == pyarrow.time64("ns"):
        column, convert = column.cast(pyarrow.int64()), _time
    else:
        with contextlib.suppress(ValueError, OverflowError):
            return list(column.to_pylist())
    values: list[Any] = []
    for at, value in enumerate(column):
        try:
            values.append(convert(value))
        except (ValueError, OverflowError) as error:
            values.append(None)
            why = "beyond Python's range" if isinstance(error, OverflowError) else error
            problems[at] = f"no value in column {name!r}: {why}"
    return values


def _time(nanoseconds: Any) -> datetime.time | None:
    """A time of day from an Arrow number. Raises ValueError for one of another day, which Arrow would take modulo."""
    return None if (count := nanoseconds.as_py()) is None else ExactTime.of(count)
