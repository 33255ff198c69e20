"""Sheets of Excel workbooks (.xlsx), through the extra ``excel``."""

from __future__ import annotations

import contextlib
import itertools
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sentiment_hybrid.data.sources.base import Batch, FileSource, chosen, reading, without_repeats
from sentiment_hybrid.data.sources.dialect import column_names
from sentiment_hybrid.errors import SourceError

#: Largest decompressed workbook in bytes.
LARGEST = 1 << 29


class ExcelSource(FileSource):
    """One sheet, whose first row that is not empty is the header; empty rows below it are left out."""

    def __init__(self, path: Path, *, table: str | None = None, **options: Any) -> None:
        super().__init__(path, **options)
        _check_archive(path, self.name)
        self.sheet = self._find(table)
        self.name = f"{self.name}:{self.sheet}"
        self._columns: list[str] | None = None
        self._below_header = 0

    def place(self, row: int) -> str:
        """The row's number below the header, empty rows not counted."""
        return f"data row {row}"

    @contextlib.contextmanager
    def _workbook(self) -> Iterator[Any]:
        try:
            import python_calamine as calamine
        except ImportError as error:
            raise SourceError(
                f"{self.name} is an Excel workbook, which needs one more package",
                hint='In the checkout: pip install ".[excel]". Or save the sheet as CSV (UTF-8).',
            ) from error
        try:
            with reading(self.path), contextlib.closing(calamine.load_workbook(str(self.path))) as workbook:
                yield workbook
        except calamine.CalamineError as error:
            raise SourceError(
                f"{self.name} cannot be read as an Excel workbook: {error}", hint="Save the sheet as CSV (UTF-8)."
            ) from error

    def _find(self, wanted: str | None) -> str:
        with self._workbook() as workbook:
            names = list(workbook.sheet_names)
            if wanted is None:
                names = [name for name in names if next(_filled(workbook.get_sheet_by_name(name)), None)] or names[:1]
        return chosen(names, wanted, kind="sheet", source=self.name)

    @property
    def columns(self) -> list[str]:
        """The header, trimmed, up to its last name. Raises SourceError for an empty sheet."""
        if self._columns is None:
            with self._workbook() as workbook:
                header = next(_filled(workbook.get_sheet_by_name(self.sheet)), None)
            if header is None:
                raise SourceError(f"{self.name} is empty", hint="Its first row must hold column names.")
            while header[-1] is None:
                header.pop()
            names = column_names(["" if name is None else str(name) for name in header])
            self._columns = without_repeats(names, self.name)
        return self._columns

    def _estimated(self, given: int) -> float:
        return float(max(given, self._below_header))  # fewer where rows are empty

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        names = self.columns
        places = [names.index(name) for name in columns]
        first = 1
        with self._workbook() as workbook:
            sheet = workbook.get_sheet_by_name(self.sheet)
            self._below_header = sheet.height - 1
            rows = itertools.islice(_filled(sheet), 1, None)
            while some := list(itertools.islice(rows, size)):
                batch = Batch(
                    range(first, first + len(some)),
                    {name: [row[place] for row in some] for name, place in zip(columns, places, strict=True)},
                )
                problems = {
                    at: "a cell to the right of the header"
                    for at, row in enumerate(some)
                    if any(value is not None for value in row[len(names) :])
                }
                yield self._without(problems, batch)
                first += len(some)


def _check_archive(path: Path, name: str) -> None:
    """Raises SourceError for a zip archive that is no workbook, or that is too large when it is unpacked."""
    with reading(path):
        try:
            with zipfile.ZipFile(path) as archive:
                parts = {part.filename: part.file_size for part in archive.infolist()}
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise SourceError(
                f"{name}: damaged Excel workbook or zip archive", hint="Download or copy it again."
            ) from error
    if not any(part.startswith("xl/") for part in parts):
        raise SourceError(f"{name} is a zip archive, not a table", hint="Unpack it first, or save it as CSV (UTF-8).")
    if sum(parts.values()) > LARGEST:
        raise SourceError(
            f"{name} takes more than {LARGEST >> 20} MB when it is unpacked", hint="Save the sheet as CSV (UTF-8)."
        )


def _filled(sheet: Any) -> Iterator[list[Any]]:
    """The rows that are not empty."""
    for row in sheet.iter_rows():
        values = [_value(value) for value in row]
        if any(value is not None for value in values):
            yield values


def _value(value: Any) -> Any:
    """None for an empty cell; an int for a whole number, which Excel stores as a float."""
    if value == "":
        return None
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
