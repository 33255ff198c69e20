"""The training texts of a model, as a Bloom filter over hashes of split keys, with 16 bits per text."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sentiment_hybrid.data.splits import KNOWN_VERSIONS, UInt64s, hash_raw
from sentiment_hybrid.errors import DataError
from sentiment_hybrid.files import atomic_file

#: Bits per text, and hash functions (Bloom 1970): a false-positive rate of 0.05 %.
_BITS, _HASHES = 16, 11


@dataclass(frozen=True)
class SeenTexts:
    """A set of texts, compared by split key, without false negatives and with few false positives.

    bits: (bytes,) uint8; count: number of texts; split_seed, split_key_version: of the hashed keys.
    """

    bits: np.ndarray
    count: int
    split_seed: int
    split_key_version: int

    @classmethod
    def of(cls, keys: UInt64s, *, split_seed: int, split_key_version: int) -> SeenTexts:
        """From order hashes of split keys (N,): see `Store.key_hashes` and `hash_raw`."""
        keys = np.unique(keys)
        # In a smaller filter, the hashes of a text collide too often.
        bits = np.zeros(max(1024, (_BITS * len(keys) + 7) // 8), dtype=np.uint8)
        for places in _places(keys, 8 * len(bits)):
            np.bitwise_or.at(bits, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))
        return cls(bits, len(keys), split_seed, split_key_version)

    def contains(self, raws: list[str]) -> np.ndarray:
        """Whether each raw text was seen, (N,) bool; `chance` is the false-positive rate."""
        found = np.ones(len(raws), dtype=bool)
        _, keys = hash_raw(raws, self.split_seed, version=self.split_key_version)
        for places in _places(keys, 8 * len(self.bits)):
            found &= (self.bits[places >> 3] >> (places & 7)) & 1 == 1
        return found

    @property
    def chance(self) -> float:
        """The false-positive rate."""
        return (1.0 - math.exp(-_HASHES * self.count / (8 * len(self.bits)))) ** _HASHES

    def save(self, path: Path) -> None:
        """Write one file. Raises OSError."""
        facts = np.array([self.split_key_version, _HASHES, self.count, self.split_seed], dtype=np.int64)
        with atomic_file(path) as aside, aside.open("wb") as file:
            np.savez(file, bits=self.bits, facts=facts)

    @classmethod
    def load(cls, path: Path) -> SeenTexts:
        """Read a file written by `save`.

        Raises:
            DataError: it is missing or damaged, or has an unknown version of the split key.
        """
        try:
            _check_size(path)
            with np.load(path, allow_pickle=False) as content:
                bits, (version, hashes, count, split_seed) = content["bits"], content["facts"].tolist()
            if bits.dtype != np.uint8 or bits.ndim != 1 or not bits.size or not 0 <= count <= 8 * bits.size:
                raise ValueError(f"{bits.size} numbers of type {bits.dtype} for {count} texts are not a filter")
        # Errors of zipfile and numpy for damaged files have no common base class.
        except Exception as error:
            raise DataError(f"{path} cannot be read: {error}", hint="Install, train or pack it again.") from error
        if version not in KNOWN_VERSIONS or hashes != _HASHES:
            raise DataError(f"{path} was made by another version of senthy", hint="Install, train or pack it again.")
        return cls(bits, count, split_seed, version)


def _check_size(path: Path) -> None:
    """Raise ValueError for a decompression bomb: a filter's bits hardly compress."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > 8 * path.stat().st_size:
        raise ValueError(f"it unpacks to {unpacked:,} bytes, from {path.stat().st_size:,}")


def _places(keys: UInt64s, size: int) -> list[np.ndarray]:
    """Bit numbers of each key, one array for each hash: double hashing (Kirsch and Mitzenmacher 2006)."""
    first, second = keys & np.uint64(0xFFFFFFFF), (keys >> np.uint64(32)) | np.uint64(1)
    return [((first + np.uint64(turn) * second) % np.uint64(size)).astype(np.int64) for turn in range(_HASHES)]
