"""Values that are not text mean the same in every format, or are refused with their row and column."""

from __future__ import annotations

import bz2
import contextlib
import decimal
import gzip
import io
import json
import lzma
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import open_source, open_stream, texts_of
from sentiment_hybrid.data.writers import Style, open_writer
from sentiment_hybrid.errors import SourceError


def write(path: Path, values: list[Any], type_: Any = None) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(values, type_)}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": value}) + "\n" for value in values), encoding="utf-8")
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE rows (text)")
            connection.executemany("INSERT INTO rows VALUES (?)", [(value,) for value in values])
    return path


def read(path: Path, **options: Any) -> list[str | None]:
    return [text for batch in open_source(str(path), Data(**options)).batches() for text in batch.columns["text"]]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, min_size=1, max_size=5))
def test_bytes_are_read_as_utf8(texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "rows.db").unlink(missing_ok=True)
    encoded = [text.encode() for text in texts]
    for suffix in (".parquet", ".db"):
        assert read(write(tmp_path / f"rows{suffix}", encoded)) == texts


@pytest.mark.parametrize(
    ("suffix", "values", "type_"),
    [
        (".jsonl", [1.5, math.nan, None], None),
        (".parquet", [1.5, math.nan, None], pyarrow.float64()),
        (".db", [1.5, None, None], None),
    ],
)
def test_numbers_are_texts_and_nan_is_null(suffix: str, values: list[Any], type_: Any, tmp_path: Path) -> None:
    assert read(write(tmp_path / f"rows{suffix}", values, type_)) == ["1.5", None, None]


def test_booleans_are_the_same_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\nTrue\nFalse\n", encoding="utf-8")
    paths = [write(tmp_path / f"rows{suffix}", [True, False]) for suffix in (".parquet", ".jsonl")]
    assert [read(path) for path in (tmp_path / "rows.csv", *paths)] == [["True", "False"]] * 3


@pytest.mark.parametrize(
    ("suffix", "value", "message"),
    [
        (".jsonl", {"full": "I love it"}, "line 2: no text in column 'text': an object"),
        (".jsonl", ["worst", "day"], "line 2: no text in column 'text': a list"),
        (".parquet", b"\xff\xfe", "row 2: no text in column 'text': bytes that are not UTF-8"),
        (".db", b"\xff\xfe", "row 2: no text in column 'text': bytes that are not UTF-8"),
    ],
)
def test_what_is_no_text_is_an_error_with_row_and_column_or_skipped(
    suffix: str, value: Any, message: str, tmp_path: Path
) -> None:
    fine: Any = b"fine" if isinstance(value, bytes) else "fine"
    path = write(tmp_path / f"rows{suffix}", [fine, value, fine])
    with pytest.raises(SourceError) as caught:
        read(path)
    assert message in caught.value.message
    assert read(path, bad_rows="skip") == ["fine", "fine"]
    (batch,) = open_source(str(path), Data()).batches(native=True)
    assert batch.columns["text"][1] == value
    with pytest.raises(SourceError, match="row 2: no text in column 'text'"):
        texts_of(batch, "text", source="rows")


def test_an_escaped_half_of_a_character_becomes_the_replacement_character(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "I love it \\ud83d"}\n{"text": "worst \\ud83d\\ude0d day"}\n', encoding="utf-8")
    assert read(path) == ["I love it \ufffd", "worst 😍 day"]


