"""Texts become flat arrays of windows; rows become steps, steps become padded batches under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from sentiment_hybrid.engine.features import StoredStates

_CHUNK = 4096  # texts handed to the tokenizer at once: enough for its threads, little memory
_BUCKET_STEPS = 32  # steps whose rows are sorted by length together: padding falls, and steps stay random


@dataclass(frozen=True)
class TokenizedTexts:
    """N texts as W windows in flat arrays: no padding, no lists.

    ids (tokens,) int32 with special tokens; window_offsets (W + 1,) into ids; text_offsets (N + 1,) into the windows.
    """

    ids: np.ndarray
    window_offsets: np.ndarray
    text_offsets: np.ndarray
    pad_id: int
    truncated: int

    def __len__(self) -> int:
        return len(self.text_offsets) - 1

    @property
    def window_lengths(self) -> np.ndarray:
        """Tokens of each window, (W,)."""
        return np.diff(self.window_offsets)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, all its windows together, (N,)."""
        return np.diff(self.window_offsets[self.text_offsets])

    def windows_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Window numbers of these texts in order, and for each the place of its text in ``rows``."""
        counts = self.text_offsets[rows + 1] - self.text_offsets[rows]
        text_index = np.repeat(np.arange(len(rows)), counts)
        first = np.repeat(self.text_offsets[rows] - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        return first + np.arange(len(text_index)), text_index


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes; either input_ids (W, T) or states (W, T, H) is there."""

    attention_mask: torch.Tensor  # (W, T) bool
    text_index: torch.Tensor  # (W,) int64
    num_texts: int
    input_ids: torch.Tensor | None = None
    states: torch.Tensor | None = None

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """The classifier's arguments, on the device."""
        return {
            "attention_mask": self.attention_mask.to(device),
            "text_index": self.text_index.to(device),
            "num_texts": self.num_texts,
            "input_ids": None if self.input_ids is None else self.input_ids.to(device),
            "states": None if self.states is None else self.states.to(device),
        }


def tokenize(texts: Sequence[str], tokenizer: Any, *, max_length: int, max_windows: int) -> TokenizedTexts:
    """Tokenise once: a text longer than max_length becomes several windows of nearly equal length.

    What lies beyond ``max_windows`` windows is cut; ``truncated`` counts the texts to which that happened.
    """
    prefix, suffix = _special_tokens(tokenizer)
    room = max_length - len(prefix) - len(suffix)
    pieces: list[np.ndarray] = []
    window_lengths: list[int] = []
    window_counts: list[int] = []
    truncated = 0
    for start in range(0, len(texts), _CHUNK):
        encoded = tokenizer(
            list(texts[start : start + _CHUNK]),
            add_special_tokens=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        for ids in encoded:
            if len(ids) > room * max_windows:
                truncated += 1
                ids = ids[: room * max_windows]
            windows = _cut(ids, room)
            window_counts.append(len(windows))
            for window in windows:
                whole = prefix + window + suffix
                window_lengths.append(len(whole))
                pieces.append(np.asarray(whole, dtype=np.int32))
    return TokenizedTexts(
        ids=np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int32),
        window_offsets=_offsets(window_lengths),
        text_offsets=_offsets(window_counts),
        pad_id=int(tokenizer.pad_token_id),
        truncated=truncated,
    )


def plan_epoch(
    lengths: np.ndarray, *, rows_per_step: int, token_budget: int, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Steps of one epoch: (all rows of the step over all processes, this process's micro-batches).

    Every row stands in exactly one step; a step has rows_per_step rows (the last one what is left). Which rows
    share a step depends on seed and epoch alone: the token budget and the number of processes only subdivide it.
    A process that would have no row in a step gets an empty list.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    steps: list[np.ndarray] = []
    for start in range(0, len(order), rows_per_step * _BUCKET_STEPS):
        bucket = order[start : start + rows_per_step * _BUCKET_STEPS]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        steps += [bucket[at : at + rows_per_step] for at in range(0, len(bucket), rows_per_step)]
    for place in np.random.default_rng([seed, epoch, 1]).permutation(len(steps)):
        rows = steps[place]
        yield rows, pack(lengths, rows[rank::world], token_budget)


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    """How many steps plan_epoch yields."""
    return -(-rows // rows_per_step)


def pack(lengths: np.ndarray, rows: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Cut rows into batches whose padded size stays under the budget; one long row may exceed it alone."""
    if len(rows) == 0:
        return []
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    batches: list[np.ndarray] = []
    start = 0
    for at, row in enumerate(rows):
        # Rows are sorted, so this row is the longest of the batch so far and sets its padded width.
        if at > start and (at - start + 1) * int(lengths[row]) > token_budget:
            batches.append(rows[start:at])
            start = at
    batches.append(rows[start:])
    return batches


def collate(tokenized: TokenizedTexts, rows: np.ndarray, states: StoredStates | None = None) -> Batch:
    """Pad the windows of these texts to their own longest one, as ids or as stored states."""
    import torch

    windows, text_index = tokenized.windows_of(rows)
    lengths = tokenized.window_lengths[windows]
    mask = np.arange(int(lengths.max()))[None, :] < lengths[:, None]  # (W, T)
    common: dict[str, Any] = {
        "attention_mask": torch.from_numpy(mask),
        "text_index": torch.from_numpy(text_index),
        "num_texts": len(rows),
    }
    if states is not None:
        return Batch(states=states.gather(windows, lengths), **common)
    return Batch(input_ids=torch.from_numpy(padded_ids(tokenized, windows, mask)), **common)


def padded_ids(tokenized: TokenizedTexts, windows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Token ids of windows as (W, T) int64, padded with the tokenizer's own padding id."""
    starts = tokenized.window_offsets[windows]
    ids = np.full(mask.shape, tokenized.pad_id, dtype=np.int64)
    rows, columns = np.nonzero(mask)
    ids[rows, columns] = tokenized.ids[starts[rows] + columns]
    return ids


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after one sequence."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def _cut(ids: list[int], room: int) -> list[list[int]]:
    """Nearly equal windows: a rest of three tokens would weigh as much as a full window."""
    count = max(1, -(-len(ids) // room))
    size, longer = divmod(len(ids), count)
    windows, start = [], 0
    for number in range(count):
        end = start + size + (number < longer)
        windows.append(ids[start:end])
        start = end
    return windows


def _offsets(counts: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(np.asarray(counts, dtype=np.int64)))).astype(np.int64)
