"""Which texts of a stream were seen lately and what came out: nothing is computed twice, and memory stays bounded."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

#: Texts whose values are kept; with their keys a dozen megabytes.
CAPACITY = 65_536


@dataclass(frozen=True)
class Wanted:
    """Distinct texts of one chunk: those to be computed, and where the values of each will be found."""

    new: list[str]
    known: np.ndarray  # (N,) bool
    place: np.ndarray  # (N,) slot of a known text, number among the new ones otherwise
    slots: np.ndarray  # (len(new),) where the values of the new ones go


class Remembered:
    """A table of values (capacity, width) with the least recently seen text giving way.

    `want` of later chunks may be called before `learn` of earlier ones, as long as each is called in the order of the
    chunks: a value is then in its place when it is read, and still there.
    """

    def __init__(self, width: int, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._width = width
        # Keyed by a digest: texts may be long.
        self._slots: OrderedDict[bytes, int] = OrderedDict()
        self._values: np.ndarray | None = None

    def want(self, texts: list[str]) -> Wanted:
        """Split texts that differ into known and new ones."""
        new: list[str] = []
        slots: list[int] = []
        known = np.zeros(len(texts), dtype=bool)
        place = np.zeros(len(texts), dtype=np.int64)
        for at, text in enumerate(texts):
            key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            slot = self._slots.get(key)
            if slot is not None:
                self._slots.move_to_end(key)
                known[at], place[at] = True, slot
                continue
            place[at] = len(new)
            new.append(text)
            slots.append(self._slot_for(key))
        return Wanted(new, known, place, np.array(slots, dtype=np.int64))

    def learn(self, wanted: Wanted, computed: np.ndarray) -> np.ndarray:
        """Values (N, width) of all texts of ``wanted`` from those of its new ones, (len(new), width)."""
        values = self._table()
        # Read before written: a slot may have gone from a known text of this chunk to a new one.
        found = values[np.where(wanted.known, wanted.place, 0)]  # (N, width)
        found[~wanted.known] = computed[wanted.place[~wanted.known]]
        # Of several new texts that had one slot in turn, the last keeps it, as numpy assigns.
        values[wanted.slots] = computed
        return found

    def _slot_for(self, key: bytes) -> int:
        slot = len(self._slots)
        if slot >= self._capacity:
            _, slot = self._slots.popitem(last=False)
        self._slots[key] = slot
        return slot

    def _table(self) -> np.ndarray:
        """As large as what is known, doubled when it is full: one text needs no megabytes."""
        needed = min(self._capacity, max(16, len(self._slots)))
        if self._values is None:
            self._values = np.zeros((needed, self._width), dtype=np.float32)
        elif len(self._values) < needed:
            grown = np.zeros((min(self._capacity, 2 * needed), self._width), dtype=np.float32)
            grown[: len(self._values)] = self._values
            self._values = grown
        return self._values
