"""Words that push most to each label, over the explanations of many texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sentiment_hybrid.engine.inference.explanations import Explanation

#: Characters of an example on each side of its word.
_AROUND = 30


@dataclass
class CorpusWord:
    """A word, in any case, in the texts that were explained for one label.

    ``texts`` counts them, ``total`` sums the weights of the word, and ``example`` is where its weight is largest.
    """

    word: str
    texts: int = 0
    total: float = 0.0
    example: str = ""
    largest: float = float("-inf")

    @property
    def mean(self) -> float:
        """Weight per text that has the word."""
        return self.total / self.texts


class Corpus:
    """Sums the words of explanations, one by one; ``texts`` counts those of each label that was explained."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.texts = dict.fromkeys(labels, 0)
        self._words: dict[str, dict[str, CorpusWord]] = {label: {} for label in labels}

    def add(self, one: Explanation) -> None:
        """Count the words of a text; one without a label has none."""
        if one.label is None:
            return
        self.texts[one.label] += 1
        words, seen = self._words[one.label], set()
        for word in one.words:
            key = word.text.casefold()
            entry = words.setdefault(key, CorpusWord(key))
            entry.texts += key not in seen
            seen.add(key)
            entry.total += word.weight
            if word.weight > entry.largest:
                entry.largest, entry.example = word.weight, _example(one.text, word.start, word.end)

    def strongest(self, top: int) -> dict[str, list[CorpusWord]]:
        """Each label that was explained -> its words with the largest total weight, ``top`` at most, none below 0."""
        return {
            label: sorted((word for word in words.values() if word.total > 0.0), key=lambda word: -word.total)[:top]
            for label, words in self._words.items()
            if words
        }


def _example(text: str, start: int, end: int) -> str:
    first, last = max(0, start - _AROUND), min(len(text), end + _AROUND)
    return f"{'...' if first else ''}{text[first:last]}{'...' if last < len(text) else ''}"
