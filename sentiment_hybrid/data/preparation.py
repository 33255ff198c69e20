"""Cleans, hashes and packs batches of texts, in helper processes once there are many."""

from __future__ import annotations

import marshal
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import joblib
import numpy as np
import numpy.typing as npt
from joblib.externals.loky import ProcessPoolExecutor

from sentiment_hybrid.data import splits
from sentiment_hybrid.data.normalizers import from_id
from sentiment_hybrid.data.ordering import CLEANED_AWAY, EMPTY, KEEP
from sentiment_hybrid.data.partitions import MARSHAL_VERSION, Piece, pack

T = TypeVar("T")

#: Texts of a small file are prepared before a helper process has started.
ALONE = 30_000
#: This process only reads and writes, so two helpers are needed to use two cores.
_HELPERS = 2
#: Batches that wait for helpers or are prepared: helpers must not idle, but memory must not grow.
_AHEAD = 3 * _HELPERS
#: For glibc's malloc: keep freed memory. Each batch needs as much, and asking for it anew takes a tenth of the time.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}


@dataclass(frozen=True)
class Recipe:
    """How texts are prepared.

    ``normalizer`` is an identifier; ``split_seed`` and ``version`` are those of the split key; ``split`` is the split
    code of all rows, or None where the hash assigns them by ``test_size`` and ``valid_size``.
    """

    normalizer: str
    split_seed: int
    version: int
    test_size: float
    valid_size: float
    split: int | None = None

    def splits(self, split_hashes: splits.UInt64s) -> npt.NDArray[np.uint8]:
        """Split code of each row, (N,)."""
        if self.split is not None:
            return np.full(len(split_hashes), self.split, dtype=np.uint8)
        return splits.assign(split_hashes, test_size=self.test_size, valid_size=self.valid_size)


class Facts(NamedTuple):
    """What N texts are recognised by.

    ``split_hashes`` and ``keys`` are the hashes of the raw texts (`splits.hash_raw`), ``identities`` those of the
    cleaned ones, and ``reasons`` (KEEP, EMPTY or CLEANED_AWAY) mark those that are empty, each (N,).
    """

    splits: npt.NDArray[np.uint8]
    split_hashes: splits.UInt64s
    keys: splits.UInt64s
    identities: npt.NDArray[np.int64]
    reasons: npt.NDArray[np.uint8]


class Prepared(NamedTuple):
    """A batch of texts; ``pieces`` hold the rows of those that are not empty, numbered as in the batch."""

    facts: Facts
    pieces: list[Piece]


def prepare(recipe: Recipe, texts: list[str], raws: list[str]) -> Prepared:
    """Clean and hash texts and raw texts, and pack both by partition; a raw text that equals its text is None."""
    cleaned = from_id(recipe.normalizer).many(texts)
    split_hashes, keys = splits.hash_raw(raws, recipe.split_seed, version=recipe.version)
    codes = recipe.splits(split_hashes)
    reasons = np.full(len(texts), KEEP, dtype=np.uint8)
    for at, text in enumerate(cleaned):
        if not text:
            reasons[at] = CLEANED_AWAY if texts[at].strip() else EMPTY
    others = [None if raw == text else raw for raw, text in zip(raws, cleaned, strict=True)]
    pieces = pack(cleaned, others, rows=np.flatnonzero(reasons == KEEP), splits=codes, keys=keys)
    return Prepared(Facts(codes, split_hashes, keys, splits.identities(cleaned), reasons), pieces)


def _prepare_packed(recipe: Recipe, packed: bytes) -> Prepared:
    texts, raws = marshal.loads(packed)
    return prepare(recipe, texts, texts if raws is None else raws)


class Preparation:
    """Prepares batches in order, in helper processes if there are several cores; a context manager.

    Args:
        alone: number of texts to prepare in this process before helpers start; None: all.
    """

    def __init__(self, *, alone: int | None = ALONE) -> None:
        self._alone = alone if joblib.cpu_count() > 1 else None
        self._texts = 0
        # Only this process handles Ctrl-C; an orphaned helper ends after 10 idle seconds.
        ignore = (signal.SIGINT, signal.SIG_IGN)
        environment = {name: value for name, value in _KEEP_MEMORY.items() if name not in os.environ}
        self._pool = ProcessPoolExecutor(
            _HELPERS, timeout=10, initializer=signal.signal, initargs=ignore, env=environment
        )

    def __enter__(self) -> Preparation:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown(kill_workers=True)

    def each(self, batches: Iterator[tuple[T, list[str], list[str]]], recipe: Recipe) -> Iterator[tuple[T, Prepared]]:
        """For each (item, texts, raw texts), yield the item and its prepared texts."""
        waiting: deque[tuple[T, list[str], list[str], Future[Prepared] | None]] = deque()
        for what, texts, raws in batches:
            waiting.append((what, texts, raws, self._submitted(recipe, texts, raws)))
            if waiting[0][-1] is None or len(waiting) > _AHEAD:
                yield self._finished(recipe, *waiting.popleft())
        while waiting:
            yield self._finished(recipe, *waiting.popleft())

    def _submitted(self, recipe: Recipe, texts: list[str], raws: list[str]) -> Future[Prepared] | None:
        self._texts += len(texts)
        if self._alone is None or self._texts <= self._alone:
            return None
        try:
            # pickle takes three times as long for lists of texts
            packed = marshal.dumps((texts, None if raws is texts else raws), MARSHAL_VERSION)
            return self._pool.submit(_prepare_packed, recipe, packed)
        except BrokenExecutor:
            return None

    def _finished(
        self, recipe: Recipe, what: T, texts: list[str], raws: list[str], work: Future[Prepared] | None
    ) -> tuple[T, Prepared]:
        try:
            return what, work.result() if work else prepare(recipe, texts, raws)
        except BrokenExecutor:  # a helper was killed: this process prepares the batch
            return what, prepare(recipe, texts, raws)
