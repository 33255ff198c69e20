"""Memory: freed blocks are reused by the next step; when memory runs out, the same work is done in smaller batches."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from sentiment_hybrid import distributed
from sentiment_hybrid.engine.batches import MicroBatch, make_batches
from sentiment_hybrid.errors import TrainingError

T = TypeVar("T")

#: Messages of torch, cuDNN and the C++ library whose errors have no class of their own; lower case.
_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
)

# Constants of <malloc.h>, and the variables by which users set the same options.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_USER_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


@functools.cache
def keep_freed() -> bool:
    """Make the C library keep freed memory instead of returning it to the system; returns whether it does.

    Gradients, moments and activations have the same size in every step. Returning their pages to the system, which
    clears them before reuse, costs an eighth of the time of training all layers on a CPU.
    """
    library = _c_library()
    if library is None or _user_decides():
        return False
    most = 2**31 - 1
    # Some versions reject such a high mmap threshold, but accept that mmap is not used at all.
    no_mmap = library.mallopt(_M_MMAP_THRESHOLD, 2**30) or library.mallopt(_M_MMAP_MAX, 0)
    return bool(library.mallopt(_M_TRIM_THRESHOLD, most) and no_mmap)


def return_freed() -> None:
    """Return freed memory to the system, unless the user has set how the C library is to keep it; takes milliseconds.

    glibc returns only what is free at the end of its heap. Batches of changing sizes leave gaps below it, which grow
    slowly over tens of thousands of them.
    """
    library = _c_library()
    if library is not None and not _user_decides():
        library.malloc_trim(0)


def _user_decides() -> bool:
    return any(os.environ.get(name) for name in _USER_SETTINGS)


@functools.cache
def _c_library() -> ctypes.CDLL | None:
    """glibc, or None on other systems."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def ran_out(error: BaseException) -> bool:
    """Whether the error means that the device or the machine is out of memory."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MESSAGES)


def smaller(budget: int, batches: Sequence[np.ndarray], lengths: np.ndarray) -> int:
    """The next budget to try after one of these batches did not fit: half the padded size of the largest.

    0 if each of them is a single text, which cannot be split.
    """
    sizes = [padded_size(lengths, rows) for rows in batches if len(rows) > 1]
    return max(1, min(budget, max(sizes)) // 2) if sizes else 0


def padded_size(lengths: np.ndarray, rows: np.ndarray) -> int:
    """Number of tokens of these rows as one batch, padding included."""
    return len(rows) * int(lengths[rows].max()) if len(rows) else 0


def out_of_memory(what: str) -> TrainingError:
    """The error if smaller batches do not help."""
    return TrainingError(
        f"out of memory: {what}",
        hint="Lower encoder.max_length or encoder.max_windows, the head's hidden size, or encoder.trainable_layers; "
        "or choose a smaller encoder.",
    )


def release(device: torch.device) -> None:
    """Free the memory of failed work."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif (library := _c_library()) is not None:
        library.malloc_trim(0)


def in_batches(
    batches: Sequence[np.ndarray],
    lengths: np.ndarray,
    work: Callable[[np.ndarray], T],
    *,
    token_budget: int,
    device: torch.device,
) -> Iterator[tuple[np.ndarray, T]]:
    """Yield each batch of rows with the result of ``work``; a batch that runs out of memory is split and repeated.

    The batches after it stay under the reduced budget. Splitting keeps the order of the rows, so the concatenated
    results match the concatenated rows.

    Raises:
        TrainingError: a single text does not fit.
    """
    waiting = list(reversed(batches))
    budget = token_budget
    while waiting:
        rows = waiting.pop()
        if budget < token_budget and len(rows) > 1 and padded_size(lengths, rows) > budget:
            waiting.extend(reversed(make_batches(lengths, rows, budget)))
            continue
        try:
            made = work(rows)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        else:
            yield rows, made
            continue
        # Not inside the except clause: the exception keeps the failed frames alive, and with them their memory.
        release(device)
        budget = smaller(budget, [rows], lengths)
        if budget == 0:
            raise out_of_memory(f"a single text of {int(lengths[rows].max()):,} tokens does not fit")
        waiting.append(rows)


class TokenBudget:
    """The token budget of a training: halved when a step runs out of memory, on all processes alike.

    Args:
        lengths: number of tokens of each text, (N,).
    """

    def __init__(self, tokens: int, lengths: np.ndarray, *, device: torch.device, processes: int) -> None:
        self.tokens, self.lengths = tokens, lengths
        self.device, self.processes = device, processes
        self._proven = 0  # the largest micro-batch that has fitted on every one of several processes

    def split(self, own: list[MicroBatch], make: Callable[[np.ndarray], MicroBatch]) -> list[MicroBatch]:
        """The micro-batches as they are, or smaller ones if the budget has been reduced since they were made."""
        if all(len(part.rows) == 1 or padded_size(self.lengths, part.rows) <= self.tokens for part in own):
            return own
        rows = np.concatenate([part.rows for part in own])
        return [make(part) for part in make_batches(self.lengths, rows, self.tokens)]

    def fits(self, rows: np.ndarray, rehearse: Callable[[], bool], *, first: bool) -> bool:
        """Whether each of several processes has memory for its share of these rows.

        A process that failed alone would leave the others waiting for its gradients. So a step with a larger
        micro-batch than any before it, which is rare, is first rehearsed without communication.
        """
        if self.processes == 1:
            return True
        largest = max(
            padded_size(self.lengths, part)
            for number in range(self.processes)
            for part in make_batches(self.lengths, rows[number :: self.processes], self.tokens)
        )
        if largest <= self._proven:
            return True
        failed = distributed.any_process(not rehearse())
        # The first optimizer step allocates the moments, so a rehearsal before it proves nothing for later steps.
        self._proven = 0 if failed or first else largest
        return not failed

    def lower(self, own: Sequence[MicroBatch]) -> tuple[int, int]:
        """Free memory and halve the budget, on all processes alike; returns it before and after.

        Raises:
            TrainingError: no micro-batch can be split further.
        """
        release(self.device)
        before = self.tokens
        wanted = distributed.gather(smaller(before, [part.rows for part in own], self.lengths))
        if not any(wanted):
            raise out_of_memory("a single text does not fit")
        self.tokens = min(budget for budget in wanted if budget)
        return before, self.tokens
