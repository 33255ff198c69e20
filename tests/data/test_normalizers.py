"""Normalisers: pure, versioned, and the tweet normaliser gives its own output back unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.data import normalizers
from sentiment_hybrid.errors import DataError, ModelError

VERSIONS = ("tweet@1", "tweet@2", "tweet@3")
PIECES = st.sampled_from(
    ["@anna", "@小明", "今天很开心", "—", "…", "(", ")", ".", "?", "_", "@abcdefghijklmnop", "/a_(b)", "é", "WWW.",
     "@@b", "http://t.co/x", "HTTPS://A.b", "www.x.org", "Www.y.z", "://", "&amp;", "&amp;lt;", "&#39;", "&",
     "Ã©", "â€™", "ï¿½", "’", "ﬁ", "Ｗ", "😀", "❤️", "é", "e\u0301", "can't", "  ", "\n", "\t", "\x85", "\x07", "not",
     "\x1f", "\x00", "\u200b", "\u200d", "\u200c", "\u202e", "&#8203;", "â€‹", "\ufeff", "👩\u200d🚀", "\xad",
     "𝓵𝓸", "𝟚"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES | st.text(max_size=4), max_size=12).map("".join))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@anna can't believe it's OVER... loved it http://t.co/x", "@user can't believe it's OVER... loved it http"),
        ("good &amp; bad &lt;3", "good & bad <3"),
        ("weâ€™re at the cafÃ©", "we're at the café"),
        ("  two\n lines\t here ", "two lines here"),
        ("NOT happy 😡 #fail!!!", "NOT happy 😡 #fail!!!"),
        ("mail me at a@b.com", "mail me at a@b.com"),
        ("see HTTP://X.Y/z and www.news.org/a", "see http and http"),
        ("", ""),
        ("https://t.co/abc—worst service ever", "http—worst service ever"),
        ("@小明今天很开心", "@小明今天很开心"),
        ("@anna今天很开心", "@user今天很开心"),
        ("(see http://x.y/z).", "(see http)."),
        ("is it www.x.org? yes!", "is it http? yes!"),
        ("see http://en.wikipedia.org/wiki/A_(b), now", "see http, now"),
        ("'http://x.y' <a href=\"http://x.y/z\">w</a>", "'http' <a href=\"http\">w</a>"),
        ("http://x.y/?q=1&amp;r=%20#s~-", "http"),
        ("HTTPS://X.Y/Z, WWW.NEWS.ORG!!", "http, http!!"),
        ("@josé and @jose\u0301 of @abcdefghijklmno", "@josé and @josé of @user"),
        ("@abcdefghijklmnop is too long for a name", "@abcdefghijklmnop is too long for a name"),
        ("http:// and www. alone", "http:// and www. alone"),
    ],
)  # fmt: skip
def test_tweet_masks_and_repairs_but_keeps_case_emoji_and_negation(text: str, expected: str) -> None:
    assert normalizers.tweet(text) == expected


@pytest.mark.parametrize("identifier", VERSIONS)
@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
@example(text="&amp;amp;lt;")
@example(text="@x\u0327\u0301")
@example(text="@annaﬁ @annaＷ")
def test_tweet_gives_its_own_output_back_unchanged(identifier: str, text: str) -> None:
    normalize = normalizers.from_id(identifier)
    once = normalize(text)
    assert normalize(once) == once


#: What no name and no link can hold, and no step of the normaliser changes.
AFTER = st.text(st.sampled_from("今天很開心糟透了日本語한국어ПриветΓειά😀—“”«»"), min_size=1, max_size=8).filter(
    lambda text: normalizers.tweet(text) == text
)


@settings(max_examples=300, deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z0-9_]{1,15}", fullmatch=True),
    path=st.from_regex(r"[A-Za-z0-9/_~%-]{0,12}", fullmatch=True),
    scheme=st.sampled_from(["http://", "https://", "www.", "HTTP://"]),
    after=AFTER,
)
def test_text_behind_a_handle_or_a_link_is_never_lost(name: str, path: str, scheme: str, after: str) -> None:
    assert normalizers.tweet(f"@{name}{after}") == f"@user{after}"
    assert normalizers.tweet(f"{scheme}t.co/{path}{after}") == f"http{after}"
    assert normalizers.tweet(f"so {scheme}t.co/{path}x).{after} @{name}") == f"so http).{after} @user"


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(min_codepoint=0x3041, max_codepoint=0x9FFF, categories=["Lo"]), max_size=30))
def test_texts_without_spaces_between_words_survive_whole(text: str) -> None:
    for before in ("@", "#", "www.", "http://", ""):
        assert normalizers.tweet(f"{before}{text}") == unicodedata.normalize("NFC", f"{before}{text}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g\u200bood", "good"),
        ("g&#8203;ood", "good"),
        ("gâ€‹ood", "good"),
        ("\u2067good\u2069 \u200fbad\u200e", "good bad"),
        ("a\x00w\x07f\x7ful", "awful"),
        ("aw\u200d\u200cful", "awful"),
        ("@an\u200bna see ht\u200btp://t.co/x", "@user see http"),
        ("two\x1clines\x0bhere", "two lines here"),
        ("\u200b \u202e", ""),
        ("i 𝓵𝓸𝓿𝓮 it, 𝗕𝗥𝗘𝗔𝗞𝗜𝗡𝗚: @𝐚𝐧𝐧𝐚 𝟚", "i love it, BREAKING: @user 2"),
    ],
)
def test_invisible_characters_and_decorative_letters_hide_no_word(text: str, expected: str) -> None:
    assert normalizers.tweet(text) == expected
    assert normalizers.get_normalizer("tweet").many([text, "plain"]) == [expected, "plain"]


@pytest.mark.parametrize(
    "text",
    ["👩\u200d🚀 ❤\ufe0f\u200d🔥", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "می\u200cخواهم"],
)
def test_joiners_that_make_emoji_and_words_of_other_scripts_stay(text: str) -> None:
    assert normalizers.tweet(text) == text


def test_models_and_databases_of_version_2_keep_invisible_characters() -> None:
    old = normalizers.from_id("tweet@2")
    assert old.many(["g\u200bood", "a\x07b"]) == ["g\u200bood", "a\x07b"]


@pytest.mark.parametrize("text", ["good&bad www.a.b", "(@anna) @ben's a@b.c", "NOT  http://t.co/x ok", "weâ€™re &lt;3"])
def test_all_versions_agree_where_nothing_follows_a_handle_or_link(text: str) -> None:
    assert len({normalizers.from_id(version)(text) for version in VERSIONS}) == 1


def test_models_and_databases_of_version_1_read_as_ever() -> None:
    old = normalizers.from_id("tweet@1")
    assert old("https://t.co/abc—worst service") == "http service"
    assert old("@小明今天很开心 (see http://x.y/z).") == "@user (see http"
    assert old.many(["@josé", "www.x.org!!"]) == ["@user", "http"]


@pytest.mark.parametrize("name", [*VERSIONS, "none@1"])
@settings(max_examples=200, deadline=None)
@given(texts=st.lists(TEXTS, max_size=8))
@example(texts=["@WWW.x.y", "&#64;HTTP://A.B", "plain @anna", "www&#46;x.y &amp;#10;"])
def test_many_texts_are_cleaned_as_each_alone(name: str, texts: list[str]) -> None:
    normalizer = normalizers.from_id(name)
    assert normalizer.many(texts) == [normalizer(text) for text in texts]


def test_tweet_on_real_tweets_is_the_same_alone_and_in_batches(shared: Path) -> None:
    lines = (shared / "data/airline/Tweets.csv").read_text(encoding="utf-8").splitlines()[1:4000]
    for normalizer in map(normalizers.from_id, VERSIONS):
        assert normalizer.many(lines) == [normalizer(line) for line in lines]


def test_none_only_trims() -> None:
    assert normalizers.get_normalizer("none")("  As  it IS &amp; ") == "As  it IS &amp;"


@pytest.mark.parametrize("name", list(normalizers.NORMALIZERS))
def test_every_normalizer_is_found_by_its_id(name: str) -> None:
    normalizer = normalizers.get_normalizer(name)
    assert normalizers.from_id(normalizer.id) is normalizer


@pytest.mark.parametrize("identifier", ["tweet@99", "tweet", "twet@1", ""])
def test_an_unknown_version_is_refused_naming_the_known(identifier: str) -> None:
    with pytest.raises(ModelError) as caught:
        normalizers.from_id(identifier)
    assert "tweet@1" in caught.value.hint
    assert "tweet@2" in caught.value.hint


@pytest.fixture
def fresh_nltk(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    normalizers._nltk_tools.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [])


@pytest.mark.usefixtures("fresh_nltk")
def test_classic_offline_without_nltk_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        normalizers.prepare_nltk(tmp_path / "cache", True)
    assert "stopwords" in caught.value.message
    assert "senthy fetch" in caught.value.hint


@pytest.mark.usefixtures("fresh_nltk")
def test_classic_reports_a_download_that_brought_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk, "download", lambda *args, **options: False)
    with pytest.raises(DataError, match="network"):
        normalizers.prepare_nltk(tmp_path / "cache", False)


@pytest.fixture
def nltk_data(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_nltk: None) -> Path:
    """Private copies: nltk refuses data files that others may write."""
    import nltk

    folder = tmp_path / "nltk_data"
    for place in ("corpora/stopwords", "corpora/wordnet"):
        source = shared / "nltk_data" / place
        if source.is_dir():
            shutil.copytree(source, folder / place)
        else:
            (folder / "corpora").mkdir(parents=True, exist_ok=True)
            shutil.copy(f"{source}.zip", folder / "corpora")
    for path in [folder, *folder.rglob("*")]:
        os.chmod(path, 0o755 if path.is_dir() else 0o644)  # noqa: PTH101
    monkeypatch.setattr(nltk.data, "path", [str(folder)])
    return folder


@pytest.mark.usefixtures("nltk_data")
def test_classic_keeps_negation_and_loses_stopwords_numbers_and_links(tmp_path: Path) -> None:
    normalizers.prepare_nltk(tmp_path / "cache", True)
    cleaned = normalizers.classic("@anna I can't believe the 3 movies were NOT good, won't watch http://t.co/x")
    words = cleaned.split()
    assert words.count("not") == 3
    assert "movie" in words
    assert not {"the", "3", "http", "user", "anna", "i"} & set(words)


def test_nltk_data_are_found_where_the_environment_says(nltk_data: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from sentiment_hybrid.data import normalizers; "
        f"normalizers.prepare_nltk(Path({str(tmp_path / 'cache')!r}), True); print(normalizers.classic('those films'))"
    )
    environment = {**os.environ, "NLTK_DATA": str(nltk_data)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.stdout.strip() == "film", done.stderr
