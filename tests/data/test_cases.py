"""Small files of ../shared/cases that once came out wrong are read and written as their INDEX.tsv says."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas
import pytest

from sentiment_hybrid.commands import data as data_command
from sentiment_hybrid.config.schema import Config, Data
from sentiment_hybrid.data import writers
from sentiment_hybrid.data.columns import find_text
from sentiment_hybrid.data.normalizers import get_normalizer
from sentiment_hybrid.data.sources import fast_csv, open_source, open_stream, texts_of
from sentiment_hybrid.errors import ColumnError, SourceError

#: Kinds that are tested where the code is: labels, calibration, encoders, columns, validation splits.
ELSEWHERE = {"10", "13", "14", "17", "20", "24", "29", "31"}


@pytest.fixture
def cases(shared: Path) -> Path:
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip("../shared has no cases")
    return folder


def rows(path: Path, **options: Any) -> list[dict[str, Any]]:
    """The rows as `predict` reads them."""
    found = open_source(str(path), Data(**options), offline=True).batches(native=True)
    return [
        dict(zip(batch.columns, values, strict=True))
        for batch in found
        for values in zip(*batch.columns.values(), strict=True)
    ]


def texts(path: Path) -> list[str | None]:
    """The texts that `predict` would label."""
    source = open_source(str(path), Data(), offline=True)
    return [
        text
        for batch in source.batches(native=True)
        for text in texts_of(batch, find_text(source.columns, None, source=source.name), source=source.name)
    ]


def prepared(source: Path, folder: Path) -> Counter[str]:
    """Rows by label after `senthy data`."""
    config = Config.model_validate({"data": {"source": str(source)}, "paths": {"data_db": folder / "x.db"}})
    total: Counter[str] = Counter()
    for counts in data_command.run(config).report["splits"].values():
        total.update(counts)
    return total


def test_every_case_is_tested_here_or_elsewhere(cases: Path) -> None:
    with (cases / "INDEX.tsv").open(encoding="utf-8", newline="") as file:
        numbers = {row["number"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    here = {name.split("_")[2] for name in globals() if name.startswith("test_case_")}
    assert numbers == here | ELSEWHERE


def test_case_01_texts_in_bytes(cases: Path) -> None:
    assert texts(cases / "01-binary-text.parquet")[0] == "I love this so much"


def test_case_03_labels_in_bytes(cases: Path, tmp_path: Path) -> None:
    assert set(prepared(cases / "03-binary-label.parquet", tmp_path)) == {"negative", "positive"}


def test_case_04_nan_is_null(cases: Path) -> None:
    assert texts(cases / "04-nan-text.jsonl")[1] is None


def test_case_06_quotes_escaped_by_backslashes(cases: Path) -> None:
    assert texts(cases / "06-backslash-quote.csv") == [
        'the screen is only 5"', "worst day ever", "I love it", 'my tv is 55"', "what a lovely day",
    ]  # fmt: skip


def test_case_07_rows_with_escaped_quotes_are_all_kept(cases: Path, tmp_path: Path) -> None:
    assert prepared(cases / "07-backslash-quote-data.csv", tmp_path).total() == 300


def test_case_08_a_lone_carriage_return_survives(cases: Path, tmp_path: Path) -> None:
    read = rows(cases / "08-lone-cr.jsonl")
    with writers.open_writer(tmp_path / "o.csv", list(read[0])) as writer:
        writer.write({name: [row[name] for row in read] for name in read[0]})
    assert list(pandas.read_csv(tmp_path / "o.csv")["text"]) == [row["text"] for row in read]
    assert len(read) == 3


def test_case_09_rows_in_the_write_ahead_log_count(cases: Path, tmp_path: Path) -> None:
    with (cases / "09-wal-stale.rows.csv").open(encoding="utf-8", newline="") as file:
        all_rows = [(row["text"], row["y"]) for row in csv.DictReader(file)]
    database = sqlite3.connect(tmp_path / "wal.db")
    database.execute("PRAGMA journal_mode = wal")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("CREATE TABLE tweets (text TEXT, label INTEGER)")
    for part, total in ((all_rows[:200], 200), (all_rows[200:], 300)):
        database.executemany("INSERT INTO tweets VALUES (?, ?)", part)
        database.commit()
        assert prepared(tmp_path / "wal.db", tmp_path).total() == total
    database.close()


@pytest.mark.parametrize("name", ["16-semicolon.csv", "16c-lfs-pointer.csv", "16d-html.csv", "16e-headerless.csv"])
def test_case_16_one_column_is_no_licence(name: str, cases: Path) -> None:
    if name == "16-semicolon.csv":
        assert texts(cases / name)[2] == "worst day ever"
    else:
        with pytest.raises((SourceError, ColumnError)) as caught:
            texts(cases / name)
        assert caught.value.hint


def test_case_18_what_follows_a_handle_or_a_link_is_text(cases: Path, tmp_path: Path) -> None:
    assert prepared(cases / "18-cjk-handle.csv", tmp_path).total() == 400
    (text,) = texts(cases / "18c-dash-after-link.txt")
    assert "worst service ever" in get_normalizer("tweet")(text or "")


def test_case_19_a_quoted_line_end_that_two_blocks_share(tmp_path: Path) -> None:
    body, number = b"", 0
    while len(body) < fast_csv.BLOCK - 400:
        body += b'%d,"row %d is a fine day for all"\n' % (number, number)
        number += 1
    row = b'%d,"' % number
    body += row + b"x" * (fast_csv.BLOCK - 1 - len(body) - len(row)) + b'\r\nsecond line of the text"\n'
    for head in (b"id,text\n", b'"id","text"\n'):
        for shift in range(3):  # the header may be read with the first block, or before it
            content = head + body.replace(b"row 0", b"row 0" + b"y" * shift)
            (tmp_path / "19.csv").write_bytes(content)
            expected = list(csv.reader(io.StringIO(content.decode(), newline="")))[1:]
            assert texts(tmp_path / "19.csv") == [row[1] for row in expected]


@pytest.mark.parametrize("name", ["21-pandas.tsv", "21c-pandas-multiline.tsv"])
def test_case_21_a_tsv_as_pandas_writes_it(name: str, cases: Path, tmp_path: Path) -> None:
    expected = pandas.read_csv(cases / name, sep="\t")["text"].tolist()
    assert texts(cases / name) == expected
    with writers.open_writer(tmp_path / "o.tsv", ["text", "prediction"]) as writer:
        writer.write({"text": texts(cases / name), "prediction": ["positive"] * len(expected)})
    assert pandas.read_csv(tmp_path / "o.tsv", sep="\t")["text"].tolist() == expected
    assert texts(tmp_path / "o.tsv") == expected


def test_case_23_json_on_a_narrow_standard_output(cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stdout)
    with writers.open_writer(None, ["text"], kind="jsonl") as writer:
        writer.write({"text": texts(cases / "23-emoji.csv")})
    lines = stdout.buffer.getvalue().decode("latin-1").splitlines()  # type: ignore[attr-defined]
    assert [json.loads(line)["text"] for line in lines] == texts(cases / "23-emoji.csv")


def test_case_25_booleans_are_one_thing_in_every_format(cases: Path, tmp_path: Path) -> None:
    assert prepared(cases / "25-bool.csv", tmp_path) == prepared(cases / "25-bool.parquet", tmp_path)


def test_case_26_an_object_is_no_text(cases: Path) -> None:
    with pytest.raises(SourceError, match="row 1: no text in column 'text': an object"):
        texts(cases / "26-nested-text.jsonl")


def test_case_27_half_a_character_is_replaced(cases: Path) -> None:
    assert texts(cases / "27-lone-surrogate.jsonl")[0] == "I love it \ufffd"


@pytest.mark.parametrize("name", ["16-semicolon", "06-backslash-quote", "23-emoji"])
def test_a_pipe_is_read_like_the_file(name: str, cases: Path) -> None:
    path = cases / f"{name}.csv"
    with path.open("rb") as file:
        found = open_stream(file, Data(), kind="csv").batches(native=True)
        assert [text for batch in found for text in batch.columns["text"]] == texts(path)
