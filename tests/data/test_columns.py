"""Which columns are taken, and what label values mean; every surprise names the row and the value."""

from __future__ import annotations

import pytest

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.columns import MOST_LABELS, Columns, LabelValues, choose, find_text, resolve
from sentiment_hybrid.errors import ColumnError, LabelError


def values(*given: str, source: str = "f.csv") -> LabelValues:
    found = LabelValues(source, "label")
    for row, value in enumerate(given, 1):
        found.add(value, row)
    return found


KAGGLE = ["target", "text", "text_clean", "text_length", "text_clean_length"]


@pytest.mark.parametrize(
    ("columns", "settings", "expected"),
    [
        (KAGGLE, {}, Columns("text", "target", "text")),
        (KAGGLE, {"text_column": "text_clean"}, Columns("text_clean", "target", "text")),
        (KAGGLE, {"raw_text_column": "text_clean"}, Columns("text", "target", "text_clean")),
        (["source", "id", "label", "text"], {}, Columns("text", "label", "text")),
        (["airline_sentiment", "negativereason", "text"], {}, Columns("text", "airline_sentiment", "text")),
        (["Review", "Sentiment"], {}, Columns("Review", "Sentiment", "Review")),
        (["clean_text", "category"], {}, Columns("clean_text", "category", "clean_text")),
        (["clean_tweet", "tweet", "class"], {"text_column": "CLEAN_TWEET"}, Columns("clean_tweet", "class", "tweet")),
        (["a", "b"], {"text_column": "a", "label_column": "B"}, Columns("a", "b", "a")),
    ],
)  # fmt: skip
def test_columns_are_found(columns: list[str], settings: dict[str, str], expected: Columns) -> None:
    assert choose(columns, Data(**settings), source="f.csv") == expected


@pytest.mark.parametrize(
    ("columns", "settings", "message", "hint"),
    [
        (["txet", "label"], {}, "no known text column; its columns are 'txet', 'label'", "'txet'"),
        (["text", "labell"], {}, "no known label column", "'labell'"),
        (["text", "label"], {"text_column": "tex"}, "no column 'tex'", "'text'"),
        (["review", "comment", "label"], {}, "several possible text columns", "--text-column"),
        (["text", "sentiment", "class"], {}, "'sentiment', 'class'", "--label-column"),
        (["text;label"], {}, "no known text column; its columns are 'text;label'", "delimiter seems to be ';'"),
        (["text", "label"], {"label_column": "text"}, "same column", ""),
        (["text", "label"], {"raw_text_column": "raw"}, "no column 'raw'", "data.raw_text_column"),
    ],
)
def test_a_missing_or_doubtful_column_is_an_error_with_a_way_out(
    columns: list[str], settings: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(ColumnError) as caught:
        choose(columns, Data(**settings), source="f.csv")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_an_only_column_holds_the_text() -> None:
    assert find_text(["whatever"], None, source="f.csv") == "whatever"


NEGATIVE_POSITIVE = ("negative", "positive")
THREE = ("negative", "neutral", "positive")


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (("4.0", "0.0"), NEGATIVE_POSITIVE),
        (("4", "0.0", "0", " 4 "), NEGATIVE_POSITIVE),
        (("0", "1"), NEGATIVE_POSITIVE),
        (("1", "-1"), NEGATIVE_POSITIVE),
        (("1", "-1", "0"), THREE),
        (("2", "0", "1"), THREE),
        (("4", "0", "2"), THREE),
        (("Positive", "NEG", "neu", "negative "), THREE),
        (("1", "2", "10", "3", "4", "5", "6", "7", "8", "9"), tuple(str(n) for n in range(1, 11))),
        (("joy", "anger", "fear"), ("anger", "fear", "joy")),
    ],
)
def test_known_schemes_are_understood(given: tuple[str, ...], labels: tuple[str, ...]) -> None:
    (labelling,) = resolve([values(*given)], Data())
    assert labelling.labels == labels
    assert set(labelling.codes) == set(given)


def test_numbers_keep_their_order() -> None:
    (labelling,) = resolve([values("4.0", "0.0")], Data())
    assert labelling.labels[labelling.codes["4.0"]] == "positive"


def test_a_label_map_gives_meaning_and_order() -> None:
    data = Data(label_map={"5": "good", "1": "bad"})
    (labelling,) = resolve([values("1.0", "5")], data)
    assert labelling.labels == ("good", "bad")
    assert labelling.codes == {"1.0": 1, "5": 0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("0", "4", "3"), "row 3: unknown label '3'"),
        (("positive", "negative", "mixed"), "row 3: unknown label 'mixed'"),
        (("positive", "negative", ""), "row 3: empty label"),
        (("0", "1", "yes"), "row 3: unknown label 'yes'"),
        (("0", "7"), "the meaning of the labels '0', '7'"),
        (("4.0",), "only one class"),
        (("positive", ""), "only one class"),
    ],
)
def test_a_surprising_label_is_an_error(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(LabelError) as caught:
        resolve([values(*given)], Data())
    assert message in caught.value.message
    assert caught.value.hint


def test_a_value_outside_the_label_map_is_named() -> None:
    with pytest.raises(LabelError, match="row 2: unknown label '3'"):
        resolve([values("1", "3", "5")], Data(label_map={"1": "bad", "5": "good"}))


def test_unknown_labels_can_be_dropped() -> None:
    (labelling,) = resolve([values("positive", "mixed", "negative", "")], Data(unknown_labels="drop"))
    assert set(labelling.codes) == {"positive", "negative"}


def test_one_class_stays_an_error_when_unknown_labels_are_dropped() -> None:
    with pytest.raises(LabelError, match="only one class"):
        resolve([values("positive")], Data(unknown_labels="drop"))


def test_official_splits_may_name_the_same_labels_differently() -> None:
    train, test = resolve([values("0", "1", "2"), values("neutral", "positive", "negative")], Data())
    assert train.labels == test.labels == THREE
    assert train.codes["2"] == test.codes["positive"]


def test_official_splits_with_different_labels_are_an_error() -> None:
    with pytest.raises(LabelError, match=r"test\.csv, row 3"):
        resolve([values("0", "4"), values("0", "4", "3", source="test.csv")], Data())


def test_many_different_values_are_no_labels() -> None:
    with pytest.raises(LabelError, match="is probably not a label column"):
        values(*(f"text {number}" for number in range(MOST_LABELS + 1)))


def test_names_made_of_digits_stay_as_they_are_written() -> None:
    assert resolve([values("1_0", "1_1")], Data())[0].labels == ("1_0", "1_1")
    assert resolve([values("01", "02")], Data())[0].labels == ("01", "02")
    assert resolve([values("0.0", "4.0")], Data())[0].labels == ("negative", "positive")
    assert resolve([values(" 0", "+1")], Data())[0].labels == ("negative", "positive")


def test_the_example_of_a_label_map_has_the_values_of_the_file() -> None:
    with pytest.raises(LabelError) as caught:
        resolve([values("1", "3", "5")], Data())
    assert "--label-map 1=negative --label-map 5=positive" in str(caught.value.hint)
