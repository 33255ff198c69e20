"""Reads texts without labels, cleans and deduplicates them, and holds out a fraction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data import splits
from sentiment_hybrid.data.columns import find_text
from sentiment_hybrid.data.normalizers import Normalizer
from sentiment_hybrid.data.sources import Source, read_with_progress
from sentiment_hybrid.errors import DataError


@dataclass(frozen=True)
class Unlabelled:
    """Texts to train on, cleaned and raw, and held-out texts, in an order that does not depend on the order of rows."""

    train: list[str]
    raw: list[str]
    valid: list[str]
    dropped: dict[str, int]


def read_unlabelled(source: Source, data: Data, *, normalizer: Normalizer, valid_size: float) -> Unlabelled:
    """Read every row's text; empty texts, and repeats by split key, are dropped and counted.

    Raises:
        SourceError, ColumnError: the source cannot be read.
        DataError: no text is left.
    """
    column = find_text(source.columns, data.text_column, source=source.name)
    texts: list[str] = []
    kept_raws: list[str] = []
    hashes: list[tuple[np.ndarray, np.ndarray]] = []
    dropped: Counter[str] = Counter()
    with read_with_progress(source, [column]) as batches:
        for batch in batches:
            dropped.update(batch.skipped)
            raws = [text or "" for text in batch.columns[column]]
            cleaned = normalizer.many(raws)
            kept = [place for place, text in enumerate(cleaned) if text]
            dropped["empty text"] += len(raws) - len(kept)
            texts += [cleaned[place] for place in kept]
            kept_raws += (hashed := [raws[place] for place in kept])
            hashes.append(splits.hash_raw(hashed, data.split_seed, version=data.split_key_version))
    if not texts:
        raise DataError(f"{source.name} has no texts", hint="Is it the right text column (--text-column)?")
    split_hashes, order_hashes = map(np.concatenate, zip(*hashes, strict=True))
    _, distinct = np.unique(order_hashes, return_index=True)
    dropped["repeat"] += len(texts) - len(distinct)
    held_out = splits.assign(split_hashes[distinct], test_size=0.0, valid_size=valid_size) == splits.VALID
    train, valid = distinct[~held_out], distinct[held_out]
    return Unlabelled(
        train=[texts[row] for row in train],
        raw=[kept_raws[row] for row in train],
        valid=[texts[row] for row in valid],
        dropped={reason: count for reason, count in dropped.items() if count},
    )
