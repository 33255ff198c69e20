"""The tokenizer that a scratch encoder learns: tweets' own pieces, no text lost, the same for transformers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import ScratchEncoder
from sentiment_hybrid.errors import DataError, SourceError
from sentiment_hybrid.models.tokenizer import Tokenizer, read_added_tokens, train_tokenizer

TWEETS = [
    "@user can't believe it's over... loved every minute http",
    "@user @user not bad at all 😀😀😀 http",
    "why isn't it Friday yet??? 😭😭 I don't know @user!",
    "Good morning 2024 :) ❤️❤️ http",
    "GOOD day, good film, won't be long now 😀😀",
] * 6
SPECIAL = set(range(5))


def learned(*, vocab_size: int = 420, lowercase: bool = False) -> Tokenizer:
    return train_tokenizer(TWEETS, ScratchEncoder(vocab_size=vocab_size, lowercase=lowercase), max_length=32)


CASED, FOLDED = learned(), learned(lowercase=True)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, to be damaged."""
    folder = tmp_path_factory.mktemp("damaged")
    CASED.save_pretrained(folder)
    return folder


WHOLE = CASED.backend_tokenizer.to_str(pretty=True).encode()


def pieces(text: str, tokenizer: Tokenizer = CASED) -> list[str]:
    """Each token as text."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [tokenizer.decode([number]) for number in ids]


@settings(max_examples=300, deadline=None)
@given(
    at=st.integers(0, 10**6),
    change=st.sampled_from(["flip", "cut", b"null", b"-1", b"9" * 12, b"{}", b"[]", b'"x"', b"true", b",", b"}"]),
    bit=st.integers(0, 7),
)
def test_a_damaged_file_is_an_exception_and_never_ends_the_program(
    damaged: Path, at: int, change: str | bytes, bit: int
) -> None:
    whole = bytearray(WHOLE)
    at %= len(whole)
    if change == "flip":
        whole[at] ^= 1 << bit
    else:
        whole[at:] = b"" if change == "cut" else bytes(change) + whole[at + bit :]
    (damaged / "tokenizer.json").write_bytes(whole)
    try:
        found = Tokenizer.load(damaged)
        answers = TWEETS if found is None else found(TWEETS)["input_ids"]
    except Exception:  # noqa: BLE001 - a panic of Rust code is none, and ends the test
        return
    assert len(answers) == len(TWEETS)


@pytest.mark.parametrize("settings", ["[]", '{"pad_token": 5}', '{"pad_token": ["<pad>"]}', "[" * 5000, "\xff"])
def test_damaged_settings_are_an_exception(damaged: Path, settings: str) -> None:
    (damaged / "tokenizer.json").write_bytes(WHOLE)
    (damaged / "tokenizer_config.json").write_text(settings, encoding="latin-1")
    with pytest.raises((ValueError, TypeError)):
        Tokenizer.load(damaged)


def test_a_panic_of_the_library_is_an_exception(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):  # as pyo3 calls its own
        """Of Rust code."""

    class Broken:
        @staticmethod
        def from_file(path: str) -> None:
            raise PanicException("index out of bounds")

    (damaged / "tokenizer_config.json").write_text("{}")
    monkeypatch.setattr("tokenizers.Tokenizer", Broken)
    with pytest.raises(ValueError, match="damaged: index out of bounds"):
        Tokenizer.load(damaged)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@example(text="</s> <mask> @user")
@example(text="\r\n\t  two  spaces ")
@example(text="👩‍👩‍👧🏽‍🇩🇪❤️")
def test_no_text_is_lost(text: str) -> None:
    ids = CASED(text, add_special_tokens=False)["input_ids"]
    kept = re.sub("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]", "", text)
    assert CASED.decode(ids) == (f" {kept}" if kept else "")
    assert SPECIAL.isdisjoint(ids), "a text has no special tokens, whatever it says"


@pytest.mark.parametrize(
    "text", ["@user", "and @user", "@user, you", "so... @user!!", "http", "see http!", "(see http)"]
)
def test_masked_handles_and_links_are_one_token_wherever_they_stand(text: str) -> None:
    mark = "@user" if "@user" in text else "http"
    assert [piece.strip() for piece in pieces(text)].count(mark) == 1


def test_no_token_has_more_of_a_handle_or_link_than_the_mark_itself() -> None:
    tokens = [CASED.decode([number]) for number in range(5, len(CASED))]
    for mark in ("@user", "http"):
        assert {token for token in tokens if mark in token} == {mark, f" {mark}"} & set(tokens)
    assert "@user" not in {piece.strip() for piece in pieces("@username")}


def test_emoji_are_never_joined_and_frequent_ones_are_a_token() -> None:
    assert pieces("😀😀😀") == [" 😀", "😀", "😀"]
    assert pieces("so😭😀") == [*pieces("so"), "😭", "😀"]
    for number in range(5, len(CASED)):
        token = CASED.decode([number])
        assert sum(token.count(emoji) for emoji in "😀😭❤") <= 1, token


def test_no_token_reaches_over_the_end_of_a_word() -> None:
    for number in range(5, len(CASED)):
        token = CASED.decode([number])
        assert " " not in token.strip(), token
        assert not (any(map(str.isalpha, token)) and any(map(str.isdigit, token))), token
        if "'" in token and any(map(str.isalpha, token)):
            assert token in {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}


def test_the_negation_of_a_contraction_is_a_token_of_its_own() -> None:
    assert pieces("isn't")[-1] == pieces("don't")[-1] == "'t"


def test_folding_case_is_a_choice() -> None:
    assert FOLDED("GOOD Day")["input_ids"] == FOLDED("good day")["input_ids"]
    assert CASED("GOOD Day")["input_ids"] != CASED("good day")["input_ids"]
    assert FOLDED.decode(FOLDED("Not GREAT")["input_ids"]).strip() == "not great"
    assert not any(any(map(str.isupper, piece)) for piece in pieces("SHOUTING Ärger", FOLDED))


@pytest.mark.parametrize("tokenizer", [CASED, FOLDED], ids=["cased", "folded"])
def test_a_saved_tokenizer_reads_as_before_here_and_in_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.load(tmp_path)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    assert again is not None
    for text in [*TWEETS[:5], "Never SEEN before: ünïcode 日本 🤷🏽"]:
        expected = tokenizer(text)["input_ids"]
        assert again(text)["input_ids"] == expected
        assert list(theirs(text)["input_ids"]) == expected
    assert (again.mask_token_id, theirs.mask_token_id) == (4, 4)
    assert again.all_special_ids == sorted(SPECIAL)
    assert len(again) == len(tokenizer) == len(theirs)


def test_every_byte_has_a_token_though_no_text_had_it() -> None:
    small = train_tokenizer(["aa"], ScratchEncoder(vocab_size=300), max_length=8)
    assert len(small) >= 256 + len(SPECIAL)
    assert small.decode(small("日\x00ß")["input_ids"]) == " 日\x00ß"
    assert small.all_special_ids == sorted(SPECIAL)


# --- added tokens ----------------------------------------------------------------------------------------------------

ADDED = ["❤️", "😍", "👩‍❤️‍👨", ":)", "🇩🇪", "YOLO"]


@pytest.fixture(params=["scratch", "existing"])
def extended(request: pytest.FixtureRequest) -> Tokenizer:
    """A tokenizer with the added tokens, from the beginning or later."""
    if request.param == "scratch":
        sizes = ScratchEncoder(vocab_size=420, lowercase=True)
        return train_tokenizer(TWEETS, sizes, max_length=32, added_tokens=ADDED)
    tokenizer = learned(lowercase=True)
    tokenizer.add_tokens(ADDED)
    return tokenizer


@pytest.mark.parametrize("emoji", ["❤️", "❤", "😍", "👩‍❤️‍👨", ":)", "🇩🇪", "yolo", "Yolo"])
@pytest.mark.parametrize("around", ["{}", "good {}", "{} good", "\n  {}", "good {}!", "{} {} good"])
def test_an_added_token_is_one_id_in_all_its_forms_and_places(extended: Tokenizer, emoji: str, around: str) -> None:
    ids = extended(around.replace("{}", emoji), add_special_tokens=False)["input_ids"]
    without = extended(around.replace(" {}", "").replace("{}", "").strip(), add_special_tokens=False)["input_ids"]
    number = extended.get_vocab()[emoji.replace("\ufe0f", "").lower()]
    assert ids.count(number) == around.count("{}")
    assert set(ids) - {number} <= set(without), "the space before it is part of it"


def test_added_emoji_need_no_space_and_added_words_are_not_found_in_others(extended: Tokenizer) -> None:
    heart = extended("❤", add_special_tokens=False)["input_ids"]
    good = extended("good", add_special_tokens=False)["input_ids"]
    assert extended("good❤️❤", add_special_tokens=False)["input_ids"] == [*good, *heart, *heart]
    yolo = extended("yolo", add_special_tokens=False)["input_ids"][0]
    assert yolo not in extended("yolos swayolo", add_special_tokens=False)["input_ids"]


def test_texts_without_added_tokens_read_as_before() -> None:
    before, after = learned(lowercase=True), learned(lowercase=True)
    after.add_tokens(ADDED)
    for text in ["", "@user not bad at all http", "Why :( ...", "  two\n lines", "yo lo"]:
        assert after(text) == before(text)


def test_the_ids_that_stood_for_an_added_token_before_are_reported() -> None:
    tokenizer = learned(lowercase=True)
    pieces = tokenizer("😍", add_special_tokens=False)["input_ids"]
    size = len(tokenizer)
    assert tokenizer.add_tokens(["😍"]) == {size: pieces}
    assert tokenizer.add_tokens(["😍"]) == {}, "it is there"
    assert len(tokenizer) == size + 1
    assert tokenizer.add_tokens(["user", "good"]).keys() <= {size + 1}, "a word that is one token stays that one"


def test_a_second_addition_keeps_the_first(extended: Tokenizer) -> None:
    before = extended("❤ good 😍")["input_ids"]
    extended.add_tokens(["🔥"])
    assert extended("❤️ good 😍")["input_ids"] == before
    fire = extended("🔥", add_special_tokens=False)["input_ids"]
    assert extended("good 🔥", add_special_tokens=False)["input_ids"][-1:] == fire == [len(extended) - 1]


def test_added_tokens_are_saved_here_and_for_transformers(extended: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    extended.save_pretrained(tmp_path)
    again, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(str(tmp_path))
    assert again is not None
    for text in ["❤️ it, 😍😍", "so :) YOLO", "👩‍❤️‍👨🇩🇪 👍🏽 </s>"]:
        assert again(text) == extended(text)
    for text in ["❤️ it, 😍😍", "so :) YOLO", "👩‍❤️‍👨🇩🇪 👍🏽"]:
        assert list(theirs(text)["input_ids"]) == extended(text)["input_ids"]
    assert again.all_special_ids == sorted(SPECIAL)


def test_a_scratch_vocabulary_learns_nothing_of_what_is_added() -> None:
    texts = ["good 😀😀 day"] * 50
    sizes = ScratchEncoder(vocab_size=300)
    plain, added = (train_tokenizer(texts, sizes, max_length=32, added_tokens=tokens) for tokens in ([], ["😀"]))
    assert len(plain("😀", add_special_tokens=False)["input_ids"]) == 1
    assert "ðŁĺĢ" not in added.get_vocab()
    assert added("😀", add_special_tokens=False)["input_ids"] == [len(added) - 1]


def test_a_file_of_added_tokens_may_have_blank_lines_and_repetitions(tmp_path: Path) -> None:
    file = tmp_path / "emoji.txt"
    file.write_bytes("\ufeff❤️\r\n\n  😍  \n❤\n:)\n👍🏽".encode())
    assert read_added_tokens(file) == ("❤", "😍", ":)", "👍")


@pytest.mark.parametrize("line", [b"\xff", b"a" * 101, "\ufe0f".encode(), "🏽".encode(), b"a\x00b"])
def test_a_line_that_can_be_no_token_is_named(line: bytes, tmp_path: Path) -> None:
    file = tmp_path / "emoji.txt"
    file.write_bytes(b"ok\n\n" + line + b"\nmore")
    with pytest.raises(DataError, match="line 3"):
        read_added_tokens(file)


def test_a_file_of_added_tokens_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.txt"):
        read_added_tokens(tmp_path / "none.txt")
