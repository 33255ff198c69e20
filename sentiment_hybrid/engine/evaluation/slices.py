"""Accuracy on slices of the tested rows: short and long texts, questions, negations, and values of a column."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.engine.evaluation.metrics import Interval, holm_p_values

#: A slice with fewer rows is left out: its interval would span most of the scale.
LEAST_ROWS = 20
#: Values of a column beyond the most frequent ones are left out.
MOST_VALUES = 50

_NEGATION = re.compile(
    r"\b(?:no|not|nor|never|none|nobody|nothing|nowhere|neither|without|cannot)\b|n['’´`]t\b|\b(?:dont|cant|wont|isnt|didnt)\b",
    re.IGNORECASE,
)
# Pictographs, dingbats and symbols that are shown as pictures, and flags.
_EMOJI = re.compile("[\U0001f300-\U0001faff\U0001f1e6-\U0001f1ff\u2600-\u27bf\u2b50\u2b55\u2764]")
_EMOTICON = re.compile(r"(?<!\w)[:;=8xX][-o*']?[)\](\[dDpP/\\|}{@](?!\w)|<3")
_MENTION = re.compile(r"(?<!\w)@\w")
_LINK = re.compile(r"https?\b|www\.", re.IGNORECASE)
_SHOUTED = re.compile(r"\b[A-Z]{3,}\b")
_LENGTHS = ((5, "1-5 words"), (10, "6-10 words"), (20, "11-20 words"), (40, "21-40 words"), (100, "41-100 words"))


def _length(text: str) -> str:
    words = len(text.split())
    return next((name for most, name in _LENGTHS if words <= most), "over 100 words")


def _has(pattern: re.Pattern[str], name: str) -> Callable[[str], str | None]:
    return lambda text: name if pattern.search(text) else None


#: What each kind of slice calls a text; None: it is in no slice of this kind.
KINDS: Mapping[str, Callable[[str], str | None]] = {
    "length": _length,
    "negation": _has(_NEGATION, "with a negation"),
    "emoji": _has(_EMOJI, "with an emoji"),
    "emoticon": _has(_EMOTICON, "with an emoticon"),
    "question": lambda text: "with a question mark" if "?" in text else None,
    "exclamation": lambda text: "with an exclamation mark" if "!" in text else None,
    "mention": _has(_MENTION, "with a mention"),
    "link": _has(_LINK, "with a link"),
    "capitals": _has(_SHOUTED, "with a word in capitals"),
}


@dataclass(frozen=True)
class Slice:
    """A slice of the tested rows: its accuracy, and that of all other rows.

    ``p_value`` is that of Fisher's exact test of no difference, corrected (Holm 1979) for the slices of one list.
    """

    kind: str
    name: str
    rows: int
    accuracy: Interval
    rest: float
    p_value: float

    @property
    def differs(self) -> bool:
        """Whether the slice differs from the other rows at a level of 5 %."""
        return self.p_value < 0.05


class Membership:
    """Which rows are in which slice, collected text by text."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._count = 0

    def add(self, text: str, values: Mapping[str, str] | None = None) -> None:
        """The next row: its text, and its values in further columns."""
        for kind, name_of in KINDS.items():
            if (name := name_of(text)) is not None:
                self._rows[kind, name].append(self._count)
        for column in (values or {}).items():
            self._rows[column].append(self._count)
        self._count += 1

    def slices(self, right: npt.ArrayLike) -> list[Slice]:
        """Slices of at least LEAST_ROWS rows, with rows outside, the least accurate first; ``right`` (N,) bool."""
        hits = np.asarray(right, dtype=np.bool_)
        found = [_tested(*key, hits[self._rows[key]], hits) for key in self._large_enough()]
        corrected = holm_p_values([one.p_value for one in found])
        slices = [replace(one, p_value=p) for one, p in zip(found, corrected, strict=True)]
        return sorted(slices, key=lambda one: (one.accuracy.value, one.kind, one.name))

    def _large_enough(self) -> list[tuple[str, str]]:
        by_kind: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        for key, rows in self._rows.items():
            if LEAST_ROWS <= len(rows) < self._count:
                by_kind[key[0]][key] = len(rows)
        return [key for sizes in by_kind.values() for key, _ in sizes.most_common(MOST_VALUES)]


def _tested(kind: str, name: str, inside: npt.NDArray[np.bool_], every: npt.NDArray[np.bool_]) -> Slice:
    from scipy.stats import binomtest, fisher_exact

    hits, rows = int(inside.sum()), inside.size
    other_hits, others = int(every.sum()) - hits, every.size - rows
    bounds = binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    p_value = float(fisher_exact([[hits, rows - hits], [other_hits, others - other_hits]]).pvalue)
    interval = Interval(hits / rows, float(bounds.low), float(bounds.high))
    return Slice(kind, name, rows, interval, other_hits / others, p_value)
