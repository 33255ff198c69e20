"""The values of a column of a source, row by row, for rows that were read from it before."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.columns import choose, named
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.errors import DataError


def source_of(data: Data, split: str) -> str:
    """Where the rows of a split come from; a tested file is its own source."""
    official = {"train": data.train_source, "valid": data.valid_source or data.train_source, "test": data.test_source}
    return (official[split] or data.source) if split in official else split


def marks_of(texts: Mapping[int, str]) -> dict[int, int]:
    """What a text is recognised by, by row, in this process."""
    return {row: _mark(text) for row, text in texts.items()}


def _mark(text: str) -> int:
    return hash(text.encode("utf-8", "replace"))  # as files of predictions have it


def values_by_row(
    spec: str, data: Data, column: str, marks: Mapping[int, int], *, trained_on: str | None = None
) -> dict[int, str]:
    """The value of each row in ``column``; rows without one are left out.

    Args:
        spec: the source.
        data: how it is read.
        column: its name.
        marks: row -> the `marks_of` its raw text.
        trained_on: the text column of the model that was tested.

    Raises:
        SourceError: the source cannot be read.
        ColumnError: it has no such column.
        DataError: it has changed: a row is no longer there, or has another text.
    """
    source = open_source(spec, data, offline=True)
    name = named(source.columns, column, option="--slice-by", source=spec)
    raw = choose(source.columns, data, source=spec, trained_on=trained_on).raw
    values: dict[int, str] = {}
    met = 0
    for batch in source.batches(list(dict.fromkeys((name, raw)))):
        for row, value, text in zip(batch.rows, batch.columns[name], batch.columns[raw], strict=True):
            if (mark := marks.get(int(row))) is None or _mark(text or "") != mark:
                continue
            met += 1
            if value is not None:
                values[int(row)] = sys.intern(str(value))
    if met < len(marks):
        raise DataError(
            f"{spec} has changed: {len(marks) - met:,} of {len(marks):,} tested rows are no longer in it as they were",
            hint="Prepare it again, and test with --slice-by: then the values are kept with the results.",
        )
    return values
