"""Made-up texts of which nothing can be known, labelled neutral.

python recipes/mini/unknowable.py COUNT SEED >unknowable.csv
"""

from __future__ import annotations

import csv
import sys

import numpy as np

#: First and last character of scripts that are written in words.
_SCRIPTS = (
    (0x0370, 0x03CE), (0x0430, 0x044F), (0x05D0, 0x05EA), (0x0627, 0x064A), (0x0905, 0x0939), (0x0E01, 0x0E2E),
    (0x3041, 0x3093), (0x30A1, 0x30F3), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x10D0, 0x10F0), (0x0561, 0x0586),
)  # fmt: skip
_PICTOGRAPHS = (0x1F300, 0x1F5FF)
_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxyz", "aeiouyáéíóúäöüàèìòùâêîôûãõåøæ"
_MARKS = list(".,;-–…/|#*+=~^%$&")
_MASKED = ("@user", "http")


def unknowable(count: int, seed: int) -> list[str]:
    """``count`` texts: words of other scripts, syllables of no language, numbers, marks, pictographs, masked handles.

    The same for the same seed.
    """
    random = np.random.default_rng([seed, 0x756E6B])
    kinds = (_other_script, _syllables, _syllables, _numbers, _marks, _pictographs, _masked)
    return [kinds[kind](random) for kind in random.integers(0, len(kinds), count)]


def _words(random: np.random.Generator, most: int = 14) -> range:
    return range(int(random.integers(1, most)))


def _other_script(random: np.random.Generator) -> str:
    first, last = _SCRIPTS[random.integers(len(_SCRIPTS))]
    return " ".join("".join(map(chr, random.integers(first, last + 1, random.integers(2, 8)))) for _ in _words(random))


def _syllables(random: np.random.Generator) -> str:
    def letter(letters: str) -> str:
        return letters[random.integers(len(letters))]

    def word() -> str:
        return "".join(letter(_CONSONANTS) + letter(_VOWELS) for _ in range(int(random.integers(1, 5))))

    return " ".join(word() + (letter(_CONSONANTS) if random.random() < 0.4 else "") for _ in _words(random))


def _numbers(random: np.random.Generator) -> str:
    return " ".join(str(random.integers(10 ** random.integers(1, 7))) for _ in _words(random, 6))


def _marks(random: np.random.Generator) -> str:
    return "".join(random.choice(_MARKS) for _ in _words(random, 8))


def _pictographs(random: np.random.Generator) -> str:
    return "".join(map(chr, random.integers(*_PICTOGRAPHS, int(random.integers(1, 8)))))


def _masked(random: np.random.Generator) -> str:
    return " ".join(random.choice(_MASKED) for _ in _words(random, 4))


def main(count: int, seed: int) -> None:
    """Write a CSV with the columns text and label to stdout."""
    writer = csv.writer(sys.stdout)
    writer.writerow(["text", "label"])
    writer.writerows((text, "neutral") for text in unknowable(count, seed))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
