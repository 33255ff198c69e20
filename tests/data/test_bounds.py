"""What a file can cost is bounded in bytes, however few rows it has."""

from __future__ import annotations

import gzip
import io
import json
import logging
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import base, open_source, open_stream, texts_of
from sentiment_hybrid.errors import SourceError

TEXTS = ["short", "é" * 100, "x" * 201, "😀" * 60]
CUT = ["short", "é" * 50, "x" * 100, "😀" * 25]


def write(path: Path, texts: list[str]) -> Path:
    if path.suffix == ".csv":
        path.write_text("text,n\n" + "".join(f"{text},1\n" for text in texts), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    else:
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE t (text TEXT)")
        database.executemany("INSERT INTO t VALUES (?)", [(text,) for text in texts])
        database.commit()
        database.close()
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "txt", "parquet", "db"])
def test_long_texts_are_cut_counted_and_reported(ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source(str(write(tmp_path / f"in.{ending}", TEXTS)), Data(max_text_bytes=100), offline=True)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert [text for batch in source.batches(["text"]) for text in batch.columns["text"]] == CUT
        assert "3 texts cut after 100 bytes (data.max_text_bytes)" in caplog.text
    # Rows as they are, for the output of predict, and what the model reads of them.
    whole, read = [], []
    for batch in source.batches(native=True):
        read += texts_of(batch, "text", source="in", limit=source.limit)
        whole += batch.columns["text"]
    assert (whole, read) == (TEXTS, CUT)


def test_a_line_that_does_not_end_is_an_error_in_little_memory(tmp_path: Path) -> None:
    size = base.LONGEST_LINE + (1 << 20)
    with gzip.open(tmp_path / "in.gz", "wb", compresslevel=1) as file:
        for _ in range(size >> 20):
            file.write(b"x" * (1 << 20))
    for ending in ("csv", "jsonl", "txt"):
        path = tmp_path / f"in.{ending}.gz"
        path.hardlink_to(tmp_path / "in.gz")
        tracemalloc.start()
        with pytest.raises(SourceError, match=r"a line of more than 64 MB|more than 10,000,000 characters") as caught:
            list(open_source(str(path), Data(), offline=True).batches())
        assert tracemalloc.get_traced_memory()[1] < 4 * base.LONGEST_LINE
        tracemalloc.stop()
        assert caught.value.hint


@pytest.mark.parametrize("ending", ["csv", "jsonl", "txt", "db"])
def test_few_long_rows_are_read_at_a_time(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BATCH_BYTES", 100_000)
    monkeypatch.setattr("sentiment_hybrid.data.sources.delimited.BATCH_BYTES", 100_000)
    source = open_source(str(write(tmp_path / f"in.{ending}", ['x"' * 50_000] * 60)), Data(), offline=True)
    sizes = [len(batch) for batch in source.batches(native=True)]
    assert sum(sizes) == 60
    assert max(sizes) <= 16


@pytest.mark.parametrize("select", ["n FROM c", "count(*) FROM c"])
def test_a_recursive_view_is_refused(select: str, tmp_path: Path) -> None:
    path = write(tmp_path / "in.db", ["a"])
    database = sqlite3.connect(path)
    numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)"
    database.execute(f"CREATE VIEW endless AS {numbers} SELECT {select}")
    database.execute("CREATE VIEW upper_case AS WITH d AS (SELECT upper(text) AS text FROM t) SELECT * FROM d")
    database.commit()
    database.close()
    with pytest.raises(SourceError, match="the view endless is recursive") as caught:
        open_source(str(path), Data(table="endless"), offline=True)
    assert "CREATE TABLE" in caught.value.hint
    (batch,) = open_source(str(path), Data(table="upper_case"), offline=True).batches()
    assert batch.columns["text"] == ["A"]


def test_a_pipe_is_read_as_it_comes() -> None:
    class Pipe(io.RawIOBase):
        """Gives a line at a time, and says how many were taken."""

        taken = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.taken += 1
            line = b"text %d\n" % self.taken if self.taken <= 1000 else b""
            buffer[: len(line)] = line
            return len(line)

    pipe = Pipe()
    batches = open_stream(io.BufferedReader(pipe), Data(), kind="lines").batches(size=2)
    assert next(batches).columns["text"] == ["text 1", "text 2"]
    assert pipe.taken < 10
