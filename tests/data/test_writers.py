"""What is written can be read again, and a file is there whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid import console
from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data import writers
from sentiment_hybrid.data.sources import MISSING, open_source
from sentiment_hybrid.data.writers import Style, kind_of_output, open_writer, without_formulas
from sentiment_hybrid.errors import OutputError, UsageError

#: Characters that some reader or writer gives a meaning: separators of fields and lines of every kind, quotes, escapes.
HOSTILE = st.sampled_from(
    [*list("\r\n\t\"',;|\\ \x1c\x1d\x1e\x1f\x0b\x0c\x85\u2028\u2029=@#0.-\u202e😀\u0301"), "\r\n", '\\"']
)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1, max_size=20),
    st.lists(HOSTILE, min_size=1, max_size=8).map("".join),
)
TABLES = st.lists(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), min_size=1, max_size=3)


def read(path: Path) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for batch in open_source(str(path), Data(), offline=True).batches(native=True):
        rows += zip(*batch.columns.values(), strict=True)
    return rows


def write(path: Path, batches: list[list[tuple[str, str]]]) -> list[tuple[str, str]]:
    with open_writer(path, ["a", "b"]) as writer:
        for rows in batches:
            writer.write({"a": [row[0] for row in rows], "b": [row[1] for row in rows]})
    return [row for rows in batches for row in rows]


def by_csv(path: Path) -> list[tuple[Any, ...]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(map(tuple, csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)))[1:]


def by_pandas(path: Path) -> list[tuple[Any, ...]]:
    if path.suffix == ".jsonl":
        frame = pandas.read_json(path, lines=True, dtype=False)
    elif path.suffix == ".parquet":
        frame = pandas.read_parquet(path)
    else:
        options: dict[str, Any] = {"sep": "\t" if path.suffix == ".tsv" else ",", "dtype": str}
        frame = pandas.read_csv(path, keep_default_na=False, skip_blank_lines=False, **options)
    return list(frame.itertuples(index=False, name=None))


def by_duckdb(path: Path) -> list[tuple[Any, ...]]:
    duckdb = pytest.importorskip("duckdb")
    if path.suffix == ".parquet":
        call = "read_parquet(?)"
    elif path.suffix == ".jsonl":
        call = "read_json(?, format = 'newline_delimited', columns = {a: 'VARCHAR', b: 'VARCHAR'})"
    else:
        delimiter = "chr(9)" if path.suffix == ".tsv" else "','"
        call = f"read_csv(?, header = true, all_varchar = true, quote = '\"', escape = '\"', delim = {delimiter})"
    return list(duckdb.execute(f"SELECT * FROM {call}", [str(path)]).fetchall())


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "parquet", "db"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=TABLES)
def test_any_text_comes_back_as_it_was(ending: str, batches: list[list[tuple[str, str]]], tmp_path: Path) -> None:
    path = tmp_path / f"out.{ending}"
    written = write(path, batches)
    assert read(path) == written


@pytest.mark.parametrize(
    ("reader", "ending"),
    [(by_csv, "csv"), (by_csv, "tsv"), *((by, kind) for by in (by_pandas, by_duckdb)
     for kind in ("csv", "tsv", "jsonl", "parquet"))],
)  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=TABLES)
def test_any_text_is_read_by_others_as_it_was(
    reader: Callable[[Path], list[tuple[Any, ...]]], ending: str, batches: list[list[tuple[str, str]]], tmp_path: Path
) -> None:
    path = tmp_path / f"out.{ending}"
    written = write(path, batches)
    assert reader(path) == written


def test_a_tsv_with_quoted_values_says_so_from_the_start(tmp_path: Path) -> None:
    # The first value that needs quotes comes after all that the reader looks at to tell how a file is written.
    rows = [("plain", "x" * 100)] * 50_000 + [('a "quoted" word\tand\r\na second line', "y" * 20_000)]
    write(tmp_path / "out.tsv", [rows])
    assert read(tmp_path / "out.tsv")[-1] == rows[-1]


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
def test_an_unknown_suffix_is_reported_with_the_known_ones(name: str) -> None:
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


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["a", 'b"', "", None, 1, -2, 0.1, 1e-7, float("nan"), float("inf")]), min_size=1))
def test_a_column_of_any_values_is_written_in_csv_as_each_alone(values: list[Any]) -> None:
    together = io.StringIO()
    writers._Delimited(together, ["x", "y"], "csv", quoted=True).write({"x": values, "y": ["z"] * len(values)})
    found = [row[0] for row in csv.reader(io.StringIO(together.getvalue()))][1:]
    assert found == ["" if value is None or value != value else str(value) for value in values]


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


def test_column_names_that_differ_in_case_alone_are_reported_for_sqlite(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="duplicate column"), open_writer(tmp_path / "out.db", ["Text", "text"]):
        pass


class Narrow(io.TextIOWrapper):
    """Standard output in an encoding that has no emoji, as the command line sets it up."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="")

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_json_is_valid_in_every_encoding_of_standard_output(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = Narrow(encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    with open_writer(None, ["a"], kind="jsonl") as writer:
        writer.write({"a": ["I 😍 it, café"]})
    console.as_json({"a": "I 😍 it, café"})
    one, rest = stdout.text().split("\n", 1)
    assert json.loads(one) == json.loads(rest) == {"a": "I 😍 it, café"}


def test_a_csv_is_not_written_with_other_characters_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Narrow("latin-1"))
    with open_writer(None, ["a"]) as writer:
        writer.write({"a": ["café"]})
        with pytest.raises(OutputError, match=r"standard output is latin-1, which has no '.U0001f60d'") as caught:
            writer.write({"a": ["I 😍 it"]})
    assert "PYTHONIOENCODING=utf-8" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        (["4.0", "1e-05", ""], [4.0, 1e-05, None]),
        (["01", "2"], None),  # as of postcodes
        (["1_0", "2"], None),
        (["1", "2", "n/a"], None),
        (["nan", "1"], None),
        ([" 1", "2"], None),
        (["+1", "2"], None),
        (["12345678901234567890", "1"], None),
        (["1\n2", "3"], None),
        (["", ""], None),
    ],
)
def test_a_column_of_numbers_is_one_in_jsonl_if_every_value_is(
    values: list[str], numbers: list[Any] | None, tmp_path: Path
) -> None:
    path = tmp_path / "in.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("a", "b"), *((value, "x") for value in values)])
    source = open_source(str(path), Data(), offline=True)
    found = source.numbers(["a", "b"])
    assert found == (set() if numbers is None else {"a"})
    with open_writer(tmp_path / "out.jsonl", ["a"], style=Style(numbers=found)) as writer:
        writer.write({"a": values})
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["a"] for line in lines] == (numbers or values)


@given(text=st.one_of(TEXT, st.sampled_from(["=1+1", "@SUM(A1)", "-2+3", "\t=1", "-1.5e3", "+7", "\uff1d1", "ok"])))
def test_safe_csv_leaves_no_formula_and_no_number_changed(text: str) -> None:
    ((name, values),) = without_formulas({"=a": [text, -0.5, None]}).items()
    assert name == "'=a"
    assert values[1:] == [-0.5, None]
    assert values[0] in {text, f"'{text}"}
    if values[0].startswith(("=", "@", "\t", "\r", "\uff1d", "+", "-")):
        float(values[0])


def test_rows_on_a_terminal_cannot_control_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for kind, expected in (
        ("csv", "text\n\\x1b]0;x\\u202e\\u009b\n"),
        ("jsonl", '{"text": "\\u001b]0;x\\u202e\\u009b"}\n'),
    ):
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        with open_writer(None, ["text"], kind=kind) as writer:
            writer.write({"text": ["\x1b]0;x\u202e\x9b"]})
        assert terminal.getvalue() == expected
