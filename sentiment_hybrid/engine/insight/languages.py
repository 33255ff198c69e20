"""Texts in another language than most: words that the data itself shows to be common, then py3langid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sentiment_hybrid.engine.insight.table import LANGUAGE, Finding

#: Probability of another language from which on a text is reported.
CERTAIN = 0.95
#: A text with fewer letters says too little.
_LETTERS = 20
_SAMPLE = 2000
#: A text in which so large a share of the words is among the most common ones of the data is in their language.
_COMMON = 200
_TEXTS = 3
_SHARE = 0.2
_NO_WORDS = re.compile(r"@\w+|#\w+|\bhttps?\S*|[\W\d_]+")
#: Characters that are read of a text.
_READ = 1000
_STEP = 10_000


def find_other_languages(
    texts: Sequence[str], rows: np.ndarray, *, seed: int = 0, progress: Callable[[int], object] = lambda texts: None
) -> tuple[str, list[Finding]]:
    """The language of most texts (ISO 639-1; empty if there is none), and texts in others.

    Args:
        rows: (K,) those to look at.
        seed: of the sample that determines the main language.
    """
    identify = _identifier()
    sample = np.random.default_rng(seed).permutation(rows)[:_SAMPLE]
    words_of_sample = [_words(texts[at]) for at in sample]
    languages = Counter(identify(" ".join(words))[0] for words in words_of_sample if _long(words))
    if not languages:
        return "", []
    main, times = languages.most_common(1)[0]
    if times < languages.total() / 2:
        return "", []
    texts_with = Counter(word for words in words_of_sample for word in {one.lower() for one in words})
    common = {word for word, number in texts_with.most_common(_COMMON) if number >= _TEXTS}
    found = []
    for done, at in enumerate(rows.tolist()):
        if done and done % _STEP == 0:
            progress(_STEP)
        words = _words(texts[at])
        if not _long(words) or sum(word.lower() in common for word in words) >= _SHARE * len(words):
            continue
        language, certainty = identify(" ".join(words))
        if language != main and certainty >= CERTAIN:
            found.append(Finding(at, LANGUAGE, float(certainty), detail=str(language)))
    return str(main), found


def _words(text: str) -> list[str]:
    return _NO_WORDS.sub(" ", text[:_READ]).split()


def _long(words: Sequence[str]) -> bool:
    return sum(map(len, words)) >= _LETTERS or (bool(words) and not "".join(words).isascii() and _wide(words))


def _wide(words: Sequence[str]) -> bool:
    """Scripts with a sign per syllable or word say as much in a few of them."""
    return sum(char >= "\u2e80" for word in words for char in word) >= 5


def _identifier() -> Callable[[str], tuple[Any, Any]]:
    """A function that gives the language of a text and its probability."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identify: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify
    return identify
