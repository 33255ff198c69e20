"""Thousands of damaged and hostile files per format: each is read as an oracle reads it, or refused in one sentence.

The oracles are csv (strict), json, pyarrow, sqlite3, PyYAML, and the undamaged workbook. Seeds are fixed. CI reads a
few files per format; for more, ``FUZZ_FILES=10000 pytest tests/fuzz``, with another ``FUZZ_SEED`` for other files.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.config.syntax import parse
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.sources.base import NotTextError, value_text
from sentiment_hybrid.errors import ConfigError, SenthyError

from ..data.test_excel import write_xlsx

FILES = int(os.environ.get("FUZZ_FILES", "100"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
#: What is put into files at random places.
ODD = [
    *'"\',;|\t\n\r\\ :#&*!%@{}[]-?<>=0', "\r\n", '""', '\\"', "\0", "\ufeff", "\x1e", "\x85", "\u2028", "é", "😍",
    "\ud83d".encode("utf-8", "surrogatepass"), b"\xff", b"\xe9", b"\x80", "NaN", "1e999", "null", "text,label\n",
    '{"text": ', "<<", "*a", "&a ", "\\ud83d", "1" * 30,
]  # fmt: skip
WORDS = ["I love it", "worst day", "so so", "café", "😍", "a, b", 'say "x"', "two\nlines", "", "7", "it's", "1;2"]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with some bytes put in, left out, changed, or cut off."""
    for _ in range(chance.choice([0, 1, 1, 2, 4])):
        at = chance.randrange(len(content) + 1)
        odd = chance.choice(ODD)
        new = odd if isinstance(odd, bytes) else odd.encode()
        match chance.randrange(6):
            case 0 | 1 | 2:
                content = content[:at] + new + content[at:]
            case 3:
                content = content[:at] + content[at + chance.randrange(1, 9) :]
            case 4:
                content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
            case 5:
                content = content[:at]
    return content


def table(chance: random.Random) -> list[tuple[str, str]]:
    return [(chance.choice(WORDS), str(chance.randrange(2))) for _ in range(chance.randrange(1, 8))]


def rows(path: Path, **options: Any) -> list[tuple[str | None, ...]] | None:
    """What is read, values as texts; None where it is refused with a sentence."""
    try:
        source = open_source(str(path), Data(**options), offline=True)
        columns = source.columns
        found = [
            row
            for batch in source.batches(columns)
            for row in zip(*(batch.columns[name] for name in columns), strict=True)
        ]
    except SenthyError as error:
        assert error.message
        assert "\n" not in error.message.strip() or len(error.message) < 500
        return None
    return [tuple(columns), *found]


def fuzzed(kind: str) -> list[random.Random]:
    return [random.Random(f"{kind} {SEED} {number}") for number in range(FILES)]


def make_csv(chance: random.Random) -> bytes:
    text = io.StringIO(newline="")
    end = chance.choice(["\n", "\r\n"])
    quoting = chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([("text", "label"), *table(chance)])
    return text.getvalue().encode()


def test_csv(tmp_path: Path) -> None:
    """A file that is read has the rows of the csv module, or that module refuses it."""
    path = tmp_path / "in.csv"
    for number, chance in enumerate(fuzzed("csv")):
        content = damaged(make_csv(chance), chance)
        path.write_bytes(content)
        found = rows(path, encoding="utf-8", delimiter=",", quoting="minimal")
        if found is None:
            continue
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        expected = [row for row in reader if row]
        assert [name.strip("\ufeff ") for name in found[0] if not str(name).startswith("column ")] == [
            name.strip().strip("\ufeff ") for name in expected[0] if name.strip().strip("\ufeff")
        ], number
        assert [[row[0].removeprefix("\ufeff"), *row[1:]] for row in expected[1:]] == [
            [str(value) for value in row] for row in found[1:]
        ], number


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_detected_dialects(kind: str, tmp_path: Path) -> None:
    """Without settings, a damaged file is read or refused, never a traceback; each row has the header's fields."""
    path = tmp_path / f"in.{kind}"
    for chance in fuzzed(f"dialect {kind}"):
        text = io.StringIO(newline="")
        style: dict[str, Any] = chance.choice([{}, {"doublequote": False, "escapechar": "\\"}])
        csv.writer(text, delimiter=chance.choice(",;\t|"), **style).writerows([("text", "label"), *table(chance)])
        encoding = chance.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252"])
        path.write_bytes(damaged(text.getvalue().encode(encoding, "replace"), chance))
        found = rows(path)
        assert found is None or {len(row) for row in found} == {len(found[0])}


def test_jsonl(tmp_path: Path) -> None:
    """A file that is read has one row for each line that json reads as an object, with the same values."""
    path = tmp_path / "in.jsonl"
    values = [*WORDS, 1, 0.5, None, True, [1], {"a": "b"}, float("nan"), "\ud83d", 2**70]
    for number, chance in enumerate(fuzzed("jsonl")):
        records = [{"text": chance.choice(values), "label": chance.choice(values)} for _ in range(4)]
        content = damaged("".join(json.dumps(record) + "\n" for record in records).encode(), chance)
        path.write_bytes(content)
        found = rows(path, encoding="utf-8")
        if found is None:
            continue
        lines = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig")
        expected = [json.loads(line) for line in lines if line.strip()]
        names = list(dict.fromkeys(key.strip() for record in expected for key in record))
        assert list(found[0]) == names, number
        trimmed = [{key.strip(): value for key, value in record.items()} for record in expected]
        assert [tuple(as_text(record.get(name)) for name in names) for record in trimmed] == found[1:], number


