"""The formats that can be read, by name: suffixes, first bytes, and the class that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Format:
    """A reading format.

    Args:
        source: its class, created with (path, name=, bad_rows=), for text formats also encoding= and stream=.
        text: the format is text, which may be compressed, or a stream.
        settings: settings under ``data`` that its class takes as well.
    """

    module: str
    source: str
    suffixes: tuple[str, ...]
    magic: bytes = b""
    text: bool = False
    settings: tuple[str, ...] = ()


FORMATS = {
    "csv": Format("delimited", "DelimitedSource", (".csv",), text=True),
    "tsv": Format("delimited", "DelimitedSource", (".tsv", ".tab"), text=True),
    "jsonl": Format("jsonl", "JsonLinesSource", (".jsonl", ".ndjson"), text=True),
    "json": Format("json_tasks", "JsonSource", (".json",)),
    "lines": Format("plain_text", "LinesSource", (".txt",), text=True),
    "parquet": Format("parquet", "ParquetSource", (".parquet", ".pq"), b"PAR1"),
    "sqlite": Format(
        "sqlite", "SqliteSource", (".db", ".sqlite", ".sqlite3"), b"SQLite format 3\0", settings=("table",)
    ),
    "excel": Format("excel", "ExcelSource", (".xlsx", ".xlsm"), b"PK\x03\x04", settings=("table",)),
}
SUFFIXES = {suffix: kind for kind, item in FORMATS.items() for suffix in item.suffixes}
_WHOLE = [suffix for suffix, kind in SUFFIXES.items() if "table" in FORMATS[kind].settings]
#: The suffixes for messages.
KNOWN = f"{', '.join(suffix for suffix in SUFFIXES if suffix not in _WHOLE)} (each also .gz), {', '.join(_WHOLE)}"


def kind_by_suffix(name: str | Path) -> str | None:
    """The format that the end of a name stands for, also before .gz; None if it is not known."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes if suffix.lower() != ".gz"]
    return SUFFIXES.get(suffixes[-1]) if suffixes else None
