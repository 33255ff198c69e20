"""A pipe read line by line as lines arrive; a reader can ask whether another one is available."""

from __future__ import annotations

import io
import select
from typing import Any, BinaryIO

_BLOCK = 1 << 16


class LiveStream(io.RawIOBase):
    """The bytes of a pipe, at most one line per read, so that a decoder buffers no further line.

    On Windows, and for a stream in memory, a line always counts as available.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: Any = stream
        self._block, self._at = b"", 0
        self._fetched = 0
        self._ended = False
        try:
            self._number: int | None = stream.fileno()
            select.select([self._number], [], [], 0)
        except (OSError, ValueError):
            self._number = None

    def readable(self) -> bool:
        """Always true."""
        return True

    def fileno(self) -> int:
        """Of the stream: where that is a file, its size says how many rows there are."""
        return int(self._stream.fileno())

    def tell(self) -> int:
        """Bytes that were taken from the stream."""
        return self._fetched

    def peek(self, size: int) -> bytes:
        """The next bytes without reading them: at least one unless the stream has ended."""
        if self._at == len(self._block):
            self._fetch()
        return self._block[self._at :][:size]

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes; put those up to the next line end into the buffer, and return their number."""
        if self._at == len(self._block) and not self._ended:
            self._fetch()
        most = min(len(self._block), self._at + len(buffer))
        end = self._block.find(b"\n", self._at, most) + 1 or most
        count = end - self._at
        buffer[:count] = self._block[self._at : end]
        self._at = end
        return count

    def ready(self, seconds: float = 0.0) -> bool:
        """Whether a line or the end is available, or becomes available within this time."""
        if self._number is None or self._ended or self._block.find(b"\n", self._at) >= 0:
            return True
        if not select.select([self._number], [], [], seconds)[0]:
            return False
        self._fetch()
        return self._ended or self._block.find(b"\n", self._at) >= 0

    def _fetch(self) -> None:
        block = self._stream.read1(_BLOCK)
        self._ended = not block
        self._fetched += len(block)
        self._block, self._at = self._block[self._at :] + block, 0
