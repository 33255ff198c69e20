"""Class shares and lengths by split, and texts that the windows of a model cut."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from sentiment_hybrid.data.store import Split
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.engine.insight.table import CUT, Finding, Table
from sentiment_hybrid.engine.tokenization import tokenize

_QUANTILES = (0.5, 0.95, 1.0)


def by_split(table: Table, tokens: np.ndarray | None) -> dict[str, Any]:
    """Of each split: rows, rows per class, and median, 95 % quantile and maximum of characters, words and tokens."""
    characters = np.fromiter(map(len, table.texts), dtype=np.int64, count=len(table))
    words = np.fromiter((text.count(" ") + 1 for text in table.texts), dtype=np.int64, count=len(table))
    result: dict[str, Any] = {}
    for number, name in enumerate(get_args(Split)):
        there = table.splits == number
        counts = np.bincount(table.labels[there], minlength=len(table.names)).tolist()
        lengths = {"characters": characters, "words": words} | ({} if tokens is None else {"tokens": tokens})
        result[name] = {
            "rows": int(there.sum()),
            "classes": dict(zip(table.names, counts, strict=True)),
            "lengths": {unit: _quantiles(values[there]) for unit, values in lengths.items()},
        }
    return result


def _quantiles(values: np.ndarray) -> list[int]:
    return [int(np.quantile(values, share, method="higher")) for share in _QUANTILES] if len(values) else [0, 0, 0]


def cut_texts(session: Session, table: Table, tokenized: TokenizedTexts) -> list[Finding]:
    """Chosen rows whose end the model would not read, as they have more windows than ``encoder.max_windows``."""
    windows = np.diff(tokenized.text_offsets)
    full = np.flatnonzero((windows == session.max_windows) & table.chosen)
    # Whether something was cut off shows with room for one window more.
    whole = tokenize(
        [table.texts[place] for place in full.tolist()],
        session.encoder.tokenizer,
        max_length=session.max_length,
        max_windows=session.max_windows + 1,
    )
    cut = full[np.diff(whole.text_offsets) > session.max_windows]
    limit = session.max_windows * session.max_length
    return [Finding(int(place), CUT, 1.0, detail=f"more than {limit:,} tokens") for place in cut]
