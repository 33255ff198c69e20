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
more elsewhere. Single words are held out by the same hash in lexicons and phrase sets alike. A tweet that people
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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
if str(HERE) not in sys.path:  # the recipe's files are scripts beside each other, not a package
    sys.path.insert(0, str(HERE))

import made_up

from sentiment_hybrid.data import splits
from sentiment_hybrid.data.store import open_store

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
    parser.add_argument("--made-up", type=int, default=60_000, help="made-up rows")
    parser.add_argument("--tweets", type=int, default=300_000, help="emoticon-labelled tweets to train on")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    sets = read_sets(HERE / "sets.tsv")
    rows = [row for one in sets for row in read_set(one, arguments)]
    texts = [row.text for row in rows]
    order, share = keys_of(texts)
    with open_store(arguments.database) as store:
        tweet_keys = [store.key_hashes("valid"), store.key_hashes("test")]
        tweets = store.read("train", with_raw=True)
        held_back = {name: store.read(name, with_raw=True) for name in ("valid", "test")}
        tweet_labels = store.labels
    outside = [text for path in arguments.held_out for text in column(path, "text")]
    outside_keys = splits.hash_raw(outside, 0, version=SPLIT_KEY)[1]

    phrase = np.array([row.set in PHRASES for row in rows])
    inside = (
        ngrams_of(
            [
                row.text
                for row, part in zip(rows, share, strict=True)
                if row.set in FILMS and row.set not in PHRASES and part >= SELECT
            ],
            shortest=2,
        )
        | ngrams_of(outside, shortest=4)
        | ngrams_of(
            [row.text for row, part in zip(rows, share, strict=True) if row.set not in FILMS and part >= SELECT],
            shortest=4,
        )
    )
    held_sentences = {
        part: ngrams_of(
            [row.text for row, at in zip(rows, share, strict=True) if row.set == "sst5_train" and low <= at < high],
            shortest=2,
        )
        for part, low, high in (("valid", SELECT, REPORT), ("report", REPORT, 1.01))
    }
    keys_kept_out = np.concatenate([*tweet_keys, outside_keys])
    kept_out = np.isin(order, keys_kept_out) | (share < TWEETS_HELD_OUT) | held_out_later(texts)
    contained = np.array([is_contained(row.text, inside) for row in rows])
    single = np.array([len(_WORDS_ONLY.findall(row.text)) < 2 for row in rows])

    parts: dict[str, list[Row]] = {"train": [], "valid": [], "report": []}
    lost: Counter[str] = Counter()
    outside_test = np.isin(order, outside_keys)
    for place, row in enumerate(rows):
        if phrase[place] and not single[place]:
            # A phrase follows its sentence, not its own hash.
            where = next((part for part, grams in held_sentences.items() if is_contained(row.text, grams)), "train")
            if where == "train" and (contained[place] or share[place] >= SELECT):
                lost[row.set] += 1
                continue
        else:
            where = "train" if share[place] < SELECT else "valid" if share[place] < REPORT else "report"
        if row.set == "lex_emotag":
            where = "train"  # all of it may be trained on
        if (
            where == "train"
            and row.set != "lex_emotag"
            and (kept_out[place] or (contained[place] and not single[place]))
        ):
            lost[row.set] += 1
            continue
        if where != "train" and outside_test[place]:
            lost[row.set] += 1
            continue
        parts[where].append(row)

    weights = {one.name: one.weight for one in sets}
    held_texts = [row.text for part in ("valid", "report") for row in parts[part]]
    train = [row for row in distinct(parts["train"]) for _ in range(copies(row, weights[row.set]))]
    made = made_up_rows(arguments.made_up, held_texts, keys_kept_out)
    write(arguments.out / "train.tsv", shuffled([*train, *made]))
    for part in ("valid", "report"):
        write(arguments.out / f"{part}.tsv", distinct(parts[part]))

    seen_by_people = np.unique(order)
    raws = tweets.raw or tweets.texts
    tweet_order, _ = keys_of(raws)
    free = ~np.isin(tweet_order, np.concatenate([seen_by_people, outside_keys])) & ~held_out_later(raws)
    usable = [
        Row(raws[place], tweet_labels[tweets.labels[place]], "tweets")
        for place in np.flatnonzero(free)
        if not is_contained(raws[place], inside)
    ]
    chosen = usable[: arguments.tweets]
    write(arguments.out / "tweets_train.tsv", chosen)
    write(arguments.out / "pretrain.tsv", shuffled([*distinct(parts["train"]), *made, *usable]))
    for name, examples in held_back.items():
        labelled = zip(examples.raw or [], examples.labels, strict=True)
        write(
            arguments.out / f"tweets_{name}.tsv", [Row(text, tweet_labels[code], "tweets") for text, code in labelled]
        )
    emoji = [sign for signs in made_up.read_emoji().values() for sign in signs]
    (arguments.out / "emoji.txt").write_text("\n".join(emoji) + "\n", encoding="utf-8")
    summary(parts, train, lost, made, chosen)


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
