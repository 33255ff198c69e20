"""Tokenized texts as flat arrays; rows become steps, steps become padded batches under a token budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

    from sentiment_hybrid.models.classifier import TokenCounts

_BUCKET_STEPS = 100  # steps whose rows are sorted by length together; of tweets, 3 % is padding, and 6 % with 32 steps


class WindowStates(Protocol):
    """Token states of windows that have been computed before."""

    def gather(self, windows: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        """States (W, T, H) of these windows, padded with zeros."""


class MicroBatch(Protocol):
    """Rows for one forward and backward pass, a dataclass with everything that their loss needs."""

    @property
    def rows(self) -> np.ndarray: ...  # noqa: D102


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

    def lengths_of(self, windows: np.ndarray) -> np.ndarray:
        """Tokens of each of these windows."""
        return self.window_offsets[windows + 1] - self.window_offsets[windows]

    def windows_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the windows of these texts, and for each the position of its text in ``rows``."""
        counts = self.text_offsets[rows + 1] - self.text_offsets[rows]
        text_index = np.repeat(np.arange(len(rows)), counts)
        first = np.repeat(self.text_offsets[rows] - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        return first + np.arange(len(text_index)), text_index


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass, with either input_ids (W, T) or states (W, T, H)."""

    attention_mask: torch.Tensor  # (W, T) bool
    text_index: torch.Tensor  # (W,) int64
    num_texts: int
    counts: TokenCounts
    input_ids: torch.Tensor | None = None
    states: torch.Tensor | None = None

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """The classifier's arguments on the device; pinned tensors are copied while it computes."""
        return {
            name: value.to(device, non_blocking=True) if hasattr(value, "to") else value
            for name, value in vars(self).items()
        }


def pinned(batch: Any) -> Any:
    """A batch, or a `MicroBatch`, with its tensors in pinned memory, which is copied to a GPU asynchronously."""
    changed = {
        name: pinned(value) if isinstance(value, Batch) else value.pin_memory()
        for name, value in vars(batch).items()
        if isinstance(value, Batch) or hasattr(value, "pin_memory")
    }
    return replace(batch, **changed)


def plan_epoch(
    lengths: np.ndarray, *, rows_per_step: int, token_budget: int, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """The steps of one epoch: (rows of the step over all processes, micro-batches of this process).

    Every row is in exactly one step; a step has rows_per_step rows, the last one the remainder. Which rows share a step
    depends only on seed and epoch: the token budget and the number of processes subdivide it. If this process has no
    row in a step, its list is empty.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    steps: list[np.ndarray] = []
    for start in range(0, len(order), rows_per_step * _BUCKET_STEPS):
        bucket = order[start : start + rows_per_step * _BUCKET_STEPS]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        steps += [bucket[at : at + rows_per_step] for at in range(0, len(bucket), rows_per_step)]
    for place in np.random.default_rng([seed, epoch, 1]).permutation(len(steps)):
        rows = steps[place]
        yield rows, make_batches(lengths, rows[rank::world], token_budget)


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    """The number of steps of plan_epoch."""
    return -(-rows // rows_per_step)


def make_batches(lengths: np.ndarray, rows: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Divide rows into batches whose padded size is within the budget; a batch of one long row may exceed it."""
    if len(rows) == 0:
        return []
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    batches: list[np.ndarray] = []
    start = 0
    # Rows are sorted, so each is the longest so far of its batch and determines the padded width.
    for at, length in enumerate(lengths[rows].tolist()):
        if at > start and (at - start + 1) * length > token_budget:
            batches.append(rows[start:at])
            start = at
    batches.append(rows[start:])
    return batches


def collate(tokenized: TokenizedTexts, rows: np.ndarray, states: WindowStates | None = None) -> Batch:
    """Pad the windows of these texts to their own longest one, as ids or as stored states."""
    import torch

    from sentiment_hybrid.models.classifier import TokenCounts

    windows, text_index = tokenized.windows_of(rows)
    lengths = tokenized.lengths_of(windows)
    # Sizes of the texts in tokens and in windows, known here without asking the device.
    tokens, nonempty = (np.bincount(text_index, of, minlength=len(rows)).astype(int) for of in (lengths, lengths > 0))
    common: dict[str, Any] = {
        "text_index": torch.from_numpy(text_index),
        "num_texts": len(rows),
        "counts": TokenCounts(*map(torch.from_numpy, (lengths, tokens, nonempty))),
    }
    if states is not None:
        mask = torch.from_numpy(np.arange(int(lengths.max())) < lengths[:, None])  # (W, T)
        return Batch(attention_mask=mask, states=states.gather(windows, lengths), **common)
    ids, mask = map(torch.from_numpy, padded(tokenized, windows))
    return Batch(attention_mask=mask, input_ids=ids, **common)


def padded(tokenized: TokenizedTexts, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of windows, (W, T) int64, padded with the tokenizer's own padding id, and their mask (W, T) bool."""
    lengths = tokenized.lengths_of(windows)
    mask = np.arange(int(lengths.max())) < lengths[:, None]
    ids = np.full(mask.shape, tokenized.pad_id, dtype=np.int64)
    rows, columns = np.nonzero(mask)
    ids[rows, columns] = tokenized.ids[tokenized.window_offsets[windows][rows] + columns]
    return ids, mask


def mixed(bits: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014) for uint64: every bit changes half of the bits."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = bits ^ (bits >> np.uint64(31))
    return result
