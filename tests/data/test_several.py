"""Several files as one source: a folder or a pattern, with rows numbered through all of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.errors import ColumnError, SourceError


def write(folder: Path, number: int, rows: list[tuple[str, str]], suffix: str) -> Path:
    path = folder / f"part-{number}.{suffix}"
    text = "".join(f"{text},{label}\n" for text, label in [("text", "label"), *rows])
    if suffix == "parquet":
        pq.write_table(pa.table({"text": [row[0] for row in rows], "label": [row[1] for row in rows]}), path)
    else:
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    return path


ROWS = [
    [("good", "positive"), ("bad", "negative")],
    [("fine", "positive")],
    [("poor", "negative"), ("dull", "negative")],
]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_files_are_read_as_one_in_the_order_of_their_names(suffix: str, tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write(tmp_path, number, ROWS[number], suffix)
    for spec in (str(tmp_path), f"{tmp_path}/*.{suffix}"):
        source = open_source(spec, Data())
        batches = list(source.batches(["text", "label"], size=1))
        assert [text for batch in batches for text in batch.columns["text"]] == ["good", "bad", "fine", "poor", "dull"]
        assert [row for batch in batches for row in batch.rows] == [1, 2, 3, 4, 5]
        assert source.total == 5
        for row, name, own in ((3, "part-1", 1), (5, "part-2", 2)):
            assert source.place(row).startswith(f"{name}.{suffix}, ")
            assert source.place(row).endswith(f"row {own}")


def test_the_fingerprint_is_that_of_all_files(tmp_path: Path) -> None:
    for number, rows in enumerate(ROWS):
        write(tmp_path, number, rows, "csv")
    before = open_source(str(tmp_path), Data()).fingerprint()
    assert open_source(f"{tmp_path}/part-*.csv", Data()).fingerprint() == before
    write(tmp_path, 2, ROWS[2][:1], "csv")
    assert open_source(str(tmp_path), Data()).fingerprint() != before


def test_a_file_with_other_columns_is_reported(tmp_path: Path) -> None:
    write(tmp_path, 0, ROWS[0], "csv")
    (tmp_path / "part-1.csv").write_text("text,stars\ngood,5\n")
    with pytest.raises(ColumnError, match=r"part-1\.csv has the columns text, stars, but part-0\.csv has text, label"):
        open_source(str(tmp_path), Data())


def test_a_bad_row_names_its_file(tmp_path: Path) -> None:
    write(tmp_path, 0, ROWS[0], "csv")
    (tmp_path / "part-1.csv").write_bytes(b"text,label\ngood,positive\nb\0d,negative\n")
    with pytest.raises(SourceError, match=r"part-1\.csv, .*NUL"):
        list(open_source(str(tmp_path), Data()).batches(["text"]))
    skipped = list(open_source(str(tmp_path), Data(bad_rows="skip")).batches(["text"]))
    assert sum(map(len, skipped)) == 3


def test_several_formats_are_reported(tmp_path: Path) -> None:
    write(tmp_path, 0, ROWS[0], "csv")
    write(tmp_path, 1, ROWS[1], "parquet")
    with pytest.raises(SourceError, match="several formats: csv"):
        open_source(str(tmp_path), Data())
