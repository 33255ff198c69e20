"""Texts become flat arrays of windows; a long text becomes several windows of nearly equal length."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.models.tokenizer import special_tokens

_CHUNK = 4096  # texts handed to the tokenizer at once: enough for its threads, little memory
_CHUNK_CHARACTERS = 2_000_000  # the most characters of them: a token takes a hundred bytes there


def tokenize(
    texts: Sequence[str],
    tokenizer: Any,
    *,
    max_length: int,
    max_windows: int,
    progress: Callable[[int], object] = lambda texts: None,
) -> TokenizedTexts:
    """Tokenise texts; one longer than max_length becomes several windows of nearly equal length.

    Texts are truncated after ``max_windows`` windows; ``truncated`` counts these texts.
    """
    prefix, suffix = special_tokens(tokenizer)
    without = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    nothing = np.zeros(1, dtype=np.int64)
    chunks = [(np.empty(0, dtype=np.int32), nothing, nothing, 0)]
    for start, end in itertools.pairwise(_chunk_bounds(texts)):
        found = tokenizer(list(texts[start:end]), add_special_tokens=False, truncation=False, **without)
        chunks.append(_windows(found["input_ids"], prefix, suffix, max_length, max_windows))
        progress(end - start)
    ids, window_lengths, window_counts, cut = zip(*chunks, strict=True)
    return TokenizedTexts(
        ids=np.concatenate(ids),
        window_offsets=np.cumsum(np.concatenate(window_lengths)),
        text_offsets=np.cumsum(np.concatenate(window_counts)),
        pad_id=int(tokenizer.pad_token_id),
        truncated=sum(cut),
    )


def _chunk_bounds(texts: Sequence[str]) -> Iterator[int]:
    """The bounds of chunks of `_CHUNK` texts, or of fewer texts with many characters."""
    characters = at = first = 0
    for at, text in enumerate(texts):
        if at == first or at - first == _CHUNK or characters + len(text) > _CHUNK_CHARACTERS:
            yield at
            first, characters = at, 0
        characters += len(text)
    if texts:
        yield at + 1


def _windows(
    encoded: list[list[int]], prefix: list[int], suffix: list[int], max_length: int, max_windows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Windows of some texts: concatenated ids, tokens per window, windows per text, number of truncated texts.

    The windows of a text are nearly equal, because a last one of three tokens would weigh as much as a full one.
    """
    room = max_length - len(prefix) - len(suffix)
    found = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    kept = np.minimum(found, room * max_windows)
    ids = np.fromiter(itertools.chain.from_iterable(encoded), dtype=np.int32, count=int(found.sum()))
    if (kept < found).any():
        ids = ids[_counted_up(found) < np.repeat(kept, found)]
    counts = np.maximum(1, -(-kept // room))
    size, longer = np.divmod(np.repeat(kept, counts), np.repeat(counts, counts))
    lengths = size + (_counted_up(counts) < longer)  # (W,) without special tokens
    whole = lengths + len(prefix) + len(suffix)
    placed = np.empty(int(whole.sum()), dtype=np.int32)
    starts = np.cumsum(whole) - whole
    placed[np.repeat(starts + len(prefix), lengths) + _counted_up(lengths)] = ids
    for at, token in enumerate(prefix):
        placed[starts + at] = token
    for at, token in enumerate(suffix):
        placed[starts + whole - len(suffix) + at] = token
    return placed, whole, counts, int((kept < found).sum())


def _counted_up(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... up to each count, concatenated."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
