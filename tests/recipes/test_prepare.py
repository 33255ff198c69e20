"""The training files of mini: what is held out is in none of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from made_up import texts
from prepare import REPORT, SELECT, TWEETS_HELD_OUT, Row, Rules, held_out_later, keys_of, made_up_rows

NONE = np.empty(0, dtype=np.uint64)


def sentences(low: float, high: float, words: str = "film") -> Iterator[str]:
    """Sentences whose hash is between two shares, and that version 2 of the split key does not hold out."""
    for number in itertools.count():
        text = f"this {words} of number {number} was shot slowly"
        if low <= keys_of([text])[1][0] < high and not held_out_later([text])[0]:
            yield text


def part_of(row: Row, *others: Row, outside: list[str] | None = None, tweet_keys: np.ndarray = NONE) -> str | None:
    parts = Rules([row, *others], outside or [], tweet_keys).divide()
    return next((part for part, rows in parts.items() if row in rows), None)


TRAINED = next(sentences(TWEETS_HELD_OUT, SELECT))
SELECTING = next(sentences(SELECT, REPORT))
REPORTING = next(sentences(REPORT, 1.0))


def test_a_text_belongs_to_the_part_of_its_hash() -> None:
    for text, part in ((TRAINED, "train"), (SELECTING, "valid"), (REPORTING, "report")):
        assert part_of(Row(text, "positive", "sanders")) == part
        assert part_of(Row(text.upper() + "!!", "positive", "xed")) == part, "copies fall into one part"


def test_texts_held_out_elsewhere_are_trained_on_nowhere() -> None:
    row = Row(TRAINED, "positive", "sanders")
    assert part_of(row, outside=[TRAINED + "."]) is None
    assert part_of(row, outside=[f"I know {TRAINED}"]) is None, "a run of words of a held-out text"
    assert part_of(row, tweet_keys=keys_of([TRAINED])[0]) is None
    assert part_of(Row(SELECTING, "positive", "sanders"), outside=[SELECTING]) is None


def test_a_phrase_belongs_to_the_part_of_its_sentence() -> None:
    for sentence, part in ((TRAINED, "train"), (SELECTING, "valid"), (REPORTING, "report")):
        phrase = Row(" ".join(sentence.split()[3:6]), "neutral", "sst_phrases_train")
        found = part_of(phrase, Row(sentence, "neutral", "sst5_train"))
        hashed_out = keys_of([phrase.text])[1][0] >= SELECT or held_out_later([phrase.text])[0]
        assert found == part or (part == "train" and hashed_out and found is None)


def test_a_phrase_of_a_selecting_and_a_reporting_sentence_belongs_to_no_part() -> None:
    phrase = Row("shot slowly", "neutral", "sst_phrases_train")
    held = [Row(text, "neutral", "sst5_train") for text in (SELECTING, REPORTING)]
    assert part_of(phrase, *held) is None
    assert [part_of(phrase, one) for one in held] == ["valid", "report"]


def test_a_phrase_of_a_held_out_sentence_of_another_film_set_is_not_trained_on() -> None:
    phrase = Row("shot slowly", "neutral", "sst2_train_phrases")
    assert part_of(phrase, Row(REPORTING, "neutral", "rt_polarity")) is None


def test_emoji_meanings_are_trained_on_whatever_their_hash() -> None:
    assert all(part_of(Row(text, "positive", "lex_emotag")) == "train" for text in "😀😡🎉🙃")


def test_tweets_that_people_labelled_or_that_are_held_out_are_not_free() -> None:
    free, later = itertools.islice(sentences(TWEETS_HELD_OUT, SELECT, "tweet"), 2)
    held = next(text for n in itertools.count() if held_out_later([text := f"a tweet, the {n}th of them all"])[0])
    rules = Rules([Row(TRAINED, "positive", "sanders"), Row(REPORTING, "positive", "sanders")], [later], NONE)
    asked = [free, TRAINED + "!", later, held, " ".join(REPORTING.split()[:5])]
    assert rules.free(asked).tolist() == [True, False, False, False, False]


def test_made_up_rows_have_no_copy_of_a_held_out_text() -> None:
    everything = [row.text for row in made_up_rows(300, [], NONE)]
    assert everything == [text for text, _ in texts(300)]
    longer = [text for text in everything if len(text.split()) > 2]
    held, kept_out = longer[0], longer[-1]
    left = [row.text for row in made_up_rows(300, [held.upper() + "!"], keys_of([kept_out])[0])]
    assert not {held, kept_out} & set(left)
    assert len(left) >= 290, "the others stay"


def test_a_held_out_tweet_of_one_word_does_not_take_the_word_away() -> None:
    word = next(text for text, _ in texts(300) if len(text.split()) == 1)
    assert word in [row.text for row in made_up_rows(300, [], keys_of([word])[0])]
    assert word not in [row.text for row in made_up_rows(300, [word], NONE)]
