"""Cleans and hashes texts, in helper processes once there are many and cores to spare; the results are the same."""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.data import split
from sentiment_hybrid.data.clean import from_id
from sentiment_hybrid.data.spool import Sheaf, bind

Int64s = npt.NDArray[np.int64]

#: Rows that are prepared without help; a small file is done before a helper has started.
ALONE = 30_000
_MOST_HELPERS = 2
#: For glibc's malloc: a helper takes as much for each batch, and giving it back in between costs a tenth of its time.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}


@dataclass(frozen=True)
class Recipe:
    """How texts are prepared: by which normaliser, and what decides the split."""

    normalizer: str
    split_seed: int
    split_key_version: int
    #: Share of the test and of the validation split; None where its ``code`` is given.
    sizes: tuple[float, float] | None
    code: int | None = None

    def splits(self, hashes: split.UInt64s) -> Int64s:
        """Split code of each row, (N,)."""
        if self.sizes is None:
            return np.full(len(hashes), self.code, dtype=np.int64)
        return split.assign(hashes, test_size=self.sizes[0], valid_size=self.sizes[1])


@dataclass(frozen=True)
class Prepared:
    """A batch of texts, bound up without those that are empty once cleaned.

    ``digests`` are those of the raw texts (``split.from_digests``), ``identities`` 8 bytes for each cleaned text.
    """

    digests: bytes
    identities: bytes
    sheaf: Sheaf


def prepare(recipe: Recipe, texts: Sequence[str], raws: Sequence[str] | None) -> Prepared:
    """Clean the texts, hash them and the raw ones, which are the same where ``raws`` is None, and bind them up."""
    raws = texts if raws is None else raws
    cleaned = from_id(recipe.normalizer).many(texts)
    digests = split.digests(raws, recipe.split_seed, version=recipe.split_key_version)
    first, second = split.from_digests(digests)
    kept = np.flatnonzero(np.fromiter(map(bool, cleaned), dtype=bool, count=len(cleaned)))
    sheaf = bind(kept, recipe.splits(first), second, cleaned, raws)
    return Prepared(digests, split.identities(cleaned), sheaf)


class Crew:
    """Prepares batches in the order in which they are submitted; a context manager.

    A helper is a process of this Python that reads batches from its standard input and ends with it, so that none
    outlives a killed parent. A helper that fails is done without: the batch is prepared here, and tells its error here.
    """

    def __init__(self, *, helpers: int | None = None, alone: int = ALONE) -> None:
        cores = os.cpu_count() or 1
        # The parent has little to do but read and write: on two cores, two helpers keep both busy.
        self._helpers = (min(_MOST_HELPERS, cores) if cores > 1 else 0) if helpers is None else helpers
        self._alone = alone
        self._threads: ThreadPoolExecutor | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._free: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._rows = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.communicate()

    @property
    def depth(self) -> int:
        """Batches that should be under way before the first result is asked for."""
        return max(1, 2 * len(self._processes))

    def submit(self, recipe: Recipe, texts: Sequence[str], raws: Sequence[str] | None) -> Callable[[], Prepared]:
        """Begin with a batch; the function that comes back waits for its result."""
        if self._threads is None and self._rows >= self._alone and self._helpers > 0:
            self._start()
        self._rows += len(texts)
        if self._threads is None:
            return lambda: prepare(recipe, texts, raws)
        future: Future[Prepared | None] = self._threads.submit(self._ask, recipe, texts, raws)
        return lambda: future.result() or prepare(recipe, texts, raws)

    def _start(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | _KEEP_MEMORY
        if "nltk" in sys.modules:
            environment["NLTK_DATA"] = os.pathsep.join(map(str, sys.modules["nltk"].data.path))
        command = [sys.executable, "-P", "-c", "from sentiment_hybrid.data.crew import serve; serve()"]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        try:
            for _ in range(self._helpers):
                process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, env=environment)
                self._processes.append(process)
                self._free.put(process)
        except OSError:
            self._helpers = len(self._processes)
        if self._processes:
            self._threads = ThreadPoolExecutor(len(self._processes))

    def _ask(self, recipe: Recipe, texts: Sequence[str], raws: Sequence[str] | None) -> Prepared | None:
        """The result of whichever helper is free, or None if it has failed."""
        process = self._free.get()
        result = None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, (astuple(recipe), texts, raws))
            if (answer := _receive(process.stdout)) is not None:  # None: it ended before it answered
                digests, identities, sheaf = answer
                result = Prepared(digests, identities, Sheaf(*sheaf))
        except (OSError, ValueError):
            pass  # it has failed
        finally:
            self._free.put(process)
        return result


def serve() -> None:
    """What a helper does: answer batches until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is ours
    while (task := _receive(sys.stdin.buffer)) is not None:
        recipe, texts, raws = task
        done = prepare(Recipe(*recipe), texts, raws)
        _send(sys.stdout.buffer, (done.digests, done.identities, astuple(done.sheaf)))


def _send(stream: IO[bytes], message: Any) -> None:
    packed = marshal.dumps(message)
    stream.write(len(packed).to_bytes(8, "little"))
    stream.write(packed)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """The next message, or None at the end. Raises ValueError for half a message."""
    head = stream.read(8)
    if not head:
        return None
    size = int.from_bytes(head, "little")
    packed = stream.read(size)
    if len(packed) < size:
        raise ValueError("the message is cut off")
    return marshal.loads(packed)
