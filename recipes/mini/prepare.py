"""From labelled sets and tweets to the files that train, select and report mini.

    python recipes/mini/prepare.py --labelled DIR --semeval TRAIN.tsv --held-out FILE [FILE ...] --database tweets.db OUT

DIR holds one NAME.tsv.gz per set of sets.tsv; the database is the tweets' (`senthy data`), whose split stays as it is;
the texts of --held-out files (column `text`) are trained on nowhere. OUT receives, tab-separated without quoting:

- train.tsv (text, label, set): rows of the labelled sets, repeated or sampled by the weights of sets.tsv, and made-up ones.
- valid.tsv, report.tsv: a tenth of each set's texts each. The first selects and calibrates; the second only reports.
- tweets_train.tsv: emoticon-labelled tweets of the database's training split; tweets_valid.tsv and
  tweets_test.tsv: its other splits.
- pretrain.tsv (text): all of these training texts once, for the encoder.
- emoji.txt: one token per line, for pretrain.added_tokens.

Rules: a text's part follows from the hash of its split key, so that copies in several sets fall into one part. What is
held out anywhere (the tweets' validation and test splits under any version of the key included) is trained on nowhere,
and neither is a phrase of a held-out sentence: of two words or more where the sentence is from a film set, of four or
more elsewhere. A phrase of a held-out film sentence belongs to the part of that sentence; one of sentences of both parts
belongs to none. Single words are held out by the same hash in lexicons and phrase sets alike. A tweet that people
labelled too loses its emoticon's label.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import html
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
if str(HERE) not in sys.path:  # the recipe's files are scripts beside each other, not a package
    sys.path.insert(0, str(HERE))

import made_up

from sentiment_hybrid.data import splits
from sentiment_hybrid.data.store import Examples, open_store

LABELS = ("negative", "neutral", "positive")
FILMS = ("sst2_train_phrases", "sst_phrases_train", "sst5_train", "rt_polarity", "hutto_movies", "subj_objective",
         "cad_imdb_train", "uci_imdb")  # fmt: skip
PHRASES = ("sst2_train_phrases", "sst_phrases_train")
#: The version of the split key that the tweets' split was made with.
SPLIT_KEY = 1
#: Shares of the hash's range: texts above the first select, above the second report.
SELECT, REPORT = 0.8, 0.9
#: Of the tweets' split (valid_size + test_size of tweets.yaml).
TWEETS_HELD_OUT = 0.07
_LONGEST = 12
_WORDS_ONLY = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Set:
    """One labelled set: how often each row is trained on, and which of our labels its own values mean."""

    name: str
    weight: float
    mapping: dict[str, str]


@dataclass(frozen=True)
class Row:
    """A text, its label, and the set that it is from."""

    text: str
    label: str
    set: str


def main() -> None:
    """Write the files and print how many rows each set gave and lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--labelled", type=Path, required=True)
    parser.add_argument("--semeval", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, nargs="+", required=True)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--made-up", type=int, default=80_000, help="made-up rows")
    parser.add_argument("--tweets", type=int, default=300_000, help="emoticon-labelled tweets to train on")
    write_files(parser.parse_args())


def write_files(arguments: argparse.Namespace) -> None:
    """All files of the output directory, from the options of the command line."""
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    sets = read_sets(HERE / "sets.tsv")
    rows = [row for one in sets for row in read_set(one, arguments)]
    with open_store(arguments.database) as store:
        tweets = {name: store.read(name, with_raw=True) for name in ("train", "valid", "test")}
        tweet_keys = np.concatenate([store.key_hashes("valid"), store.key_hashes("test")])
        labels = store.labels
    rules = Rules(rows, [text for path in arguments.held_out for text in column(path, "text")], tweet_keys)
    parts = rules.divide()

    weights = {one.name: one.weight for one in sets}
    held_texts = [row.text for part in ("valid", "report") for row in parts[part]]
    train = [row for row in distinct(parts["train"]) for _ in range(copies(row, weights[row.set]))]
    made = made_up_rows(arguments.made_up, held_texts, rules.keys_kept_out)
    usable = [
        Row(text, labels[code], "tweets")
        for text, code, free in zip(
            raw_texts(tweets["train"]), tweets["train"].labels, rules.free(raw_texts(tweets["train"])), strict=True
        )
        if free
    ]
    chosen = usable[: arguments.tweets]
    write(out / "train.tsv", shuffled([*train, *made]))
    write(out / "tweets_train.tsv", chosen)
    write(out / "pretrain.tsv", shuffled([*distinct(parts["train"]), *made, *usable]))
    for part in ("valid", "report"):
        write(out / f"{part}.tsv", distinct(parts[part]))
    for name in ("valid", "test"):
        labelled = zip(raw_texts(tweets[name]), tweets[name].labels, strict=True)
        write(out / f"tweets_{name}.tsv", [Row(text, labels[code], "tweets") for text, code in labelled])
    emoji = [sign for signs in made_up.read_emoji().values() for sign in signs]
    (out / "emoji.txt").write_text("\n".join(emoji) + "\n", encoding="utf-8")
    summary(parts, train, rules.lost, made, chosen)


