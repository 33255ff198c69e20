"""Labelled texts for a model that exists: its names first, then the map, then what numbers usually mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.labelled import Labelled, read_labelled
from sentiment_hybrid.data.normalizers import get_normalizer
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.errors import DataError, LabelError

TWO, THREE = ("negative", "positive"), ("negative", "neutral", "positive")
SENTIMENT140 = {"0": "negative", "4": "positive"}


def read(folder: Path, values: list[str], labels: tuple[str, ...] = TWO, **settings: Any) -> Labelled:
    file = folder / "own.csv"
    lines = [f"text {number},,{value}" for number, value in enumerate(values)]
    file.write_text("\n".join(["text,nothing,label", *lines]) + "\n", encoding="utf-8")
    data = Data(**settings)
    return read_labelled(open_source(str(file), data), data, labels=labels, normalizer=get_normalizer("tweet"))


@pytest.mark.parametrize(("values", "message"), [([], "has no rows"), (["positive"], "has no texts")])
def test_a_header_alone_is_told_from_empty_texts(values: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, values, text_column="nothing")


@pytest.mark.parametrize(
    ("values", "labels", "settings", "expected"),
    [
        (["positive", " Negative "], TWO, {"label_map": SENTIMENT140}, [1, 0]),
        (["positive", "0", "4.0"], TWO, {"label_map": SENTIMENT140}, [1, 0, 1]),
        (["1", "2"], TWO, {"label_map": {"1": "positive", "2": "negative"}}, [1, 0]),
        (["0", "1"], TWO, {"label_map": {"5": "positive", "2": "negative"}}, [0, 1]),
        (["0", "1", "1"], ("1", "0"), {}, [1, 0, 0]),
        (["pos", "neg"], TWO, {}, [1, 0]),
        (["pos"], TWO, {}, [1]),
        (["1", "1"], TWO, {}, [1, 1]),
        (["0"], TWO, {}, [0]),
        (["4.0", "4"], TWO, {}, [1, 1]),
        (["2", "4"], THREE, {}, [1, 2]),
        (["1", "2"], THREE, {}, [1, 2]),
        (["4.0", "3"], ("3", "4"), {}, [1, 0]),
    ],
)
def test_values_are_read_as_labels_of_the_model(tmp_path, values, labels, settings, expected):
    assert read(tmp_path, values, labels, **settings).examples.labels.tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected", "unknown"),
    [
        (["0", "2.0", "4"], [0, 1], {"2": 1}),
        (["0", "1", "2"], [0, 1], {"1": 1}),
        (["positive", "mixed", "", "mixed", "negative"], [1, 0], {"mixed": 2, "": 1}),
        (["1", "maybe"], [1], {"maybe": 1}),
    ],
)
def test_unknown_labels_are_left_out_and_counted_when_asked_for(tmp_path, values, expected, unknown):
    labelled = read(tmp_path, values, unknown_labels="drop")
    assert labelled.examples.labels.tolist() == expected
    assert labelled.unknown == unknown


@pytest.mark.parametrize(
    ("values", "labels", "settings"),
    [
        (["1"], THREE, {}),  # neutral of 0, 1, 2, or positive of -1, 0, 1
        (["0", "1", "2"], TWO, {"label_map": {"1": "negative", "2": "positive"}}),
        (["positive", "neutral"], TWO, {}),
        (["positive", ""], TWO, {}),
        (["0", "4"], TWO, {"label_map": {"0": "sad", "4": "glad"}}),
    ],
)
def test_a_value_that_is_no_label_of_the_model_is_an_error_with_its_row(tmp_path, values, labels, settings):
    with pytest.raises(
        LabelError, match=r"own\.csv, line [23], data row [12]: .*is not one of the labels of the model"
    ) as caught:
        read(tmp_path, values, labels, **settings)
    assert "--label-map" in caught.value.hint


@pytest.mark.parametrize("values", [["0", "2"], ["1"], ["2.0", "negative"]])
def test_rows_are_not_left_out_for_a_number_with_several_meanings(tmp_path, values):
    with pytest.raises(LabelError, match="may stand for neutral or positive") as caught:
        read(tmp_path, values, THREE, unknown_labels="drop")
    assert "--label-map" in caught.value.hint
    coding = {"0": "negative", "1": "neutral", "2": "positive"}
    assert not read(tmp_path, values, THREE, unknown_labels="drop", label_map=coding | {"negative": "negative"}).unknown


def test_an_empty_raw_text_is_replaced_by_the_text_beside_it(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("text,text_clean,label\n,good day,positive\nBAD day!,bad day,negative\n", encoding="utf-8")
    data = Data(text_column="text_clean")
    source = open_source(str(file), data)
    labelled = read_labelled(source, data, labels=TWO, normalizer=get_normalizer("tweet"))
    assert labelled.examples.raw == ["good day", "BAD day!"]
