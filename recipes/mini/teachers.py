"""One teacher's file from the answers of several, and the rows from which a second teacher learns.

    python recipes/mini/teachers.py OUT --answers FILE.jsonl [...] --train train.tsv --tweets tweets_train.tsv

The answers are those of `senthy predict` on both files, any number of files per model. OUT gets

- teacher.jsonl: for each text, the mean of the probabilities of all models that answered. For a tweet they are multiplied
  by the likelihood of its emoticon, and scaled to sum to 1.
- rows.tsv: the training rows, and each tweet with its most probable label.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

LABELS = ("negative", "neutral", "positive")
#: Of an emoticon with the label of the key, given that people would give a tweet each of LABELS.
LIKELIHOOD = {"negative": (1.0, 0.7, 0.4), "positive": (0.4, 0.7, 1.0)}


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--answers", type=Path, nargs="+", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--tweets", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tweets = dict(row[:2] for row in rows(arguments.tweets))
    answers = blended(arguments.answers, tweets)
    with (arguments.out / "teacher.jsonl").open("w", encoding="utf-8") as file:
        for text, found in answers.items():
            probabilities = {f"p_{label}": round(float(p), 6) for label, p in zip(LABELS, found, strict=True)}
            file.write(json.dumps({"text": text, **probabilities}, ensure_ascii=False) + "\n")
    likely = ([text, LABELS[int(answers[text].argmax())], "tweets"] for text in tweets if text in answers)
    with (arguments.out / "rows.tsv").open("w", encoding="utf-8") as file:
        file.write("text\tlabel\tset\n")
        file.writelines("\t".join(row[:3]) + "\n" for row in [*rows(arguments.train), *likely])


def blended(files: Iterable[Path], emoticons: dict[str, str]) -> dict[str, np.ndarray]:
    """Text -> probabilities (3,) in the order of LABELS, of files with the columns text and p_LABEL.

    ``emoticons``: tweet -> the label of its emoticon.
    """
    sums: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(LABELS)))
    for path in files:
        with path.open(encoding="utf-8") as lines:
            # A text that stands in a file several times has the same answer each time.
            of = {row["text"]: [row[f"p_{label}"] for label in LABELS] for row in map(json.loads, lines)}
        for text, probabilities in of.items():
            sums[text] += probabilities
    for text, label in emoticons.items():
        if text in sums:
            sums[text] *= LIKELIHOOD[label]
    return {text: found / found.sum() for text, found in sums.items()}


def rows(path: Path) -> list[list[str]]:
    """The rows of a tab-separated file without quoting, but for its header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


if __name__ == "__main__":
    main()
