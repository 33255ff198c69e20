"""Settings of the whole process, changed for a while only: a program that uses this package keeps its own."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial


@dataclass
class Borrowed:
    """A context manager that may be entered by several threads at once: the first changes, the last restores.

    ``change`` changes the setting, and returns what restores it.
    """

    change: Callable[[], Callable[[], object]]
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _users: int = field(default=0, init=False)
    _restore: Callable[[], object] = field(default=lambda: None, init=False)

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._restore = self.change()
            self._users += 1

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._restore()


#: Longest field of a csv file, in characters; more is an unclosed quote rather than a text.
LONGEST_FIELD = 10_000_000
#: Within, the csv module reads fields of this length; several readers may be open at once.
LONG_FIELDS = Borrowed(lambda: partial(csv.field_size_limit, csv.field_size_limit(LONGEST_FIELD)))