def test_rows_in_the_write_ahead_log_count(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        with writer:
            writer.execute("CREATE TABLE rows (text)")
            writer.execute("INSERT INTO rows VALUES ('one')")
        source = open_source(str(path), Data())
        before = source.fingerprint()
        assert read(path) == ["one"]
        assert source.fingerprint() == before
        with writer:
            writer.execute("INSERT INTO rows VALUES ('two')")
        assert source.fingerprint() != before
        assert read(path) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("id,text\n1,fine\n", "csv"),
        ("id;user;text\n1;a;fine\n", "csv"),
        ("id\ttweet\n1\tfine\n", "tsv"),
        ('{"text": "fine"}\n', "jsonl"),
        ('[{"text": "fine"}]\n', "json"),
        ('[\n  {"text": "fine"}\n]\n', "json"),
        ("[] [sic] a fine text\n", None),
        ("a fine text, a good review\nsecond\n", None),
        ("text", None),
        ("texts\nsecond\n", None),
        ("{not json}\n", None),
    ],
)
def test_a_table_is_not_taken_for_lines_unless_it_is_called_so(content: str, kind: str | None, tmp_path: Path) -> None:
    def lines(named: Any) -> list[str]:
        (batch,) = open_stream(io.BytesIO(content.encode()), Data(), kind=named).batches()
        return batch.columns["text"]

    assert lines("lines") == content.splitlines()
    (tmp_path / "rows.txt").write_text(content, encoding="utf-8")
    if kind is None:
        assert lines(None) == content.splitlines()
        open_source(str(tmp_path / "rows.txt"), Data())
        return
    with pytest.raises(SourceError, match=f"looks like {kind}") as caught:
        lines(None)
    assert (f"--format {kind}" if kind != "json" else "one object per line") in caught.value.hint
    with pytest.raises(SourceError, match=rf"rows\.txt looks like {kind}") as caught:
        open_source(str(tmp_path / "rows.txt"), Data())
    assert f"suffix .{kind}" in caught.value.hint


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_stream_is_named_as_one(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(SourceError, match="standard input is compressed"):
        open_stream(io.BytesIO(pack(b"text\nfine\n")), Data(), kind="csv")


def test_a_stream_has_its_dialect_detected_too(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes("id;text\n1;fine, I say é\n".encode("utf-16"))
    with path.open("rb") as stream:
        (batch,) = open_stream(stream, Data(), kind="csv").batches()
    assert batch.columns == {"id": ["1"], "text": ["fine, I say é"]}


def test_what_python_cannot_represent_is_an_error_or_skipped(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a", "b"], "at": pyarrow.array([0, 2**62], pyarrow.timestamp("us"))})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(SourceError, match="row 2: no value in column 'at'"):
        list(open_source(str(tmp_path / "in.parquet"), Data(), offline=True).batches())
    skipping = Data(bad_rows="skip")
    (batch,) = open_source(str(tmp_path / "in.parquet"), skipping, offline=True).batches(native=True)
    assert batch.columns["text"] == ["a"]
    assert sum(batch.skipped.values()) == 1


def test_nanoseconds_of_a_time_of_day_survive_in_every_format(tmp_path: Path) -> None:
    times = pyarrow.array([3723000000123, None, 86399999999999, 5000], pyarrow.int64()).cast(pyarrow.time64("ns"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b", "c", "d"], "at": times}), tmp_path / "in.parquet")
    source = open_source(str(tmp_path / "in.parquet"), Data())
    (batch,) = source.batches(native=True)
    for name in ("out.csv", "out.parquet"):
        with open_writer(tmp_path / name, source.columns, style=Style(source.types)) as writer:
            writer.write(batch.columns)
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["at"].combine_chunks().equals(times)
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[1:] == ["a,01:02:03.000000123", "b,", "c,23:59:59.999999999", "d,00:00:00.000005"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (b"textsXY", "the name of a table or column is not UTF-8"),
        (b"labelXY", "the name of a table or column is not UTF-8"),
        (b"wordXY", "row 1: a text that is not UTF-8: byte 0xFF"),
    ],
)
def test_names_and_texts_of_sqlite_that_are_not_utf8_are_errors(tmp_path: Path, place: bytes, message: str) -> None:
    path = tmp_path / "t.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE textsXY (text TEXT, labelXY TEXT)")
        connection.execute("INSERT INTO textsXY VALUES ('wordXY', '0')")
    path.write_bytes(path.read_bytes().replace(place, place[:-2] + b"\xff\xfe"))
    with pytest.raises(SourceError) as caught:
        list(open_source(str(path), Data()).batches())
    assert message in caught.value.message
    assert "--encoding" not in caught.value.hint


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        ([0], pyarrow.timestamp("s"), "1970-01-01 00:00:00"),
        ([2**62], pyarrow.timestamp("ms"), None),
        ([-(2**62)], pyarrow.timestamp("us", tz="UTC"), None),
        ([2**31 - 1], pyarrow.date32(), None),
        ([2**62], pyarrow.time64("ns"), None),
        ([2**62], pyarrow.duration("s"), None),
        (["9" * 60], pyarrow.decimal256(70, 2), "9" * 60 + ".00"),
    ],
)
def test_values_of_parquet_beyond_python_are_right_or_errors(
    tmp_path: Path, values: list[Any], type_: Any, expected: str | None
) -> None:
    given_ = [decimal.Decimal(value) for value in values] if isinstance(values[0], str) else values
    path = write(tmp_path / "t.parquet", given_, type_)
    try:
        (batch,) = open_source(str(path), Data()).batches()
    except SourceError as error:
        assert expected is None
        assert "row 1: no value in column 'text'" in error.message
    else:
        assert batch.columns["text"] == [expected]