def as_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value_text(value)


def test_parquet(tmp_path: Path) -> None:
    """A file that is read has the rows that pyarrow reads."""
    path = tmp_path / "in.parquet"
    types: list[Callable[[random.Random], Any]] = [
        lambda chance: [chance.choice([*WORDS, None]) for _ in range(5)],
        lambda chance: [chance.choice(WORDS).encode() for _ in range(5)],
        lambda chance: pyarrow.array([chance.randrange(-(2**62), 2**62) for _ in range(5)], pyarrow.timestamp("us")),
        lambda chance: [chance.random() for _ in range(5)],
        lambda chance: [[1], [], None, [2], [3]],
        lambda chance: [b"\xff\xfe", b"", b"a", None, b"\x80"],
    ]
    for number, chance in enumerate(fuzzed("parquet")):
        whole = pyarrow.table({"text": types[0](chance), "label": chance.choice(types)(chance)})
        sink = io.BytesIO()
        pyarrow.parquet.write_table(whole, sink, compression=chance.choice(["none", "snappy", "gzip", "zstd"]))
        content = sink.getvalue()
        path.write_bytes(content if chance.random() < 0.5 else damaged(content, chance))
        found = rows(path)
        if found is None:
            continue
        expected = pyarrow.parquet.read_table(io.BytesIO(path.read_bytes()))
        assert list(found[0]) == [name.strip() for name in expected.column_names], number
        columns = [[value_text(value) for value in column.to_pylist()] for column in expected.columns]
        assert found[1:] == list(zip(*columns, strict=True)), number


def test_sqlite(tmp_path: Path) -> None:
    """A database that is read has the rows that sqlite3 reads."""
    values = [*WORDS, None, 1, 0.5, b"bytes", b"\xff", 2**62]
    for number, chance in enumerate(fuzzed("sqlite")):
        path = tmp_path / f"{number % 2}.db"
        path.unlink(missing_ok=True)
        database = sqlite3.connect(path)
        name = chance.choice(["tweets", 'a "b"', "é", "select"]).replace('"', '""')
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f'CREATE TABLE "{name}" (text, "label ")')
        database.executemany(f'INSERT INTO "{name}" VALUES (?, ?)', [
            (chance.choice(values), chance.choice(values)) for _ in range(5)
        ])  # fmt: skip
        database.commit()
        database.close()
        path.write_bytes(path.read_bytes() if chance.random() < 0.3 else damaged(path.read_bytes(), chance))
        found = rows(path)
        if found is None:
            continue
        database = sqlite3.connect(path)
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        quoted = tables[0][0].replace('"', '""')
        expected = database.execute(f'SELECT * FROM "{quoted}"').fetchall()
        database.close()
        assert found[1:] == [tuple(map(value_text, row)) for row in expected], number


def test_xlsx(tmp_path: Path) -> None:
    """A damaged workbook is refused, or has the rows that it had: its parts have checksums."""
    pytest.importorskip("python_calamine")
    path = tmp_path / "in.xlsx"
    for number, chance in enumerate(fuzzed("xlsx")):
        write_xlsx(path, {"Sheet1": [("text", "label"), *table(chance)]})
        whole = rows(path)
        path.write_bytes(damaged(path.read_bytes(), chance))
        assert rows(path) in (None, whole), number


YAML = [
    "data: {source: a.csv, text_column: text}\n", "project:\n  name: x\n  seed: 7\n", "train:\n  epochs: 3\n",
    "lstm:\n  head: {hidden: 16}\n", "a: &a [1, 2]\nb: *a\n", "# comment\n",
    "data:\n  label_map: {0: negative, 4: positive}\n",
    "hpo:\n  search_space:\n    dropout: {type: float, low: 0.1, high: 0.5}\n", "x: |\n  text\n  more\n",
]  # fmt: skip


def test_yaml(tmp_path: Path) -> None:
    """YAML that is read is YAML to PyYAML, with the same keys; a config is loaded or refused."""
    path = tmp_path / "config.yaml"
    for number, chance in enumerate(fuzzed("yaml")):
        content = damaged("".join(chance.sample(YAML, chance.randrange(1, 4))).encode(), chance)
        path.write_bytes(content)
        try:
            load_config(path)
        except ConfigError as error:
            assert error.message
        try:
            text = content.decode("utf-8-sig")
            found = parse(text)
        except (ConfigError, UnicodeDecodeError):
            continue
        expected = oracle(text)
        assert shape(found) == shape(expected), number


def oracle(text: str) -> Any:
    """As one of PyYAML's two loaders reads it: they differ in where a tab may stand."""
    try:
        return yaml.load(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except yaml.YAMLError:
        return yaml.load(text, yaml.BaseLoader)


def shape(value: Any) -> Any:
    """Maps and lists, with their keys as texts; what a scalar is, YAML 1.1 and 1.2 see differently."""
    if isinstance(value, dict):
        return [shape(inner) for inner in value.values()]
    return [shape(inner) for inner in value] if isinstance(value, list) else None


def test_the_oracle_for_texts_refuses_what_is_none() -> None:
    with pytest.raises(NotTextError):
        value_text(b"\xff")
