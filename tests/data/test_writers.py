"""What is written can be read again, and a file is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import MISSING, open_source
from sentiment_hybrid.data.writers import kind_of_output, open_writer
from sentiment_hybrid.errors import OutputError, UsageError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=20)


def read(path: Path) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for batch in open_source(str(path), Data(), offline=True).batches(native=True):
        rows += zip(*batch.columns.values(), strict=True)
    return rows


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet", "db"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), min_size=1, max_size=3))
def test_any_text_comes_back_as_it_was(ending: str, batches: list[list[tuple[str, str]]], tmp_path: Path) -> None:
    path = tmp_path / f"out.{ending}"
    with open_writer(path, ["a", "b"]) as writer:
        for rows in batches:
            writer.write({"b": [row[1] for row in rows], "a": [row[0] for row in rows]})
    written = [row for rows in batches for row in rows]
    # JSON objects keep the order in which their keys came, the others that of the columns.
    assert read(path) == ([row[::-1] for row in written] if "jsonl" in ending else written)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(TEXT.filter(lambda text: "\t" not in text and "\n" not in text), min_size=1, max_size=5))
def test_quotes_in_a_tsv_are_characters_like_any_other(values: list[str], tmp_path: Path) -> None:
    with open_writer(tmp_path / "out.tsv", ["a", "b"]) as writer:
        writer.write({"a": values, "b": values})
    assert read(tmp_path / "out.tsv") == [(value, value) for value in values]


def test_the_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    (tmp_path / ".out.csv.0123abcd.partial").write_text("of a killed run", encoding="utf-8")
    path.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), open_writer(path, ["a"]) as writer:
        writer.write({"a": ["new"]})
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old"
    with open_writer(path, ["a"]) as writer:
        writer.write({"a": ["new"]})
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "a\nnew\n"
    assert [found.name for found in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("name", ["out", "out.txt", "out.csv.zip", "out.gz", "out.db.gz", "out.parquet.gz"])
def test_an_unknown_suffix_is_told_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        kind_of_output(Path(name))
    assert ".parquet" in caught.value.hint


def test_values_that_a_format_does_not_have_become_text(tmp_path: Path) -> None:
    rows = {"a": [None, float("nan"), {"x": [1]}, True, 2**70, MISSING]}
    texts = ["", "", '{"x": [1]}', "true", str(2**70), ""]
    with open_writer(tmp_path / "out.csv", ["a", "b"]) as writer:
        writer.write({**rows, "b": list("123456")})
    assert [row[0] for row in read(tmp_path / "out.csv")] == texts
    with open_writer(tmp_path / "out.jsonl", ["a"]) as writer:
        writer.write(rows)
    assert (tmp_path / "out.jsonl").read_text().splitlines() == [
        '{"a": null}', '{"a": null}', '{"a": {"x": [1]}}', '{"a": true}', f'{{"a": {2**70}}}', "{}",
    ]  # fmt: skip
    with open_writer(tmp_path / "out.db", ["a"]) as writer:
        writer.write({"a": [None, {"x": [1]}, True, 2**70, 7, 0.5]})
    assert [row[0] for row in read(tmp_path / "out.db")] == [None, '{"x": [1]}', 1, str(2**70), 7, 0.5]


def test_parquet_refuses_values_of_different_types(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="'a'") as caught, open_writer(tmp_path / "out.parquet", ["a"]) as writer:
        writer.write({"a": [1, 2]})
        writer.write({"a": ["three"]})
    assert ".jsonl" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege on other systems")
def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("old", encoding="utf-8")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with open_writer(tmp_path / "link.csv", ["a"]) as writer:
        writer.write({"a": ["new"]})
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text(encoding="utf-8") == "a\nnew\n"


def test_column_names_that_differ_in_case_alone_are_told_for_sqlite(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="duplicate column"), open_writer(tmp_path / "out.db", ["Text", "text"]):
        pass
