"""Made-up texts with negations: as many of each label, the same for the same seed, none of the suite's."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import negations as rules
import numpy as np
import pytest
from negations import negations

SUITE = Path(__file__).parents[2] / "benchmarks" / "negation.tsv"


@pytest.mark.parametrize("count", [0, 1, 2, 501])
def test_labels_take_turns(count: int) -> None:
    texts, labels = negations(count, 3)
    assert len(texts) == count
    assert labels == [number % 2 for number in range(count)]


def test_the_same_seed_gives_the_same_texts_and_another_one_others() -> None:
    assert negations(200, 5) == negations(200, 5)
    assert negations(200, 5) != negations(200, 6)


def test_texts_are_many_and_none_is_of_the_suite() -> None:
    texts, _ = negations(20_000, 1)
    assert len(set(texts)) > 19_000
    with SUITE.open(newline="") as file:
        pairs = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    suite = {row[side].casefold() for row in pairs for side in ("negative", "positive")}
    assert len(suite) > 390
    assert not suite & {text.casefold() for text in texts}


def test_every_rule_tells_the_same_words_apart_by_the_label() -> None:
    for rule in dict.fromkeys(rules._RULES):
        dice = rules._Dice(np.random.default_rng(0))
        made = {label: {rule(dice, label) for _ in range(400)} for label in (0, 1)}
        assert all(len(texts) > 20 for texts in made.values()), rule
        assert not made[0] & made[1], rule
        assert all(text == text.strip() and "  " not in text for texts in made.values() for text in texts), rule


def test_a_good_word_alone_does_not_tell_the_label() -> None:
    texts, labels = negations(20_000, 2)
    for word in ("good", "fun", "bad", "boring"):
        found = Counter(label for text, label in zip(texts, labels, strict=True) if word in text.casefold().split())
        assert 0.1 < found[1] / sum(found.values()) < 0.9, (word, found)


def test_the_script_writes_a_labelled_file() -> None:
    done = subprocess.run([sys.executable, rules.__file__, "4", "3"], capture_output=True, text=True, check=True)
    texts, _ = negations(4, 3)
    labels = ["negative", "positive"] * 2
    assert list(csv.reader(done.stdout.splitlines())) == [
        ["text", "label"],
        *map(list, zip(texts, labels, strict=True)),
    ]
