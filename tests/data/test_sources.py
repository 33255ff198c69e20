"""Sources: every format reads the same rows; what is wrong with a file is named by row."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import LiveStream, Source, delimited, open_source, open_stream, rows_in
from sentiment_hybrid.data.sources import sqlite as sqlite_source
from sentiment_hybrid.data.sources.formats import KNOWN, SUFFIXES
from sentiment_hybrid.errors import ColumnError, SenthyError, SourceError

ROWS = [("plain", "0"), ('with "quotes", and commas', "1"), ("two\nlines", "0"), ("emoji 😀 é", "1"), ("", "0")]


def write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([(" text", "label "), *ROWS])


def write_tsv(path: Path) -> None:
    path.write_text("text\tlabel\n" + "".join(f"{t}\t{n}\n" for t, n in one_line_rows()), encoding="utf-8")


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"text": t, "label": int(n)}) + "\n" for t, n in ROWS), encoding="utf-8")


def write_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": [t for t, _ in ROWS], "label": [int(n) for _, n in ROWS]})
    pyarrow.parquet.write_table(table, path, row_group_size=2)


def write_sqlite(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tweets (text TEXT, label INTEGER)")
        connection.executemany("INSERT INTO tweets VALUES (?, ?)", [(t, int(n)) for t, n in ROWS])
    connection.close()


def one_line_rows() -> list[tuple[str, str]]:
    return [(text.replace("\n", " "), label) for text, label in ROWS]


WRITERS: dict[str, Callable[[Path], None]] = {
    ".csv": write_csv, ".tsv": write_tsv, ".jsonl": write_jsonl, ".parquet": write_parquet, ".db": write_sqlite,
}  # fmt: skip


def read(source: Source, **options: Any) -> list[tuple[Any, ...]]:
    return [row for batch in source.batches(**options) for row in zip(*batch.columns.values(), strict=True)]


def skipped(source: Source) -> dict[str, int]:
    counts: dict[str, int] = {}
    for batch in source.batches():
        for reason, count in batch.skipped.items():
            counts[reason] = counts.get(reason, 0) + count
    return counts


def test_the_known_suffixes_say_which_may_be_zipped() -> None:
    zipped, whole = (re.findall(r"\.\w+", part) for part in KNOWN.split("(each also .gz)"))
    assert sorted([*zipped, *whole]) == sorted(SUFFIXES)
    assert set(whole) == {".db", ".sqlite", ".sqlite3", ".xlsx", ".xlsm"}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", list(WRITERS))
def test_every_format_reads_the_same_rows(suffix: str, zipped: bool, tmp_path: Path) -> None:
    if suffix == ".db" and zipped:
        pytest.skip("an SQLite database is read in place, never gzipped")
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path)
    if zipped:
        path.with_suffix(f"{suffix}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_suffix(f"{suffix}.gz")
    source = open_source(str(path), Data())
    assert source.columns == ["text", "label"]
    assert read(source, size=2) == (one_line_rows() if suffix == ".tsv" else ROWS)
    assert read(source, columns=["label"]) == [(label,) for _, label in ROWS]


def test_gzip_is_known_by_its_content_not_its_name(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv")
    path = tmp_path / "renamed.csv"
    path.write_bytes(gzip.compress((tmp_path / "rows.csv").read_bytes()))
    assert read(open_source(str(path), Data())) == ROWS


FIELDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=20), ending=st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_wrote_is_what_is_read(
    rows: list[tuple[str, str]], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert read(open_source(str(path), Data()), size=3) == rows


def test_a_byte_order_mark_and_blank_lines_are_no_data(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\n\na,1\n\n\nb,0\n\n")
    source = open_source(str(path), Data())
    assert source.columns == ["text", "label"]
    assert read(source) == [("a", "1"), ("b", "0")]


def test_another_encoding_is_read_when_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for encoding in ("latin-1", "utf-16"):
        path.write_bytes("text,label\ncafé,1\n".encode(encoding))
        assert read(open_source(str(path), Data(encoding=encoding))) == [("café", "1")]


def test_a_text_of_one_megabyte_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    long = "long " * 200_000
    path.write_text(f"text,label\n{long},1\n", encoding="utf-8")
    assert read(open_source(str(path), Data())) == [(long, "1")]


BAD_ROWS = [
    ("not UTF-8", b"text,label\nok,1\ncaf\xe9,0\nfine,1\n", "row 2: not text in the given encoding: byte 0xE9"),
    ("NUL bytes", b"text,label\nok,1\na\0b,0\nfine,1\n", "row 2: NUL byte"),
    ("too many fields", b"text,label\nok,1\na,b,0\nfine,1\n", "row 2: 3 fields, the header has 2"),
    ("too few fields", b"text,label\nok,1\na\nfine,1\n", "row 2: 1 fields, the header has 2"),
    ("unclosed quote", b'text,label\nok,1\nfine,1\n"open,0\nlost,1\n', "row 3: a quote is never closed"),
]


@pytest.mark.parametrize(("content", "message"), [case[1:] for case in BAD_ROWS], ids=[case[0] for case in BAD_ROWS])
def test_a_bad_row_is_named_or_skipped_and_counted(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(open_source(str(path), Data(encoding="utf-8")))
    assert message in caught.value.message
    assert "data." in caught.value.hint
    source = open_source(str(path), Data(bad_rows="skip", encoding="utf-8"))
    assert read(source) == [("ok", "1"), ("fine", "1")]
    assert sum(skipped(source).values()) == 1


def test_bad_json_lines_are_named_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "ok"}\n[1]\n{"text": \n{"text": "a\\u0000"}\n{"text": "fine"}\n', encoding="utf-8")
    with pytest.raises(SourceError, match="line 2: no JSON object"):
        read(open_source(str(path), Data()))
    source = open_source(str(path), Data(bad_rows="skip"))
    assert read(source) == [("ok",), ("fine",)]
    assert sum(skipped(source).values()) == 3


def test_a_field_beyond_all_reason_asks_for_an_unclosed_quote(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"' + "x" * 10_000_001 + '",1\n', encoding="utf-8")
    with pytest.raises(SourceError, match="row 1: a field of more than") as caught:
        read(open_source(str(path), Data()))
    assert "quote" in caught.value.hint


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "latin-1", "jsonl.gz", "txt", "parquet", "db", "view"])
def test_the_number_of_rows_is_known_or_estimated_while_they_are_read(kind: str, tmp_path: Path) -> None:
    rows = [f"{n} words of a text {'longer ' * (n % 5)}" for n in range(8000)]
    path = tmp_path / f"rows.{ {'latin-1': 'csv', 'view': 'db'}.get(kind, kind) }"
    if kind in ("db", "view"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE rows (text TEXT)")
            connection.executemany("INSERT INTO rows VALUES (?)", [(row,) for row in rows])
            connection.execute("CREATE VIEW seen AS SELECT * FROM rows")
            connection.commit()
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": rows}), path)
    else:
        lines = [json.dumps({"text": row}) for row in rows] if "json" in kind else [*["text"] * (kind != "txt"), *rows]
        content = "\n".join(lines).encode()
        path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    data = Data(encoding="latin-1" if kind == "latin-1" else "auto", table={"db": "rows", "view": "seen"}.get(kind))
    source = open_source(str(path), data)
    told = []
    for _ in source.batches(size=1000):
        told.append(source.total)
    assert source.total == 8000
    if kind in ("parquet", "db"):
        assert set(told) == {8000}
    elif kind == "view":
        assert set(told) == {None}
    else:
        assert all(isinstance(total, float) and abs(total - 8000) < 1600 for total in told), told


def test_files_that_are_not_begun_count_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_FAST_FROM", 1)
    for name, rows in (("train", 3000), ("valid", 1000), ("test", 1000)):
        (tmp_path / f"{name}.csv").write_text("text\n" + "so many words\n" * rows)
    sources = [open_source(str(tmp_path / f"{name}.csv"), Data()) for name in ("train", "valid", "test")]
    assert rows_in(sources) is None
    for source in sources:
        for _ in source.batches(size=100):
            assert rows_in(sources) == pytest.approx(5000, rel=0.01)
    assert rows_in(sources) == 5000


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_row_of_a_table_is_named_by_its_line_too(ending: str, zipped: bool, tmp_path: Path) -> None:
    lines = ["", "text,label", '"one', "text, three", 'lines",1', "", "ok,0", "a\0b,0", "a,b,c"]
    content = ending.join(lines).encode() + ending.encode()
    path = tmp_path / "rows.csv"
    path.write_bytes(gzip.compress(content) if zipped else content)
    source = open_source(str(path), Data())
    assert [source.place(row) for row in (1, 2, 3, 4)] == [
        "line 3, data row 1", "line 7, data row 2", "line 8, data row 3", "line 9, data row 4",
    ]  # fmt: skip
    with pytest.raises(SourceError, match=r"rows\.csv, line 9, data row 4: 3 fields"):
        read(source)


def test_a_row_of_a_pipe_is_named_by_its_number_below_the_header() -> None:
    source = open_stream(io.BytesIO(b"text,label\n\nok,1\nbad\n"), Data(), kind="csv")
    with pytest.raises(SourceError, match="standard input, data row 2: 1 fields"):
        read(source)


@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_a_truncated_gzip_is_an_error(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    whole = gzip.compress(b"text,label\n" + b"".join(b"text %d,%d\n" % (n * 7919, n % 2) for n in range(20_000)))
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(SourceError, match="cut off"):
        read(open_source(str(path), Data()))


def test_a_damaged_gzip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    whole = bytearray(gzip.compress(b"text,label\n" + b"".join(b"t%d,1\n" % (n * 7919) for n in range(20_000))))
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(whole))
    with pytest.raises(SourceError, match=r"rows\.csv\.gz"):
        read(open_source(str(path), Data()))


@pytest.mark.parametrize("padding", [0, 7, 600_000])
@pytest.mark.parametrize("rows", [(1,), (0, 30_000, 1), (100_000, 5)])
def test_gzip_files_of_several_members_with_padding_are_read_whole(
    rows: tuple[int, ...], padding: int, tmp_path: Path
) -> None:
    parts = [b"".join(b"text %d,1\n" % (number * 7919) for number in range(count)) for count in rows]
    path = tmp_path / "rows.csv.gz"
    members = [gzip.compress(part) for part in (b"text,label\n", *parts)]
    path.write_bytes((b"\0" * padding).join(members) + b"\0" * padding)
    expected = [(f"text {number * 7919}", "1") for count in rows for number in range(count)]
    assert read(open_source(str(path), Data())) == expected


def test_reading_can_stop_early(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\n" + b"a text that repeats,1\n" * 1_000_000))
    batches = open_source(str(path), Data()).batches(size=10)
    assert len(next(batches)) == 10
    batches.close()  # type: ignore[attr-defined]


def test_a_missing_file_names_what_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text,label\n", encoding="utf-8")
    expected = {
        "review.csv": f"Did you mean {tmp_path / 'reviews.csv'}?",
        "nowhere/reviews.csv": f"There is no directory {tmp_path / 'nowhere'}.",
        "tweets.tsv": f"It would be {tmp_path / 'tweets.tsv'}.",
        "quick": "A source is a file, `sample`, or",
    }
    for name, hint in expected.items():
        with pytest.raises(SourceError, match="there is no file") as caught:
            open_source(str(tmp_path / name), Data())
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "there is no file"),
        ("folder", "folder", "there is no file of a known format in"),
        ("empty.csv", b"", "is empty"),
        ("what.xyz", b"text", "cannot tell what kind"),
        ("fake.db", b"not sqlite", "is not an SQLite database"),
        ("fake.parquet", b"not parquet at all, but long enough", "parquet"),
        ("twice.csv", b"text,text\na,b\n", "is duplicated"),
        ("nul.csv", b"te\0xt,label\na,1\n", "header line"),
        ("lfs.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "Git LFS pointer"),
        ("page.csv", b"\n<!DOCTYPE html>\n<html></html>\n", "web page"),
        ("book.csv", b"PK\x03\x04" + b"\0" * 40, "Excel workbook"),
    ],
)
def test_a_source_that_cannot_be_read_says_why(
    name: str, content: bytes | str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises((SourceError, ColumnError)) as caught:
        open_source(str(path), Data()).columns  # noqa: B018
    assert message in caught.value.message


def test_an_unreadable_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "rows.csv")

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match="Permission denied"):
        open_source(str(tmp_path / "rows.csv"), Data())


def test_a_damaged_database_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tweets (text TEXT, label INTEGER)")
        connection.executemany("INSERT INTO tweets VALUES (?, 1)", [("words " * 50,)] * 2000)
    connection.close()
    content = bytearray(path.read_bytes())
    content[5000:] = b"\xaa" * (len(content) - 5000)
    path.write_bytes(bytes(content))
    with pytest.raises(SourceError, match=r"rows\.db"):
        read(open_source(str(path), Data()))


def test_a_table_is_named_where_there_are_several(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    write_sqlite(path)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (a)")
    connection.close()
    with pytest.raises(SourceError, match="other, tweets"):
        open_source(str(path), Data())
    with pytest.raises(SourceError, match="no table 'tweet'"):
        open_source(str(path), Data(table="tweet"))
    assert read(open_source(str(path), Data(table="tweets"))) == ROWS


def test_a_fingerprint_follows_name_and_content(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "rows.csv", tmp_path / "b" / "rows.csv"
    for path in (one, other):
        path.parent.mkdir()
        write_csv(path)
    assert open_source(str(one), Data()).fingerprint() == open_source(str(other), Data()).fingerprint()
    other.write_bytes(other.read_bytes() + b"x,1\n")
    assert open_source(str(one), Data()).fingerprint() != open_source(str(other), Data()).fingerprint()


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_that_changes_while_it_is_read_is_an_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path)
    source = open_source(str(path), Data())
    batches = source.batches(size=1)
    next(batches)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceError, match="changed while it was read") as caught:
        list(batches)
    assert "Wait until" in caught.value.hint
    assert len(read(source)) > 1, "it can be read once it rests"


def test_a_file_that_is_cut_off_while_it_is_read_is_said_to_have_changed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a text"}\n' * 200_000)
    batches = open_source(str(path), Data()).batches(size=10)
    next(batches)
    os.truncate(path, 2_000_005)
    with pytest.raises(SourceError, match="changed while it was read"):
        list(batches)


def test_a_file_that_changes_after_its_fingerprint_was_taken_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_csv(path)
    source = open_source(str(path), Data())
    source.fingerprint()
    path.write_bytes(path.read_bytes() + b"half a row")
    with pytest.raises(SourceError, match="changed while it was read"):
        read(source)
    source.fingerprint()
    with pytest.raises(SourceError, match="1 fields"):
        read(source)


def test_the_sample_is_a_source() -> None:
    source = open_source("sample", Data())
    assert {"text", "label"} <= set(source.columns)
    pairs = read(source, columns=["text", "label"])
    labels = [label for _, label in pairs]
    assert len(pairs) >= 1000
    assert labels.count("positive") == labels.count("negative") == len(pairs) / 2
    assert len({text.casefold() for text, _ in pairs}) == len(pairs)
    assert max(len(text) for text, _ in pairs) <= 400


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("lines", b"one\ntwo, three\n\nlast", [("one",), ("two, three",), ("",), ("last",)]),
        ("jsonl", b'{"text": "a"}\n', [("a",)]),
        ("csv", b'text,n\n"a, b",1\n', [("a, b", "1")]),
    ],
)
def test_standard_input_is_read_once(kind: Any, content: bytes, expected: list[tuple[str, ...]]) -> None:
    assert read(open_stream(io.BytesIO(content), Data(), kind=kind)) == expected


def test_a_locked_database_is_reported_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_source, "LOCK_SECONDS", 0.05)
    path = tmp_path / "texts.db"
    write_sqlite(path)
    source = open_source(str(path), Data())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceError, match="locked") as caught:
            read(source)
        with pytest.raises(SourceError, match="locked"):
            open_source(str(path), Data())
    assert "Close" in caught.value.hint
    assert len(read(source)) == len(ROWS)


# --- Kaggle ---------------------------------------------------------------------------------------------------------


def fake_download(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> list[str]:
    import kagglehub

    asked = []

    def download(handle: str) -> str:
        asked.append(handle)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(kagglehub, "dataset_download", download)
    return asked


@pytest.mark.parametrize("suffix", ["", "_v1"])
def test_kaggle_takes_whichever_known_file_is_there_and_says_which(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / f"final_clean_no_neutral_no_duplicates{suffix}.csv")
    write_csv(tmp_path / "other.csv")
    asked = fake_download(monkeypatch, tmp_path)
    source = open_source("kaggle", Data())
    assert asked == ["zphudzz/tweets-clean-posneg-v1"]
    assert f"final_clean_no_neutral_no_duplicates{suffix}.csv" in source.name
    assert read(source) == ROWS


def test_a_kaggle_version_can_be_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "only.csv")
    asked = fake_download(monkeypatch, tmp_path)
    open_source("kaggle:owner/name/versions/3", Data())
    assert asked == ["owner/name/versions/3"]


class NotFoundError(Exception):
    pass


class UnauthenticatedError(Exception):
    pass


class Refused(Exception):  # noqa: N818
    def __init__(self, status: int) -> None:
        super().__init__(f"{status} Client Error")
        self.response = type("Response", (), {"status_code": status})()


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (ConnectionError("no route"), "network connection", "--source FILE"),
        (Refused(404), "no dataset", "OWNER/NAME"),
        (NotFoundError(), "no dataset", "OWNER/NAME"),
        (Refused(403), "credentials", "KAGGLE_KEY"),
        (UnauthenticatedError(), "credentials", "kaggle.json"),
        (ValueError("odd"), "ValueError: odd", "--source FILE"),
    ],
)
def test_what_kaggle_refuses_is_explained(
    error: Exception, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_download(monkeypatch, error)
    with pytest.raises(SourceError) as caught:
        open_source("kaggle:owner/name", Data())
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("handle", ["owner", "owner/name/3", "a/b/versions/0", "../x/y"])
def test_a_malformed_handle_is_refused_before_any_network(handle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_download(monkeypatch, ConnectionError())
    with pytest.raises(SourceError, match="is not a Kaggle dataset"):
        open_source(f"kaggle:{handle}", Data())
    assert asked == []


def test_kaggle_offline_takes_what_was_downloaded_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_download(monkeypatch, ConnectionError())
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    with pytest.raises(SenthyError) as caught:
        open_source("kaggle:owner/name", Data(), offline=True)
    assert "senthy fetch" in caught.value.hint
    base = tmp_path / "datasets/owner/name"
    for version in (2, 10, 11):
        (base / f"versions/{version}").mkdir(parents=True)
        write_csv(base / f"versions/{version}/v{version}.csv")
    (base / "2.complete").touch()
    (base / "10.complete").touch()
    assert "v10.csv" in open_source("kaggle:owner/name", Data(), offline=True).name
    assert "v2.csv" in open_source("kaggle:owner/name/versions/2", Data(), offline=True).name
    assert asked == []


def test_kaggle_without_a_network_takes_what_was_downloaded_before_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    kept = tmp_path / "datasets/owner/name/versions/3"
    kept.mkdir(parents=True)
    write_csv(kept / "v3.csv")
    (kept.parent.parent / "3.complete").touch()
    fake_download(monkeypatch, ConnectionError("no route"))
    assert "v3.csv" in open_source("kaggle:owner/name", Data()).name
    assert "Kaggle cannot be reached" in caplog.text
    fake_download(monkeypatch, Refused(404))
    with pytest.raises(SourceError, match="no dataset"):
        open_source("kaggle:owner/name", Data())


def test_a_kaggle_dataset_of_several_files_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "a.csv")
    write_csv(tmp_path / "b.csv")
    fake_download(monkeypatch, tmp_path)
    with pytest.raises(SourceError, match=r"a\.csv, b\.csv"):
        open_source("kaggle:owner/name", Data())


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_no_flipped_bit_of_a_parquet_file_with_checksums_loses_or_changes_a_text(
    compression: str, tmp_path: Path
) -> None:
    import pyarrow
    import pyarrow.parquet

    sink, path = io.BytesIO(), tmp_path / "in.parquet"
    texts = ["love it", "so so", None, "café", "worst day"]
    pyarrow.parquet.write_table(
        pyarrow.table({"text": texts}), sink, compression=compression, write_page_checksum=True, write_statistics=False
    )
    whole = sink.getvalue()
    other = 0
    for at in range(0, len(whole), 2):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at // 2 % 8)]) + whole[at + 1 :])
        try:
            source = open_source(str(path), Data(), offline=True)
            (column,) = source.columns
            found = [text for batch in source.batches([column]) for text in batch.columns[column]]
        except SenthyError:
            other += 1
            continue
        assert found == texts, at
    assert other > 20


@pytest.mark.parametrize("live", [False, True], ids=["to a file", "as they arrive"])
def test_a_file_on_standard_input_has_a_total(tmp_path: Path, live: bool) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "".join(f"text number {number}\n" for number in range(20_000)))
    with path.open("rb") as file:
        source = open_stream(LiveStream(file) if live else file, Data(), kind="csv")
        told = [source.total for _ in source.batches(size=4000)]
    assert all(isinstance(total, float) and abs(total - 20_000) < 3000 for total in told[:-1]), told


@pytest.mark.parametrize("url", ["https://anna:geheim@host/a.csv", "https:/anna:geheim@host/a.csv", "s3://a/b.csv"])
def test_a_url_is_called_one_without_its_password(url: str) -> None:
    with pytest.raises(SourceError, match="is a URL, and only senthy predict reads URLs") as caught:
        open_source(url, Data())
    assert "geheim" not in caught.value.message


def test_json_lines_that_are_one_array_name_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('[{"text": "fine"}]\n', encoding="utf-8")
    with pytest.raises(SourceError, match="no JSON object") as caught:
        list(open_source(str(tmp_path / "rows.jsonl"), Data()).batches())
    assert ".json" in caught.value.hint
