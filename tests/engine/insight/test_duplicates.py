"""Near-duplicates are found and verified; texts that merely resemble each other are not."""

from __future__ import annotations

import itertools
import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.engine.insight.duplicates import find_duplicates, jaccard, plain

WORDS = ["".join(random.Random(n).choices(string.ascii_lowercase, k=6)) for n in range(400)]


def sentence(seed: int, length: int = 14) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Great flight, thanks!", "great flight thanks"),
        ("@user Great flight http", "RT Great flight".removeprefix("RT ")),
        ("soooooo good today", "soo good today"),
        ("tr\u00e8s bien", "TR\u00c8S BIEN"),
    ],
)
def test_case_punctuation_handles_and_links_make_no_difference(left: str, right: str) -> None:
    assert plain(left) == plain(right)


def test_emoji_make_a_difference() -> None:
    assert plain("fine \U0001f600") != plain("fine \U0001f621")


def test_texts_that_differ_in_a_word_are_found_among_many_others() -> None:
    texts = [sentence(seed) for seed in range(300)]
    copies = [text.replace(text.split()[5], "changed") for text in texts[:60]]
    found = find_duplicates([*texts, *copies])
    alike = [jaccard(texts[at], copies[at]) for at in range(60)]
    joined = [found.groups[at] == found.groups[300 + at] for at in range(60)]
    expected = [share >= 0.8 for share in alike]
    assert sum(expected) > 40
    assert sum(a == b for a, b in zip(joined, expected, strict=True)) >= 58  # each is found with probability 0.99
    assert all(share >= 0.8 for share in found.similarity)
    assert all(left % 300 == right % 300 for left, right in found.pairs.tolist())


def test_groups_are_named_after_their_first_text_and_large_ones_are_whole() -> None:
    texts = [sentence(1)] + ["the same text again and again"] * 500 + [sentence(2)]
    groups = find_duplicates(texts).groups
    assert groups.tolist() == [0, *[1] * 500, 501]


@given(st.lists(st.text(max_size=40), max_size=12))
@settings(max_examples=60, deadline=None)
def test_what_is_found_agrees_with_all_pairs(texts: list[str]) -> None:
    found = find_duplicates(texts)
    assert np.isin(found.groups, np.arange(len(texts))).all()
    for left, right in itertools.combinations(range(len(texts)), 2):
        if plain(texts[left]) == plain(texts[right]):
            assert found.groups[left] == found.groups[right]
    for (left, right), share in zip(found.pairs.tolist(), found.similarity.tolist(), strict=True):
        assert share == jaccard(texts[left], texts[right]) >= 0.8


def test_of_long_texts_the_beginning_is_compared() -> None:
    long = sentence(3, 3000)
    groups = find_duplicates([long, f"{long} and an end of its own", sentence(4, 3000)]).groups
    assert groups.tolist() == [0, 0, 2]
