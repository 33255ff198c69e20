"""Texts without labels: of every kind of file, each once, some held out, in an order that rows do not decide."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.normalizers import get_normalizer
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.unlabelled import Unlabelled, read_unlabelled
from sentiment_hybrid.errors import ColumnError, DataError

TEXTS = [f"tweet {number} of @user{number} today" for number in range(200)]


def read(path: Path, *, valid_size: float = 0.1, **data: object) -> Unlabelled:
    settings = Data.model_validate(data)
    return read_unlabelled(
        open_source(str(path), settings), settings, normalizer=get_normalizer("tweet"), valid_size=valid_size
    )


def csv_of(path: Path, texts: list[str]) -> Path:
    lines = [f'"{text}",{place}' for place, text in enumerate(texts)]
    path.write_text("\n".join(["text,id", *lines]) + "\n", encoding="utf-8")
    return path


def json_lines_of(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts), encoding="utf-8")
    return path


def lines_of(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def zipped_of(path: Path, texts: list[str]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("".join(f"{text}\n" for text in texts))
    return path


def database_of(path: Path, texts: list[str]) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tweets (text TEXT, id INTEGER)")
        connection.executemany("INSERT INTO tweets VALUES (?, 1)", [(text,) for text in texts])
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("texts.csv", csv_of),
        ("texts.jsonl", json_lines_of),
        ("texts.txt", lines_of),
        ("texts.txt.gz", zipped_of),
        ("texts.db", database_of),
    ],
)
def test_every_kind_of_file_gives_the_same_texts(
    tmp_path: Path, name: str, write: Callable[[Path, list[str]], Path]
) -> None:
    expected = read(csv_of(tmp_path / "expected.csv", TEXTS))
    found = read(write(tmp_path / name, TEXTS))
    assert found == expected
    assert len(found.train) + len(found.valid) == 200
    assert "tweet 7 of @user today" in found.train + found.valid, "cleaned"


def test_the_order_of_rows_decides_nothing(tmp_path: Path) -> None:
    mixed = TEXTS.copy()
    random.Random(1).shuffle(mixed)
    assert read(lines_of(tmp_path / "a.txt", TEXTS)) == read(lines_of(tmp_path / "b.txt", mixed))


def test_repeats_and_empty_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    texts = [*TEXTS, "TWEET 5, of @someone today!", TEXTS[9], " ", ""]
    found = read(csv_of(tmp_path / "texts.csv", texts))
    assert len(found.train) + len(found.valid) == 200
    assert found.dropped == {"repeat": 2, "empty text": 2}


def test_a_text_and_its_repeats_are_never_on_both_sides(tmp_path: Path) -> None:
    found = read(lines_of(tmp_path / "texts.txt", [*TEXTS, *(text.upper() for text in TEXTS)]), valid_size=0.4)
    assert not {text.lower() for text in found.train} & {text.lower() for text in found.valid}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.floats(0.02, 0.45), seed=st.integers(0, 1000))
def test_about_the_share_asked_for_is_held_out_and_a_larger_one_holds_the_smaller(
    tmp_path: Path, size: float, seed: int
) -> None:
    path = lines_of(tmp_path / "texts.txt", [f"tweet {number}" for number in range(500)])
    found = read(path, valid_size=size, split_seed=seed)
    assert len(found.valid) / 500 == pytest.approx(size, abs=5 * (size / 500) ** 0.5)
    assert set(found.valid) <= set(read(path, valid_size=size + 0.04, split_seed=seed).valid)


def test_a_file_without_any_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no texts"):
        read(csv_of(tmp_path / "texts.csv", ["", " "]))


def test_the_column_can_be_named_and_must_be_there(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "texts.csv", TEXTS)
    path.write_text(path.read_text().replace("text,id", "said,id"))
    assert read(path, text_column="said").train
    with pytest.raises(ColumnError, match="tweet_text"):
        read(path, text_column="tweet_text")
    with pytest.raises(ColumnError, match="no known text column"):
        read(path)
