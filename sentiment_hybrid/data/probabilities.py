"""Probabilities that any program has given to texts: a file with one column per label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.columns import find_text, listed
from sentiment_hybrid.data.labels import finder
from sentiment_hybrid.data.normalizers import Normalizer
from sentiment_hybrid.data.sources import Source, read_with_progress
from sentiment_hybrid.errors import ColumnError, DataError

#: How far from 1 the probabilities of a text may sum: files hold rounded numbers.
_TOLERANCE = 1e-3


def read_probabilities(
    source: Source, data: Data, *, labels: Sequence[str], normalizer: Normalizer
) -> tuple[list[str], np.ndarray]:
    """Distinct cleaned texts (N,) and their probabilities (N, C) float32, in the order of ``labels``.

    The columns are called ``p_<label>``, as `senthy predict` writes them, or like the labels. Rows without a text or
    without probabilities are left out; a text that occurs several times gets the mean.

    Raises:
        SourceError: the source cannot be read.
        ColumnError: no text column, or no column for one of the labels.
        DataError: a row's probabilities are incomplete, no numbers, negative, or do not sum to 1; nothing is left.
    """
    text_column = find_text(source.columns, data.text_column, source=source.name)
    columns = _columns_of(source, labels)
    places: dict[str, int] = {}
    found: list[list[float]] = []
    of_text: list[int] = []
    with read_with_progress(source, [text_column, *columns]) as batches:
        for batch in batches:
            values = zip(*(batch.columns[column] for column in columns), strict=True)
            for row, text, given in zip(batch.rows, batch.columns[text_column], values, strict=True):
                cleaned = normalizer(text or "")
                if cleaned and any((value or "").strip() for value in given):
                    found.append(_numbers(given, source, row))
                    of_text.append(places.setdefault(cleaned, len(places)))
    if not found:
        raise DataError(f"{source.name} has no row with a text and probabilities")
    sums = np.zeros((len(places), len(labels)))
    np.add.at(sums, of_text, np.array(found))
    return list(places), (sums / sums.sum(axis=1, keepdims=True)).astype(np.float32)


def _columns_of(source: Source, labels: Sequence[str]) -> list[str]:
    for prefix in ("p_", ""):
        named = [column for column in source.columns if column.casefold().startswith(prefix)]
        find = finder(column[len(prefix) :] for column in named)
        found = [named[place] for label in labels if (place := find(label)) is not None]
        if len(set(found)) == len(labels):
            return found
    raise ColumnError(
        f"{source.name} has no column of probabilities for each of the labels {', '.join(labels)}; it has "
        f"{listed(source.columns)}",
        hint=f"Call them {', '.join(f'p_{label}' for label in labels)}, as `senthy predict` does.",
    )


def _numbers(given: Iterable[str | None], source: Source, row: int) -> list[float]:
    """Probabilities of one row. Raises DataError."""
    written = [(value or "").strip() for value in given]
    try:
        numbers = [float(value) for value in written]
    except ValueError:
        numbers = [np.nan]
    # A NaN fails every comparison.
    if not (all(0.0 <= number <= 1.0 + _TOLERANCE for number in numbers) and abs(sum(numbers) - 1.0) <= _TOLERANCE):
        raise DataError(
            f"{source.name}, {source.place(row)}: {', '.join(value or 'nothing' for value in written)} are not the "
            "probabilities of a text: numbers from 0 to 1 whose sum is 1",
            hint="Correct the row, or leave all of its probabilities empty.",
        )
    return numbers