class Rules:
    """Which part each row of the labelled sets belongs to, and which tweets may be trained on.

    Args:
        rows: of all labelled sets.
        outside: texts of the files that are trained on nowhere.
        tweet_keys: order hashes of the tweets' validation and test splits, (N,).
    """

    def __init__(self, rows: list[Row], outside: list[str], tweet_keys: np.ndarray) -> None:
        self.rows = rows
        texts = [row.text for row in rows]
        self.order, self.share = keys_of(texts)
        self.outside_keys = keys_of(outside)[0]
        self.keys_kept_out = np.concatenate([tweet_keys, self.outside_keys])
        self.kept_out = np.isin(self.order, self.keys_kept_out) | (self.share < TWEETS_HELD_OUT) | held_out_later(texts)
        self.outside = np.isin(self.order, self.outside_keys)
        #: Runs of words of held-out sentences: a text that is one of them is not trained on.
        self.runs = (
            ngrams_of(self._held(lambda row: row.set in FILMS and row.set not in PHRASES), shortest=2)
            | ngrams_of(self._held(lambda row: row.set not in FILMS), shortest=4)
            | ngrams_of(outside, shortest=4)
        )
        self.sentence_runs = {
            part: ngrams_of(self._held(lambda row: row.set == "sst5_train", low, high), shortest=2)
            for part, low, high in (("valid", SELECT, REPORT), ("report", REPORT, 1.01))
        }
        #: Rows that belong to no part, by set.
        self.lost: Counter[str] = Counter()

    def _held(self, chosen: Callable[[Row], bool], low: float = SELECT, high: float = 1.01) -> list[str]:
        pairs = zip(self.rows, self.share, strict=True)
        return [row.text for row, share in pairs if low <= share < high and chosen(row)]

    def divide(self) -> dict[str, list[Row]]:
        """The rows of each part: train, valid and report."""
        parts: dict[str, list[Row]] = {"train": [], "valid": [], "report": []}
        for place, row in enumerate(self.rows):
            part = self._part(place, row)
            if part is None:
                self.lost[row.set] += 1
            else:
                parts[part].append(row)
        return parts

    def _part(self, place: int, row: Row) -> str | None:
        """The part of a row; None where it belongs to none."""
        if row.set == "lex_emotag":
            return "train"  # all of it may be trained on
        single = len(words_of(row.text)) < 2
        if row.set in PHRASES and not single:
            return self._part_of_phrase(place, row)
        if self.share[place] >= SELECT:
            part = "valid" if self.share[place] < REPORT else "report"
            return None if self.outside[place] else part
        contained = not single and is_contained(row.text, self.runs)
        return None if contained or self.kept_out[place] else "train"

    def _part_of_phrase(self, place: int, row: Row) -> str | None:
        """A phrase follows its sentence, not its own hash; one of sentences of two held-out parts has no part."""
        held = [part for part, runs in self.sentence_runs.items() if is_contained(row.text, runs)]
        if held:
            return held[0] if len(held) == 1 and not self.outside[place] else None
        left_out = self.kept_out[place] or self.share[place] >= SELECT or is_contained(row.text, self.runs)
        return None if left_out else "train"

    def free(self, tweets: list[str]) -> np.ndarray:
        """Which tweets may be trained on, (N,) bool: those nobody labelled and no part holds out."""
        known = np.isin(keys_of(tweets)[0], np.concatenate([np.unique(self.order), self.outside_keys]))
        free = ~known & ~held_out_later(tweets)
        free[free] = [not is_contained(tweets[place], self.runs) for place in np.flatnonzero(free)]
        return free


def raw_texts(examples: Examples) -> Sequence[str]:
    """As they were before cleaning."""
    return examples.raw or examples.texts


def read_sets(path: Path) -> list[Set]:
    """The sets and their weights; ``mapping`` is ``value=label`` pairs, empty where the values are our labels."""
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            pairs = dict(pair.split("=") for pair in row["mapping"].split() if pair)
            found.append(Set(row["set"], float(row["weight"]), pairs or {label: label for label in LABELS}))
    return found


def read_set(one: Set, arguments: argparse.Namespace) -> Iterator[Row]:
    """Rows of a set whose value means one of our labels; an emoji that was taken out is put back."""
    path = arguments.semeval if one.name == "semeval" else arguments.labelled / f"{one.name}.tsv.gz"
    emoji = {sign: label for label, signs in made_up.read_emoji().items() for sign in signs}
    for row in table(path):
        text, value = html.unescape(html.unescape(row["text"])).strip(), row["label"]
        if one.name == "tweeteval_emoji_train":
            label = emoji.get(value)
            if label in (None, "neutral"):
                continue
            text = f"{text} {value}"
        else:
            label = one.mapping.get(value)
        if text and label:
            yield Row(" ".join(text.split()), label, one.name)


