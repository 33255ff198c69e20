"""Near-duplicates: MinHash (Broder 1997) with banding over character n-grams, verified, in arrays instead of objects.

Each text is the set of its n-grams of letters, digits and emoji. Texts that share all hashes of a band are candidates;
a candidate pair is kept if the Jaccard similarity of the sets is high enough. With 16 bands of 6 hashes, a pair of
similarity 0.8 is found with probability 0.99, one of 0.9 practically always.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sentiment_hybrid.engine.batches import mixed

NGRAM = 4
BANDS, ROWS = 16, 6
#: The least Jaccard similarity of the n-grams of a pair.
SIMILARITY = 0.8
#: Characters of a text that are compared, and those of all texts that are hashed at once.
_MOST = 4000
_AT_ONCE = 2_000_000
_GAP = "\0" * (NGRAM - 1)
#: What does not make texts differ: spaces and punctuation; emoji do.
_SPACES = re.compile(r"[\s!-/:-@\[-`{-~¡¿´‘’“”«»–—…]+")
_REPEATED = re.compile(r"(.)\1{2,}")


@dataclass(frozen=True)
class Duplicates:
    """Verified pairs (P, 2) of places with their similarity (P,), and the group (N,) of every text."""

    pairs: np.ndarray
    similarity: np.ndarray
    groups: np.ndarray


def find_duplicates(texts: Sequence[str], *, progress: Callable[[int], object] = lambda texts: None) -> Duplicates:
    """Near-duplicates among texts; pairs connect the texts of each group, not all pairs of it are given."""
    bands = np.empty((BANDS, len(texts)), dtype=np.uint64)
    start, some, characters = 0, list[str](), 0
    for text in texts:
        some.append(plain(text))
        characters += len(some[-1])
        if characters >= _AT_ONCE or start + len(some) == len(texts):
            bands[:, start : start + len(some)] = _bands(some)
            progress(len(some))
            start, some, characters = start + len(some), [], 0
    groups = _Groups(len(texts))
    found: list[tuple[int, int, float]] = []
    for number in range(BANDS):
        for left, right in _neighbours(bands[number]):
            if groups.root(left) != groups.root(right):
                alike = jaccard(texts[left], texts[right])
                if alike >= SIMILARITY:
                    groups.join(left, right)
                    found.append((min(left, right), max(left, right), alike))
    found.sort()
    pairs = np.array([pair[:2] for pair in found], dtype=np.int64).reshape(-1, 2)
    return Duplicates(pairs, np.array([pair[2] for pair in found]), groups.all())


def plain(text: str) -> str:
    """Letters, digits and emoji in lower case, words separated by one space; a text without any is itself.

    Placeholders of handles and links are left out: two texts are not alike because both end in a link. Of long texts,
    only the beginning is compared.
    """
    words = _SPACES.sub(" ", _REPEATED.sub(r"\1\1", text[:_MOST].lower().replace("@user", " "))).split()
    return " ".join(word for word in words if word != "http") or text[:_MOST] or " "


def jaccard(left: str, right: str) -> float:
    """Similarity of two texts: n-grams in common, of all that either has."""
    first, second = ngrams(left), ngrams(right)
    return len(first & second) / len(first | second)


def ngrams(text: str) -> set[str]:
    """Character n-grams of a text as it is compared; the last ones are padded."""
    padded = plain(text) + _GAP
    return {padded[at : at + NGRAM] for at in range(len(padded) - NGRAM + 1)}


def _bands(texts: Sequence[str]) -> np.ndarray:
    """(BANDS, N) uint64: what the hashes of a text in each band are combined to."""
    codes = np.frombuffer((_GAP.join(texts) + _GAP).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    inside = np.arange(int(lengths.sum())) + np.repeat(np.arange(len(texts)) * (NGRAM - 1), lengths)
    grams = np.zeros(len(inside), dtype=np.uint64)
    for offset in range(NGRAM):
        grams = mixed(grams * np.uint64(0x100000001B3) + codes[inside + offset])
    hashes = (grams >> np.uint64(32)).astype(np.uint32)
    random = np.random.default_rng(0)
    factors, shifts = random.integers(0, 2**32, size=(2, BANDS * ROWS), dtype=np.uint32)
    factors |= np.uint32(1)
    result = np.zeros((BANDS, len(texts)), dtype=np.uint64)
    for number, (factor, shift) in enumerate(zip(factors, shifts, strict=True)):
        least = np.minimum.reduceat(hashes * factor + shift, starts)
        band = number // ROWS
        result[band] = mixed(result[band] * np.uint64(0x9E3779B97F4A7C15) + least)
    return result


def _neighbours(keys: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of texts with the same key, each with the one before it: a large bucket costs no more than its size."""
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    return list(zip(order[same].tolist(), order[same + 1].tolist(), strict=True))


class _Groups:
    """Disjoint sets of 0 to N - 1."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def root(self, item: int) -> int:
        parents = self._parents
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    def join(self, left: int, right: int) -> None:
        first, second = sorted((self.root(left), self.root(right)))
        self._parents[second] = first

    def all(self) -> np.ndarray:
        """The smallest member of each one's set, (N,)."""
        return np.array([self.root(item) for item in range(len(self._parents))], dtype=np.int64)
