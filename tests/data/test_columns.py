"""Which columns are taken, and what label values mean; every surprise names the row and the value."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.columns import Columns, choose, find_text, text_note
from sentiment_hybrid.data.labels import LabelValues, canonical, labelling_of, resolve
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
        (["text;label"], {}, "no known text column; its columns are 'text;label'", "Then add --delimiter ';'"),
        (["1;bob;worst day"], {}, "no known text column", "Then add --delimiter ';'"),
        (["a\tb"], {}, "no known text column", r"Then add --delimiter $'\t'"),
        (["text:label"], {}, "no known text column", "Then add --delimiter :"),
        (["text,label"], {}, "no known text column", "Then add --delimiter ,"),
        (["Wow! great"], {}, "no known text column", "The first line must be a header"),
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
        values(*(f"text {number}" for number in range(51)))


def test_more_values_can_be_allowed() -> None:
    with pytest.raises(LabelError) as caught:
        values(*(f"class {number}" for number in range(51)))
    assert "data.max_labels" in caught.value.hint
    found = LabelValues("f.csv", "label", most=100)
    for number in range(77):
        found.add(f"class {number}", number)
    assert len(resolve([found], Data(max_labels=100))[0].labels) == 77


@pytest.mark.parametrize(
    ("given", "labels"),
    [(("joy", "neutral", "anger"), ("anger", "joy", "neutral")), (("positive", "bad"), ("bad", "positive"))],
)
def test_a_single_known_name_beside_others_is_a_name_like_these(
    given: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    assert resolve([values(*given)], Data())[0].labels == labels


@settings(max_examples=200)
@given(st.text(st.sampled_from("aAéE\u0301\u200b\ufeff 01_.-"), max_size=8))
def test_the_identity_of_a_label_is_stable(value: str) -> None:
    one = canonical(value)
    assert canonical(one) == one
    assert canonical(f" \ufeff{unicodedata.normalize('NFD', value)}\u200b\n") == one


@pytest.mark.parametrize("name", ["01", "1_0", "1e5", "٣", "1,0", "0x1"])
def test_names_that_are_no_plain_numbers_stay_as_written(name: str) -> None:
    assert canonical(name) == name


def test_labels_that_differ_by_case_alone_are_refused_or_merged() -> None:
    sources = [values("Spam", "ham"), values("spam", "ham", source="test.csv")]
    with pytest.raises(LabelError) as caught:
        resolve(sources, Data())
    assert "'Spam' (f.csv, row 1), 'spam' (test.csv, row 1)" in caught.value.message
    assert "data.label_case=merge" in caught.value.hint
    first, second = resolve(sources, Data(label_case="merge"))
    assert first.labels == second.labels == ("ham", "spam")
    assert first.codes["Spam"] == second.codes["spam"] == 1
    assert "'Spam' and 'spam' as 'spam'" in first.merged


def test_a_map_tells_labels_apart_that_differ_by_case_alone() -> None:
    (labelling,) = resolve([values("Spam", "spam")], Data(label_map={"Spam": "a", "spam": "b"}))
    assert labelling.codes == {"Spam": 0, "spam": 1}


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(st.text("abAB", min_size=1, max_size=2), min_size=2, max_size=4, unique_by=str.casefold))
def test_a_model_reads_its_labels_in_any_case_as_data_did(draw: st.DataObject, labels: list[str]) -> None:
    (labelling,) = resolve([values(*labels)], Data())
    given_ = [draw.draw(st.sampled_from([name, name.upper(), f" {name.lower()}\u200b"])) for name in labels]
    codes = labelling_of(values(*given_), Data(), labelling.labels, coding=labelling.coding).codes
    assert [labelling.labels[codes[value]] for value in given_] == labels


def test_a_model_of_both_spellings_keeps_them_apart() -> None:
    found = labelling_of(values("Spam", "spam", "SPAM"), Data(unknown_labels="drop"), ("Spam", "spam"))
    assert found.codes == {"Spam": 0, "spam": 1}, "a third spelling is neither"


def test_a_file_of_two_spellings_of_a_models_label_is_refused_or_merged() -> None:
    with pytest.raises(LabelError, match="differ by case alone"):
        labelling_of(values("Spam", "spam", "ham"), Data(), ("ham", "spam"))
    merged = labelling_of(values("Spam", "spam", "ham"), Data(label_case="merge"), ("ham", "spam"))
    assert merged.codes == {"ham": 0, "Spam": 1, "spam": 1}
    known = {"Spam": "spam", "spam": "spam", "ham": "ham"}
    assert labelling_of(values("Spam", "spam"), Data(), ("ham", "spam"), coding=known).codes == {"Spam": 1, "spam": 1}


@pytest.mark.parametrize(
    ("training", "given", "expected"),
    [
        (("0", "1", "2"), ("0", "1"), {"0": "negative", "1": "neutral"}),
        (("0", "1", "2"), ("2.0",), {"2.0": "positive"}),
        (("0", "2", "4"), ("2", "4"), {"2": "neutral", "4": "positive"}),
        (("0", "1", "2"), ("neg", "positive"), {"neg": "negative", "positive": "positive"}),
        (("0", "4"), ("0", "2", "4"), {"0": "negative", "4": "positive"}),
        (("negative", "positive"), ("0", "1"), {"0": "negative", "1": "positive"}),
    ],
)
def test_values_mean_to_a_model_what_they_meant_in_its_training(
    training: tuple[str, ...], given: tuple[str, ...], expected: dict[str, str]
) -> None:
    (labelling,) = resolve([values(*training)], Data())
    data = Data(unknown_labels="drop")
    found = labelling_of(values(*given), data, labelling.labels, coding=labelling.coding)
    assert {value: found.labels[code] for value, code in found.codes.items()} == expected


def test_a_value_that_is_the_name_of_another_label_means_what_it_meant_in_training() -> None:
    data = Data(label_map={"0": "1", "1": "2"})
    (labelling,) = resolve([values("0", "1")], data)
    assert labelling_of(values("1"), Data(), labelling.labels, coding=labelling.coding).codes == {"1": 1}


@pytest.mark.parametrize(("training", "given"), [(("0", "1", "2"), ("-1", "0", "1")), (("0", "1"), ("-1", "0", "1"))])
def test_numbers_of_another_scheme_than_in_training_are_refused(
    training: tuple[str, ...], given: tuple[str, ...]
) -> None:
    (labelling,) = resolve([values(*training)], Data())
    with pytest.raises(LabelError, match="whose usual meaning is not that of the model's training"):
        labelling_of(values(*given), Data(unknown_labels="drop"), labelling.labels, coding=labelling.coding)


@pytest.mark.parametrize(
    ("columns", "trained_on", "chosen", "note"),
    [
        (["text", "text_clean"], "text_clean", "text_clean", "as in the model's training"),
        (["text", "text_clean"], None, "text", ""),
        (["text"], "text_clean", "text", "the model was trained on 'text_clean'"),
        (["Text", "id"], "text", "Text", ""),
        (["tweet"], "text", "tweet", ""),
        (["words", "text"], "words", "words", "as in the model's training"),
    ],
)
def test_a_model_reads_its_own_column_or_says_what_it_reads(
    columns: list[str], trained_on: str | None, chosen: str, note: str
) -> None:
    assert find_text(columns, None, source="f.csv", trained_on=trained_on) == chosen
    said = text_note(columns, chosen, trained_on, source="f.csv")
    assert note in said
    assert bool(note) == bool(said)


def test_names_made_of_digits_stay_as_they_are_written() -> None:
    assert resolve([values("1_0", "1_1")], Data())[0].labels == ("1_0", "1_1")
    assert resolve([values("01", "02")], Data())[0].labels == ("01", "02")
    assert resolve([values("0.0", "4.0")], Data())[0].labels == ("negative", "positive")
    assert resolve([values(" 0", "+1")], Data())[0].labels == ("negative", "positive")


def test_the_example_of_a_label_map_has_the_values_of_the_file() -> None:
    with pytest.raises(LabelError) as caught:
        resolve([values("1", "3", "5")], Data())
    assert "--label-map 1=negative --label-map 5=positive" in str(caught.value.hint)
