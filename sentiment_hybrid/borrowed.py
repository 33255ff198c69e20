"""Settings of the whole process, changed for a while only: a program that uses this package keeps its own."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType


class Borrowed:
    """A context manager that may be entered by several threads at once: the first changes, the last restores.

    Args:
        change: changes the setting, and returns what restores it.
    """

    def __init__(self, change: Callable[[], Callable[[], object]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._users = 0
        self._restore: Callable[[], object] = lambda: None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._restore = self._change()
            self._users += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._restore()


#: Longest field of a csv file, in characters; more is an unclosed quote rather than a text.
LONGEST_FIELD = 10_000_000
#: Within, the csv module reads fields of this length; several readers may be open at once.
LONG_FIELDS = Borrowed(lambda: partial(csv.field_size_limit, csv.field_size_limit(LONGEST_FIELD)))
