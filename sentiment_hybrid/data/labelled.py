"""Reads labelled texts for an existing model, with its labels and its normaliser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.columns import choose, text_note
from sentiment_hybrid.data.labels import LabelValues, canonical, described, labelling_of
from sentiment_hybrid.data.normalizers import Normalizer
from sentiment_hybrid.data.sources import Source, read_with_progress
from sentiment_hybrid.data.store import Examples
from sentiment_hybrid.errors import DataError


@dataclass(frozen=True)
class Labelled:
    """Usable rows; how many others were left out by reason, and for a label that is not known, by that label.

    ``notes`` are what to report of how the file was read.
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

    Values are read as `labelling_of` says. ``coding`` is what they meant in the model's training, ``trained_on`` the
    text column of that.

    Raises:
        SourceError, ColumnError: the source cannot be read.
        LabelError: a label that the model does not have.
        DataError: no row is left.
    """
    columns = choose(source.columns, data, source=source.name, trained_on=trained_on)
    values = LabelValues(source.name, columns.label, place=source.place, most=data.max_labels)
    rows: list[int] = []
    given: list[str] = []
    texts: list[str] = []
    raws: list[str] = []
    dropped: Counter[str] = Counter()
    wanted = list(dict.fromkeys((columns.text, columns.label, columns.raw)))
    with read_with_progress(source, wanted) as batches:
        for batch in batches:
            dropped.update(batch.skipped)
            for row, label, text, raw in zip(
                batch.rows,
                batch.columns[columns.label],
                batch.columns[columns.text],
                batch.columns[columns.raw],
                strict=True,
            ):
                cleaned = normalizer(text or "")
                if not cleaned:
                    dropped["empty text"] += 1
                    continue
                label = label or ""
                if label not in values.first_rows:
                    values.add(label, row)
                rows.append(row)
                given.append(label)
                texts.append(cleaned)
                raws.append(raw or text or "")
    if not rows:
        raise DataError(f"{source.name} has no texts", hint="Is it the right text column (--text-column)?")
    labelling = labelling_of(values, data, labels, coding=coding)
    codes = labelling.codes
    keep = [index for index, label in enumerate(given) if label in codes]
    unknown = Counter(canonical(label) for label in given if label not in codes)
    if not keep:
        raise _no_known_label(source.name, columns.label, labels, list(unknown))
    examples = Examples(
        split="test",
        texts=[texts[index] for index in keep],
        labels=np.array([codes[given[index]] for index in keep], dtype=np.int64),
        rows=np.array([rows[index] for index in keep], dtype=np.int64),
        raw=[raws[index] for index in keep],
    )
    meaning = described(labelling.coding)
    notes = (
        text_note(source.columns, columns.text, trained_on, source=source.name),
        labelling.merged,
        f"labels are read as {meaning}" if meaning else "",
    )
    lost = {reason: count for reason, count in dropped.items() if count}
    return Labelled(examples, lost, dict(unknown), tuple(filter(None, notes)))


def _no_known_label(source: str, column: str, labels: tuple[str, ...], found: list[str]) -> DataError:
    return DataError(
        f"{source} has no row with a label of {', '.join(labels)}; column {column!r} holds "
        f"{', '.join(repr(label[:40]) for label in found[:12])}",
        hint="Map values with --label-map VALUE=LABEL (data.label_map), or name the column with --label-column.",
    )
