"""The rows that mini is measured on: suites written by hand, the held-out parts of its recipe, other people's tweets.

from mini_rows import LABELS, Rows, by_set, others, read_recipe, suites
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LABELS = ("negative", "neutral", "positive")
NEGATIVE, NEUTRAL, POSITIVE = THREE = [0, 1, 2]
POLAR = [NEGATIVE, POSITIVE]
#: A class with a smaller share of a set's rows is a slip of its labelling.
_LEAST_SHARE = 0.01
_SUITES = Path(__file__).parent


@dataclass(frozen=True)
class Rows:
    """Texts, indices (N,) of LABELS, and what each is an example of; the sides of a pair are neighbours."""

    texts: list[str]
    labels: np.ndarray
    kinds: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, most: int | None) -> Rows:
        return Rows(self.texts[:most], self.labels[:most], self.kinds[:most])

    def classes(self) -> list[int]:
        """The labels of at least one row in a hundred."""
        return [at for at in THREE if (self.labels == at).mean() >= _LEAST_SHARE]


def of_table(rows: Iterable[Sequence[str]]) -> Rows:
    """Rows of text, label and perhaps a kind; those of other labels are left out."""
    kept = [row for row in rows if row[1] in LABELS]
    labels = np.array([LABELS.index(row[1]) for row in kept], dtype=np.int64)
    return Rows([row[0] for row in kept], labels, [row[2] for row in kept if len(row) > 2])


# --- suites


def suites() -> dict[str, Rows]:
    emoji = of_table(suite("emoji", "text", "label"))
    sentences = [text for (text,) in suite("neutral_sentences", "text")]
    pairs = suite("negation", "kind", "negative", "positive")
    return {
        "emoji": emoji,
        "emoji_after": Rows(
            [f"{sentence} {one}" for one in emoji.texts for sentence in sentences],
            np.repeat(emoji.labels, len(sentences)),
        ),
        "words": of_table(suite("plain_words", "text", "label")),
        "facts": of_table((text, "neutral", kind) for kind, text in suite("facts", "kind", "text")),
        "negation": of_table(
            row
            for kind, negative, positive in pairs
            for row in ((negative, "negative", kind), (positive, "positive", kind))
        ),
        "behaviour": of_table(suite("behaviour", "text", "expected", "kind")),
        "identity": of_table((text, "neutral") for text in identity()),
    }


def identity() -> list[str]:
    """Every template with every term, those of one template in a row."""
    return [with_term(template, term) for (template,) in suite("identity", "template") for term in identity_terms()]


def identity_terms() -> list[str]:
    return [term for (term,) in suite("identity_terms", "term")]


def with_term(template: str, term: str) -> str:
    """The template with the term in its slot; ``a`` before it becomes ``an`` where the term begins with a vowel."""
    if term[0].lower() in "aeiou":
        template = re.sub(r"\b([Aa]) (?=\{)", r"\1n ", template)
    return template.replace("{}", term)


def suite(name: str, *columns: str) -> Iterator[tuple[str, ...]]:
    return read_tsv(_SUITES / f"{name}.tsv", *columns)


# --- other people's texts and those of the recipe


def others(folder: Path) -> dict[str, Rows]:
    """What mini never learned from: SemEval's validation tweets and the airline tweets."""
    semeval = read_tsv(folder / "semeval" / "valid.tsv", "text", "label")
    airline = read_table(folder / "airline" / "Tweets.csv", ("text", "airline_sentiment"))
    return {"semeval": of_table(semeval), "airline": of_table(airline)}


def read_recipe(path: Path) -> Rows:
    """The rows of a file of the recipe, each once; their kinds are the sets' names."""
    return of_table(dict.fromkeys(read_tsv(path, "text", "label", "set")))


def by_set(rows: Rows) -> dict[str, Rows]:
    kinds = np.array(rows.kinds)
    places = {name: np.flatnonzero(kinds == name) for name in dict.fromkeys(rows.kinds)}
    return {name: Rows([rows.texts[at] for at in where], rows.labels[where]) for name, where in places.items()}


def words_of(lexicons: Iterable[Rows]) -> Rows:
    """The negative and positive words of all lexicons, each once, without those on which they disagree."""
    found: dict[str, set[int]] = {}
    for rows in lexicons:
        for text, label in zip(rows.texts, rows.labels.tolist(), strict=True):
            found.setdefault(text.lower(), set()).add(label)
    return of_table((text, LABELS[min(of)]) for text, of in found.items() if of < set(POLAR))


def read_tsv(path: Path, *columns: str) -> Iterator[tuple[str, ...]]:
    """Some columns of a tab-separated table, in which a quote is a character like any other."""
    return read_table(path, columns, delimiter="\t", quoting=csv.QUOTE_NONE)


def read_table(path: Path, columns: Sequence[str], **dialect: Any) -> Iterator[tuple[str, ...]]:
    """Some columns of a table, row by row."""
    if not path.is_file():
        raise SystemExit(f"there is no {path}: see --recipe and --data in `benchmarks/mini.py --help`")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, **dialect)
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise SystemExit(f"{path} has no column {', '.join(lacking)}")
        for row in reader:
            yield tuple(row[name] for name in columns)