def table(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a tab-separated file without quoting, or of a csv file."""
    open_it = gzip.open if path.suffix == ".gz" else open
    with open_it(path, "rt", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            yield from csv.DictReader(file)
        else:
            yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def column(path: Path, name: str) -> list[str]:
    """One column of a table."""
    return [row[name] for row in table(path)]


def keys_of(texts: list[str], *, version: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Order hash (N,) and place within the hash's range (N,), 0 to 1, of each text."""
    hashes, order = splits.hash_raw(texts, 0, version=version)
    return order, hashes.astype(np.float64) / 2.0**64


def held_out_later(texts: list[str]) -> np.ndarray:
    """Which texts version 2 of the split key puts into the tweets' validation or test split, (N,) bool."""
    return keys_of(texts, version=2)[1] < TWEETS_HELD_OUT


def made_up_rows(count: int, held_texts: list[str], keys_kept_out: np.ndarray) -> list[Row]:
    """Made-up rows without copies of held-out texts, which are given as such and, those of two words or more, as keys.

    Single words and emoji are lost by ``held_texts`` alone: a tweet may consist of any of them.
    """
    rows = [Row(text, label, "made-up") for text, label in made_up.texts(count)]
    order, _ = keys_of([row.text for row in rows])
    held = np.isin(order, keys_of(held_texts)[0])
    kept_out = np.isin(order, keys_kept_out) & np.array([len(row.text.split()) > 1 for row in rows], dtype=bool)
    return [row for row, lost in zip(rows, held | kept_out, strict=True) if not lost]


def words_of(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return _WORDS_ONLY.findall(text.lower())


def ngrams_of(texts: Iterable[str], *, shortest: int) -> set[int]:
    """Hashes of all runs of ``shortest`` to 12 words."""
    found: set[int] = set()
    for text in texts:
        words = words_of(text)
        for length in range(shortest, min(len(words), _LONGEST) + 1):
            found.update(hash(tuple(words[at : at + length])) for at in range(len(words) - length + 1))
    return found


def is_contained(text: str, ngrams: set[int]) -> bool:
    """Whether a text is a run of a held-out text; of a longer one its first or last twelve words decide."""
    words = words_of(text)
    if len(words) <= _LONGEST:
        return hash(tuple(words)) in ngrams
    return hash(tuple(words[:_LONGEST])) in ngrams or hash(tuple(words[-_LONGEST:])) in ngrams


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Each text of a set once; texts with several labels there are left out."""
    labels: dict[tuple[str, str], set[str]] = {}
    rows = list(rows)
    for row in rows:
        labels.setdefault((row.set, row.text), set()).add(row.label)
    return [row for row in dict.fromkeys(rows) if len(labels[row.set, row.text]) == 1]


def copies(row: Row, weight: float) -> int:
    """``weight`` on average: the fraction is decided by a hash of the text."""
    digest = hashlib.blake2b(f"{row.set} {row.text}".encode(), digest_size=8).digest()
    return int(weight) + (int.from_bytes(digest, "little") / 2.0**64 < weight % 1)


def shuffled(rows: list[Row]) -> list[Row]:
    """In an order of its own."""
    return [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]


def write(path: Path, rows: Iterable[Row]) -> None:
    """Tab-separated without quoting, white space within a text as single spaces."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("text\tlabel\tset\n")
        file.writelines(f"{' '.join(row.text.split())}\t{row.label}\t{row.set}\n" for row in rows)


def summary(
    parts: dict[str, list[Row]], train: list[Row], lost: Counter[str], made: list[Row], tweets: list[Row]
) -> None:
    """Print rows by set and part."""
    repeated = Counter(row.set for row in train)
    counts = {part: Counter(row.set for row in rows) for part, rows in parts.items()}
    print(f"{'set':28}{'trained on':>12}{'distinct':>10}{'valid':>8}{'report':>8}{'left out':>10}")
    for name in sorted(set().union(*counts.values())):
        print(
            f"{name:28}{repeated[name]:12,}{counts['train'][name]:10,}{counts['valid'][name]:8,}{counts['report'][name]:8,}{lost[name]:10,}"
        )
    print(
        f"{'all':28}{len(train):12,}{len(parts['train']):10,}{len(parts['valid']):8,}{len(parts['report']):8,}{sum(lost.values()):10,}"
    )
    print(f"made-up {len(made):,}, tweets {len(tweets):,}; labels {Counter(row.label for row in [*train, *made])}")


if __name__ == "__main__":
    main()
