"""Memory: what was freed is kept for the next step; where it runs out, the same work is done in smaller batches."""

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

from sentiment_hybrid.engine.batches import pack
from sentiment_hybrid.errors import TrainingError

T = TypeVar("T")

#: What torch, cuDNN and the C++ library say where their errors have no class of their own; lower case.
_SAID = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
)


# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_SAID_BY_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


@functools.cache
def keep_freed() -> bool:
    """Let the C library keep what is freed instead of giving it back to the system; returns whether it does.

    The gradients, moments and activations of a step are as large as those of the step before. Given back and asked for
    again, each page is cleared by the system anew: an eighth of the time of training all layers on a CPU.
    """
    library = _c_library()
    if library is None or any(os.environ.get(name) for name in _SAID_BY_THE_USER):
        return False
    most = 2**31 - 1
    # Some versions refuse so high a threshold for blocks of their own, but not that there be none.
    own_blocks = library.mallopt(_M_MMAP_THRESHOLD, 2**30) or library.mallopt(_M_MMAP_MAX, 0)
    return bool(library.mallopt(_M_TRIM_THRESHOLD, most) and own_blocks)


def _c_library() -> ctypes.CDLL | None:
    """glibc, where the program runs on it."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def ran_out(error: BaseException) -> bool:
    """Whether this failure says that the device or the machine has no memory left."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


def smaller(budget: int, batches: Sequence[np.ndarray], lengths: np.ndarray) -> int:
    """The next budget to try after one of these batches did not fit: half of what the largest really took.

    0 where each of them is a single text, which no budget makes smaller.
    """
    sizes = [padded_size(lengths, rows) for rows in batches if len(rows) > 1]
    return max(1, min(budget, max(sizes)) // 2) if sizes else 0


def padded_size(lengths: np.ndarray, rows: np.ndarray) -> int:
    """Tokens of these rows as one batch, its padding included."""
    return len(rows) * int(lengths[rows].max()) if len(rows) else 0


def exhausted(what: str) -> TrainingError:
    """The error where less per batch does not help."""
    return TrainingError(
        f"out of memory: {what}",
        hint="Lower encoder.max_length or encoder.max_windows, the head's hidden size, or encoder.trainable_layers; "
        "or choose a smaller encoder.",
    )


def release(device: torch.device) -> None:
    """Give back what failed work has left."""
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
    lowered: Callable[[int], object] = lambda budget: None,
) -> Iterator[tuple[np.ndarray, T]]:
    """Each batch of rows and what ``work`` makes of it; one that finds no memory is done again in smaller ones.

    Batches that follow stay under the lower budget, of which ``lowered`` hears. The order of rows is kept within a
    batch that was cut, so that concatenated results fit concatenated rows.

    Raises:
        TrainingError: a single text does not fit.
    """
    waiting = list(reversed(batches))
    budget = token_budget
    while waiting:
        rows = waiting.pop()
        if budget < token_budget and len(rows) > 1 and padded_size(lengths, rows) > budget:
            waiting.extend(reversed(pack(lengths, rows, budget)))
            continue
        try:
            made = work(rows)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        else:
            yield rows, made
            continue
        # Outside of the except clause: the error holds on to the frames, and so to the memory, of what failed.
        release(device)
        budget = smaller(budget, [rows], lengths)
        if budget == 0:
            raise exhausted(f"a single text of {int(lengths[rows].max()):,} tokens does not fit")
        lowered(budget)
        waiting.append(rows)
