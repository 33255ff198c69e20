"""Parquet files."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from sentiment_hybrid.data.sources.base import Batch, FileSource, without_repeats
from sentiment_hybrid.errors import SourceError


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
        with self._binary() as binary, contextlib.ExitStack() as stack:
            seekable: IO[bytes] = binary
            if isinstance(binary, io.BufferedReader) and not isinstance(binary.raw, io.FileIO):
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
