"""Hashes raw texts in a process of its own while this one cleans them, once there are many."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future
from types import TracebackType

import joblib
from joblib.externals.loky import ProcessPoolExecutor

from sentiment_hybrid.data import splits as split

#: A small file is done before a helper process has started.
ALONE = 30_000


class Hasher:
    """Hashes texts as ``split.hash_raw`` does, in a helper process if there are cores to spare; a context manager.

    Texts whose helper has died are hashed here.

    Args:
        split_seed: salt of the hashes.
        version: of the split key.
        alone: number of texts that are hashed without help; None is all.
    """

    def __init__(self, split_seed: int, *, version: int, alone: int | None = ALONE) -> None:
        self._seed, self._version = split_seed, version
        self._alone = alone if joblib.cpu_count() > 1 else None
        self._texts = 0
        # Ctrl-C is for this process; without it, the helper ends once it has waited for 10 seconds.
        ignore = (signal.SIGINT, signal.SIG_IGN)
        self._pool = ProcessPoolExecutor(1, timeout=10, initializer=signal.signal, initargs=ignore)

    def __enter__(self) -> Hasher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(kill_workers=True)

    def start(self, raws: Sequence[str]) -> Callable[[], tuple[split.UInt64s, split.UInt64s]]:
        """Start hashing; the function that is returned waits for the split hashes (N,) and order hashes (N,)."""
        future: Future[bytes] | None = None
        if self._alone is not None and self._texts >= self._alone:
            with contextlib.suppress(BrokenExecutor):
                future = self._pool.submit(split.digests, raws, self._seed, version=self._version)
        self._texts += len(raws)

        def result() -> tuple[split.UInt64s, split.UInt64s]:
            with contextlib.suppress(BrokenExecutor):
                if future is not None:
                    return split.from_digests(future.result())
            return split.hash_raw(raws, self._seed, version=self._version)

        return result
