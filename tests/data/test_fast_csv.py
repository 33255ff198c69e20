"""The fast reader gives what the careful one gives, and hands over to it at the first odd row."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import delimited, fast_csv, open_source
from sentiment_hybrid.data.sources.base import UnusualError
from sentiment_hybrid.data.sources.delimited import DelimitedSource
from sentiment_hybrid.errors import SourceError

PIECES = ["a", "b,", ",", '"', '""', "\n", "\r", "\r\n", " ", "\t", "é", "😀", "\0", "x,y\n", '"q",r\n', '"l\n2",3\n']
MESSY = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@pytest.fixture(autouse=True)
def _small_batches_are_read_fast_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_FAST_FROM", 1)


def outcome(path: Path, data: Data, *, size: int = 3) -> Any:
    """Rows with their numbers, what was skipped, or the error."""
    try:
        found = [
            (row, *values)
            for batch in open_source(str(path), data).batches(size=size)
            for row, *values in zip(batch.rows, *batch.columns.values(), strict=True)
        ]
    except SourceError as error:
        return error.message
    return found


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=MESSY, header=st.sampled_from(["text,label", "text", "\ufefftext,label"]), odd=st.sampled_from([b"", b"\xe9"]),
    kind=st.sampled_from(["csv", "tsv"]), bad_rows=st.sampled_from(["error", "skip"]),
    block=st.sampled_from([16, 1 << 20]),
)  # fmt: skip
def test_any_file_is_read_as_the_careful_reader_reads_it(
    body: str, header: str, odd: bytes, kind: str, bad_rows: Any, block: int, tmp_path: Path
) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(f"{header}\n{body}".encode() + odd)
    data = Data(bad_rows=bad_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_csv, "BLOCK", block)
        fast = outcome(path, data)
        patch.setattr(DelimitedSource, "_fast", refuse)
        assert fast == outcome(path, data)


def refuse(*_: Any) -> Any:
    raise UnusualError
    yield


@pytest.mark.parametrize("zipped", [False, True])
def test_after_many_sound_rows_a_bad_one_keeps_its_number(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_csv, "BLOCK", 1000)
    lines = ["text,label", *(f'"text, {n}",{n % 2}' for n in range(500)), "a,b,c", "last,1"]
    path = tmp_path / "rows.csv"
    content = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert outcome(path, Data(), size=100) == "rows.csv, line 502, data row 501: 3 fields, the header has 2"
    rows = outcome(path, Data(bad_rows="skip"), size=100)
    assert [row for row, *_ in rows] == [*range(1, 501), 502]
    assert rows[-1] == (502, "last", "1")


def test_sound_rows_are_read_without_the_careful_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"two\nlines, ""quoted""",1\n\nplain é,0', encoding="utf-8")
    monkeypatch.setattr(DelimitedSource, "_careful", refuse)
    assert outcome(path, Data()) == [(1, 'two\nlines, "quoted"', "1"), (2, "plain é", "0")]


#: Reads a file, wholly or not, and then takes a while to shut down, as a program that has imported torch does.
SHORT_PROGRAM = """
import sys
from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import open_source

class Slow:
    def __del__(self, work=sum, numbers=range(3_000_000)):
        work(numbers)
        work(number for number in numbers)

sys.slow = Slow()
batches = open_source(sys.argv[1], Data()).batches()
next(batches) if sys.argv[2] == "one" else list(batches)
"""


@pytest.mark.parametrize(
    ("ending", "rows", "batches"), [("csv", 3, "all"), ("csv", 200_000, "one"), ("parquet", 50_000, "one")]
)
def test_a_program_that_ends_right_after_reading_ends_well(
    ending: str, rows: int, batches: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows.{ending}"
    text = "a text, of some length, again and again"
    if ending == "csv":
        path.write_text("text,label\n" + f'"{text}",1\n' * rows, encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"text": [text] * rows}), path, row_group_size=1000)
    command = [sys.executable, "-c", SHORT_PROGRAM, str(path), batches]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("block", [64, 1 << 20])
@pytest.mark.parametrize("body", ["", "\n", "\n\n", "\r\n\r\n"])
def test_a_file_without_rows_gives_none(body: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_csv, "BLOCK", block)
    monkeypatch.setattr(DelimitedSource, "_careful", refuse)
    path = tmp_path / "rows.csv"
    path.write_bytes(f"text,label\n{body}".encode())
    assert outcome(path, Data()) == []
