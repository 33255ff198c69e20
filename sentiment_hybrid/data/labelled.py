"""Reads labelled texts for an existing model, with its labels and its normaliser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.columns import Columns, choose, text_note
from sentiment_hybrid.data.labels import LabelValues, canonical, described, labelling_of
from sentiment_hybrid.data.normalizers import Normalizer
from sentiment_hybrid.data.sources import Source, no_rows, read_with_progress
from sentiment_hybrid.data.store import Examples
from sentiment_hybrid.errors import DataError, some


@dataclass(frozen=True)
class Labelled:
    """Usable rows, and the number of dropped rows by reason; those with an unknown label by that label.

    ``notes`` say how the file was read.
    """

    examples: Examples
    dropped: dict[str, int]
    unknown: dict[str, int]
    notes: tuple[str, ...] = ()


def read_labelled(
    source: Source,
    data: Data,
    *,
    labels: tuple[str, ...],
    normalizer: Normalizer,
    coding: Mapping[str, str] | None = None,
    trained_on: str | None = None,
) -> Labelled:
    """Read every row; empty texts, and unknown labels if ``data.unknown_labels`` is drop, are dropped.

    `labelling_of` maps label values to labels. ``coding`` is what the values meant in the model's training,
    ``trained_on`` the text column that it was trained on.

    Raises:
        SourceError, ColumnError: the source cannot be read.
        LabelError: a label that the model does not have.
        DataError: no row is left.
    """
    columns = choose(source.columns, data, source=source.name, trained_on=trained_on)
    values = LabelValues(source.name, columns.label, place=source.place, most=data.max_labels)
    dropped: Counter[str] = Counter()
    rows = list(_rows(source, columns, normalizer, values, dropped))
    if not rows and not dropped:
        raise no_rows(source.name)
    if not rows:
        raise DataError(f"{source.name} has no texts", hint="Is it the right text column (--text-column)?")
    labelling = labelling_of(values, data, labels, coding=coding)
    known = [row for row in rows if row.label in labelling.codes]
    unknown = Counter(canonical(row.label) for row in rows if row.label not in labelling.codes)
    if not known:
        raise DataError(
            f"{source.name} has no row with a label of {', '.join(labels)}; column {columns.label!r} contains "
            f"{some([repr(label[:40]) for label in unknown])}",
            hint="Map values with --label-map VALUE=LABEL (data.label_map), or name the column with --label-column.",
        )
    examples = Examples(
        split="test",
        texts=[row.text for row in known],
        labels=np.array([labelling.codes[row.label] for row in known], dtype=np.int64),
        rows=np.array([row.number for row in known], dtype=np.int64),
        raw=[row.raw for row in known],
    )
    meaning = described(labelling.coding)
    notes = (
        text_note(source.columns, columns.text, trained_on, source=source.name),
        labelling.merged,
        f"labels are read as {meaning}" if meaning else "",
    )
    return Labelled(examples, dict(+dropped), dict(unknown), tuple(filter(None, notes)))


class _Row(NamedTuple):
    number: int
    label: str
    text: str
    raw: str


def _rows(
    source: Source, columns: Columns, normalizer: Normalizer, values: LabelValues, dropped: Counter[str]
) -> Iterator[_Row]:
    """The rows whose cleaned text is not empty. Records their label values; counts the other rows in ``dropped``."""
    names = (columns.text, columns.label, columns.raw)
    with read_with_progress(source, list(dict.fromkeys(names))) as batches:
        for batch in batches:
            dropped.update(batch.skipped)
            for number, text, label, raw in zip(batch.rows, *(batch.columns[name] for name in names), strict=True):
                cleaned = normalizer(text or "")
                if not cleaned:
                    dropped["empty text"] += 1
                    continue
                label = label or ""
                if label not in values.first_rows:
                    values.add(label, number)
                yield _Row(number, label, cleaned, raw or text or "")
