"""Texts of which nothing can be known: made up, the same for a seed, of many kinds, without a meaning."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
from unknowable import unknowable

from sentiment_hybrid.data.normalizers import get_normalizer


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 60), seed=st.integers(0, 2**40))
def test_there_are_as_many_as_asked_for_and_none_is_empty(count: int, seed: int) -> None:
    texts = unknowable(count, seed)
    assert len(texts) == count
    assert all(text.strip() for text in texts)


def test_a_seed_gives_the_same_texts_and_another_seed_others() -> None:
    assert unknowable(50, 3) == unknowable(50, 3)
    assert unknowable(50, 3) != unknowable(50, 4)


def test_they_are_of_all_kinds() -> None:
    texts = unknowable(700, 1)

    def some(told: object) -> int:
        return sum(1 for text in texts if told(text))  # type: ignore[operator]

    def letters(text: str) -> str:
        return "".join(char for char in text if char.isalpha())

    assert some(lambda text: set(text.split()) <= {"@user", "http"}) > 50
    assert some(lambda text: text.replace(" ", "").isdigit()) > 50
    assert some(lambda text: all(0x1F300 <= ord(char) <= 0x1F5FF for char in text)) > 50
    assert some(lambda text: letters(text) and not unicodedata.name(letters(text)[0], "").startswith("LATIN")) > 50
    assert some(lambda text: not letters(text) and not any(map(str.isdigit, text)) and ord(max(text)) < 0x3000) > 30


def test_the_normaliser_keeps_them_for_training() -> None:
    cleaned = get_normalizer("tweet").many(unknowable(300, 5))
    assert sum(1 for text in cleaned if text) > 290


def test_scripts_are_those_of_more_than_five_languages() -> None:
    scripts = {unicodedata.name(char, "").split()[0] for text in unknowable(500, 2) for char in text if char.isalpha()}
    assert {"GREEK", "CYRILLIC", "HEBREW", "ARABIC", "HIRAGANA", "CJK"} <= scripts
