"""The values of a column of a source, row by row, for rows that were read from it before."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.columns import named
from sentiment_hybrid.data.sources import open_source, texts_of
from sentiment_hybrid.data.sources.base import NotTextError, value_text
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


def values_by_row(spec: str, data: Data, column: str, marks: Mapping[int, int]) -> dict[int, str]:
    """The value of each row in ``column``; rows without one are left out.

    The texts may be those of any column: which one was tested is seen by its texts.

    Args:
        marks: row -> the `marks_of` its raw text.

    Raises:
        SourceError: the source cannot be read, or a value of the column is no text.
        ColumnError: it has no such column.
        DataError: it has changed: a row is no longer there, or has another text.
    """
    source = open_source(spec, data, offline=True)
    name = named(source.columns, column, option="--slice-by", source=spec)
    values: dict[int, str] = {}
    met: Counter[str] = Counter()
    for batch in source.batches(native=True):  # lists and bytes in other columns do not matter
        given = texts_of(batch, name, source=spec)
        columns = {one: source.limit([*map(_text, column)]) for one, column in batch.columns.items()}
        for at, row in enumerate(map(int, batch.rows)):
            if (mark := marks.get(row)) is None:
                continue
            met.update(one for one, texts in columns.items() if _mark(texts[at] or "") == mark)
            if (value := given[at]) is not None:
                values[row] = sys.intern(value)
    if (most := max(met.values(), default=0)) < len(marks):
        raise DataError(
            f"{spec} has changed: {len(marks) - most:,} of {len(marks):,} tested rows are no longer in it as they were",
            hint="Prepare it again, and test with --slice-by: then the values are kept with the results.",
        )
    return values


def _text(value: Any) -> str | None:
    try:
        return value if isinstance(value, str) else value_text(value)
    except NotTextError:
        return None
