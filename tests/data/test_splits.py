"""The split key and its hashes: what may move a row, and what may not."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.data import splits

PIECES = st.sampled_from(
    [
        "@a",
        "http://x.y",
        "www.z.w",
        "Hi",
        "hi!",
        " ",
        "\n",
        "É",
        "é",
        "😀",
        "ß",
        "...",
        "小明",
        "—",
        "@abcdefghijklmnop",
        "_",
    ]
)
VERSIONS = pytest.mark.parametrize("version", splits.KNOWN_VERSIONS)
TEXTS = st.one_of(st.text(max_size=50), st.lists(PIECES, max_size=8).map("".join))


@VERSIONS
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello @anna!!", "hello   @BOB"),
        ("see http://t.co/abc", "See http://other.org/x?y=1"),
        ("ＷＯＷ that", "wow, that"),
        ("I love it :)", "I love it!!!"),
        ("I ❤️ this", "i ❤ THIS"),
        ("STRASSE", "straße"),
    ],
)
def test_texts_that_differ_in_case_handles_links_or_punctuation_share_a_key(one: str, other: str, version: int) -> None:
    assert splits.split_key(one, version=version) == splits.split_key(other, version=version)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("@小明今天很开心", "@小明太糟糕了"),
        ("https://t.co/abc—worst service", "https://t.co/abc—best service"),
        ("@abc糟透了", "@abc太好吃了"),
        ("www.a.org，很好", "www.a.org，不好"),
    ],
)
def test_text_behind_a_handle_or_link_tells_texts_apart_since_version_2(one: str, other: str) -> None:
    assert splits.split_key(one, version=2) != splits.split_key(other, version=2)
    assert splits.split_key(one.split("，")[0], version=1) in splits.split_key(one, version=1)


@VERSIONS
def test_emoji_and_words_tell_texts_apart(version: int) -> None:
    assert (
        len({splits.split_key(text, version=version) for text in ("good day", "bad day", "good day 😀", "good day 😡")})
        == 4
    )


@VERSIONS
def test_punctuation_alone_is_its_own_key(version: int) -> None:
    assert splits.split_key(":)", version=version) != splits.split_key(":(", version=version)
    assert splits.split_key(" !! ", version=version) == "!!"


@VERSIONS
@settings(max_examples=200, deadline=None)
@given(texts=st.lists(TEXTS, max_size=8), seed=st.integers(0, 2**32 - 1))
def test_many_hashes_are_those_of_each_alone(texts: list[str], seed: int, version: int) -> None:
    first, second = splits.hash_raw(texts, seed, version=version)
    for text, *found in zip(texts, first.tolist(), second.tolist(), strict=True):
        key = splits.split_key(text, version=version).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(key, digest_size=16, salt=seed.to_bytes(16, "little")).digest()
        assert found == [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]


@pytest.mark.parametrize(("version", "key"), [(1, "hellouserhttpuserausercom"), (2, "hellouserhttp今天userabcom")])
def test_keys_and_hashes_of_a_version_never_change(version: int, key: str) -> None:
    found = splits.split_key("Hello, @Anna! www.a.b/c，今天 @ben a@b.com", version=version)
    assert found == key
    hashes = splits.hash_raw(["Hello, @Anna! www.a.b/c"], 0, version=version)
    assert [int(one[0]) for one in hashes] == [11481954915110406530, 14885101098866169355]


def test_another_seed_gives_another_split() -> None:
    texts = [f"text {number}" for number in range(200)]
    one, other = (
        splits.assign(splits.hash_raw(texts, seed, version=2)[0], test_size=0.2, valid_size=0.1) for seed in (0, 1)
    )
    assert (one != other).any()


def test_shares_are_those_asked_for() -> None:
    texts = [f"text {number}" for number in range(20_000)]
    codes = splits.assign(splits.hash_raw(texts, 0, version=2)[0], test_size=0.2, valid_size=0.1)
    shares = np.bincount(codes, minlength=3) / len(codes)
    assert shares == pytest.approx([0.2, 0.1, 0.7], abs=0.015)


def test_a_larger_test_split_holds_the_smaller_one() -> None:
    hashes = splits.hash_raw([f"text {number}" for number in range(2000)], 0, version=2)[0]
    small = splits.assign(hashes, test_size=0.1, valid_size=0.1) == splits.TEST
    large = splits.assign(hashes, test_size=0.3, valid_size=0.1) == splits.TEST
    assert (large | ~small).all()
