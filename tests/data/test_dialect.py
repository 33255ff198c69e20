"""Encoding, delimiter and quoting of text files are recognised, and what is malformed is an error."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.sources.dialect import detect_dialect
from sentiment_hybrid.errors import SourceError

DELIMITERS = {"csv": ",;\t|", "tsv": "\t,;|"}


def read(path: Path, **options: Any) -> list[tuple[Any, ...]]:
    source = open_source(str(path), Data(**options))
    return [row for batch in source.batches() for row in zip(*batch.columns.values(), strict=True)]


TEXTS = st.lists(st.sampled_from([*"abc éß€“”😀.,;|\t\n'\"", '""', "\r\n"]), max_size=12).map("".join)
ROWS = st.lists(st.tuples(st.integers(0, 999).map(str), TEXTS, st.sampled_from(["0", "1"])), min_size=2, max_size=12)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS, delimiter=st.sampled_from(",;\t|"), kind=st.sampled_from(["csv", "tsv"]),
    ending=st.sampled_from(["\n", "\r\n"]), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    style=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)  # fmt: skip
def test_what_a_writer_of_any_common_dialect_wrote_is_read(
    rows: list[tuple[str, str, str]], delimiter: str, kind: str, ending: str, encoding: str, style: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"rows.{kind}"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=ending, quoting=style)
        writer.writerows([("id", "text", "label"), *rows])
    assert read(path) == rows


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, delimiter=st.sampled_from(",;"))
def test_quotes_escaped_by_backslashes_are_read_or_refused(
    rows: list[tuple[str, str, str]], delimiter: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n", escapechar="\\", doublequote=False,
                            quoting=csv.QUOTE_ALL)  # fmt: skip
        writer.writerows([("id", "text", "label"), *rows])
    assert read(path, quoting="backslash") == rows
    try:
        assert read(path) == rows
    except SourceError as error:
        assert "quot" in error.message or "fields, the header has" in error.message


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text(st.sampled_from('ab",'), max_size=8), min_size=1, max_size=8))
def test_rows_are_those_of_a_strict_reader_or_an_error(lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    content = "\n".join(["text,label", *lines])
    path.write_text(content, encoding="utf-8")
    try:
        expected = [tuple(row) for row in csv.reader(content.splitlines(keepends=True), strict=True) if row][1:]
    except csv.Error:
        expected = None
    try:
        found = read(path)
    except SourceError:
        assert expected is None or any(len(row) != 2 for row in expected) or ("text", "label") in expected
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("semicolons.csv", b"id;user;text\n1;anna;I love it, so\n3;bob;worst day\n", ("1", "anna", "I love it, so")),
        ("separator.csv", b"sep=;\r\nid;text\r\n1;fine, I say\r\n", ("1", "fine, I say")),
        ("tabs.csv", b"id\ttext\n1\tI say \"no\", thanks\n", ("1", 'I say "no", thanks')),
        ("windows.csv", b"id,text\n1,caf\xe9 \x80 \x93quoted\x94\n", ("1", "café € “quoted”")),
        ("mojibake.csv", b"id,text\n1,caf\xe9 \x81\n", ("1", "café \x81")),
        ("escaped.csv", b'id,text,label\n1,"only 5\\"",0\n2,"worst day",0\n3,"is 55\\"",1\n', ("1", 'only 5"', "0")),
        ("pandas.tsv", b'text\tlabel\n"He said ""great"" and"\t1\nplain\t0\nit\'s\t1\n', ('He said "great" and', "1")),
        ("lines.tsv", b'text\tlabel\n"two\nlines"\t1\nplain\t0\n', ("two\nlines", "1")),
        ("raw.tsv", b'text\tlabel\n"He said" it\t1\n"quoted whole"\t0\n', ('"He said" it', "1")),
        ("empty.csv", b"id,text,,\n1,fine,,\n", ("1", "fine", "", "")),
        ("joined.csv", b"id,text\n1,one\n\xef\xbb\xbf2,two\n", ("1", "one")),
        ("record.csv", b"id,text\n1,\"a\x1eb\"\n", ("1", "a\x1eb")),
    ],
)  # fmt: skip
def test_files_as_people_have_them_are_read(
    name: str, content: bytes, expected: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    rows = read(tmp_path / name)
    assert rows[0] == expected
    assert not any("\ufeff" in value for row in rows for value in row)


def test_an_unusual_dialect_is_said_in_one_line_and_a_usual_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, content in (("usual.csv", "id,text\n1,caf\xe9\n"), ("usual.tsv", 'id\ttext\n1\t"a" b\n')):
        (tmp_path / name).write_text(content, encoding="utf-8")
        read(tmp_path / name)
    assert caplog.text == ""
    (tmp_path / "rows.csv").write_bytes(b"id;text\n1;caf\xe9\n")
    read(tmp_path / "rows.csv")
    (message,) = [record.getMessage() for record in caplog.records]
    assert "cp1252" in message
    assert "semicolons" in message
    assert "--delimiter" in message
    caplog.clear()
    assert read(tmp_path / "rows.csv", encoding="latin-1", delimiter=";") == [("1", "café")]
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'id,text\n1,fine\n2,"a "b" c"\n', "line 3, data row 2: malformed quoting"),
        (b'id,text\n1,"open\n2,lost\n', "line 2, data row 1: a quote is never closed"),
        (b'id,text\n1,a\nid,text\n2,b\n', "line 3, data row 2: the header again"),
        (b'id,text\n1,a\n\xef\xbb\xbfid,text\n2,b\n', "data row 2: the header again"),
    ],
)  # fmt: skip
def test_malformed_rows_are_an_error_with_their_line_or_skipped(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(path)
    assert message in caught.value.message
    assert sum(sum(batch.skipped.values()) for batch in open_source(str(path), Data(bad_rows="skip")).batches()) == 1


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Привет, отличный день", "cp1251"), ("Привет, отличный день", "koi8-r"), ("καλημέρα", "cp1253"),
        ("最高の日。", "shift_jis"), ("今天很好", "gb18030"), ("오늘은 좋은 날", "euc_kr"), ("יום טוב", "cp1255"),
    ],
)  # fmt: skip
def test_a_text_of_another_script_is_not_read_as_western_letters(text: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(f"number;text\n1;{text}\n2;an ordinary day\n".encode(encoding))
    with pytest.raises(SourceError, match="neither UTF-8 nor in a Western European encoding") as caught:
        read(path)
    assert "--encoding cp1251" in caught.value.hint
    assert read(path, encoding=encoding) == [("1", text), ("2", "an ordinary day")]


def test_western_letters_are_few_or_stand_alone(tmp_path: Path) -> None:
    for text in ("à été déjà là, où ça ?", "“Ü” – ÄÖÜ heißt über", "é", "plain " * 40 + "ÿÿÿÿ"):
        (tmp_path / "rows.csv").write_bytes(f"number;text\n1;{text}\n".encode("cp1252"))
        assert read(tmp_path / "rows.csv") == [("1", text.strip())], text


def test_a_quoted_line_end_that_two_blocks_share_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentiment_hybrid.data.sources import fast_csv

    monkeypatch.setattr(fast_csv, "BLOCK", 64)
    rows = [(str(number), "x" * number + "\r\nsecond line") for number in range(70)]
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("id", "text"), *rows])
    assert read(path) == rows


def test_a_tsv_of_raw_texts_keeps_quotes_that_are_part_of_the_texts(tmp_path: Path) -> None:
    raw = ['"All of it in quotes"', 'he said "hi" to us', "plain", '"Hello" she said, and left', 'an open " quote']
    path = tmp_path / "raw.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\tpositive\n" for text in raw * 3), encoding="utf-8")
    assert [
        text for batch in open_source(str(path), Data()).batches(["text"]) for text in batch.columns["text"]
    ] == raw * 3


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"])), min_size=3, max_size=30))
def test_what_a_writer_quoted_in_a_tsv_is_recognized(texts: list[str]) -> None:
    table = [["text", "label"], *([f'say "{text}"', "positive"] for text in texts)]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter="\t", lineterminator="\n").writerows(table)
    dialect = detect_dialect(file.getvalue(), kind="tsv", whole=True)
    assert list(dialect.reader(io.StringIO(file.getvalue(), newline=""))) == table
