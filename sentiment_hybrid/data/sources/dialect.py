"""Encoding, delimiter and quoting of a text file, detected from its first bytes unless they are set."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sentiment_hybrid.data.columns import A_NAME, CLEAN_NAMES, TEXT_NAMES
from sentiment_hybrid.errors import SourceError

Quoting = Literal["minimal", "none", "backslash"]

#: Bytes used to detect the encoding, and characters used to detect the delimiter and the quoting.
ENCODING_SAMPLE, DIALECT_SAMPLE = 1 << 22, 1 << 16
DELIMITERS = {"csv": ",;\t|", "tsv": "\t,;|"}
DELIMITER_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "spaces"}
QUOTING_NAMES = {
    "minimal": "quoted fields", "none": "quotes as ordinary characters", "backslash": "quotes escaped by backslashes",
}  # fmt: skip
_BOMS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
#: Fraction of the rows that must have as many fields as the header.
_REGULAR = 0.9
#: A text in which more than this fraction of the bytes are not ASCII, and more than this fraction of those stand side
#: by side, is not in a Western European language.
_FEW_LETTERS, _SIDE_BY_SIDE = 0.02, 0.7
#: Characters at the end of a sample in which a field may be incomplete.
_CUT = 1 << 12
_FOREIGN = (
    (re.compile(rb"PK\x03\x04"), "an Excel workbook or another zip archive", "Save the sheet as CSV (UTF-8)."),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an old Excel workbook or Office file", "Save the sheet as CSV (UTF-8)."),
    (re.compile(rb"PAR1\x15"), "a Parquet file", "Give it the suffix .parquet."),
    (re.compile(rb"SQLite format 3\0"), "an SQLite database", "Give it the suffix .db."),
    (re.compile(rb"\x1f\x8b|BZh\d1AY&SY|\xfd7zXZ\0|\x28\xb5\x2f\xfd"), "compressed", "Unpack it first."),
    (re.compile(rb"%PDF-"), "a PDF document", "Only its text can be used."),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the file itself", "Run `git lfs pull` first."),
    (re.compile(rb"\s*(?:<!doctype html|<html)", re.IGNORECASE), "a web page (HTML)", "Download the file itself."),
)  # fmt: skip
_JSON_ARRAY = re.compile(r'\[\s*\{\s*"')

#: A byte order mark as a character, as it occurs in concatenated files.
BOM = "\ufeff"


@dataclass(frozen=True)
class Dialect:
    """How rows are written in a text file; ``preamble`` lines stand before the header."""

    delimiter: str
    quoting: Quoting
    preamble: int = 0

    def reader(self, lines: Any) -> Any:
        """A csv reader; malformed quoting is a csv.Error."""
        if self.quoting == "none":
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        escape = "\\" if self.quoting == "backslash" else None
        return csv.reader(lines, delimiter=self.delimiter, escapechar=escape, strict=True)


def column_names(header: Sequence[str]) -> list[str]:
    """The names in a header: trimmed, without a byte order mark, and ``column N`` for each that is empty."""
    names = [name.removeprefix(BOM).strip() for name in header]
    return [name or f"column {number}" for number, name in enumerate(names, 1)]


def refuse_foreign(head: bytes, name: str) -> None:
    """Raises SourceError if the first bytes are those of a file that is not a table, whatever its name."""
    for pattern, kind, hint in _FOREIGN:
        if pattern.match(head):
            raise SourceError(f"{name} is {kind}", hint=hint)


def text_header(head: bytes) -> str:
    """The first line of a stream if it is the header of a csv with one column, one for texts; else empty."""
    line, newline, _ = head.removeprefix(codecs.BOM_UTF8).partition(b"\n")
    name = line.decode("utf-8", "replace").rstrip("\r")
    unquoted = name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name
    return name if newline and unquoted.casefold() in {*TEXT_NAMES, *CLEAN_NAMES} else ""


def table_kind(head: bytes) -> str | None:
    """What a text starts like, if not like texts: jsonl (an object), json (an array of objects), or csv or tsv.

    These start with a header that has a column for texts.
    """
    text = head.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    if _JSON_ARRAY.match(text):
        return "json"
    line, newline, _ = text.partition("\n")
    if line.startswith("{"):
        with contextlib.suppress(ValueError):
            return "jsonl" if isinstance(json.loads(line), dict) else None
    if not newline:
        return None
    for delimiter in DELIMITERS["csv"]:
        names = [name.strip().strip('"').casefold() for name in line.split(delimiter)]
        if len(names) > 1 and set(names) & {*TEXT_NAMES, *CLEAN_NAMES} and all(map(A_NAME.fullmatch, names)):
            return "tsv" if delimiter == "\t" else "csv"
    return None


def detect_encoding(head: bytes, *, whole: bool) -> str:
    """The encoding of a text that starts with these bytes (``whole``: and ends with them).

    UTF-8 with a few broken bytes is UTF-8; else bytes that are not UTF-8 are Windows-1252, or Latin-1 where that has
    no such bytes.
    """
    for bom, encoding in _BOMS.items():
        if head.startswith(bom):
            return encoding
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        half = head[first:DIALECT_SAMPLE:2]
        if len(half) > 1 and half.count(0) > 0.4 * len(half):
            return encoding
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(head, final=whole)
    broken = len(re.findall("[\udc80-\udcff]", text))
    if not broken or len(re.findall(r"[^\x00-\x7f]", text)) > 2 * broken:
        return "utf-8"
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def check_western(head: bytes, name: str) -> None:
    """Refuse bytes that are not UTF-8 and hardly of a Western European language either.

    Nothing in the bytes says which encoding of Cyrillic, Greek, Chinese, Japanese or Korean text they are in. Letters
    with accents are few and stand alone, those of other scripts side by side.

    Raises:
        SourceError: many bytes are not ASCII, and most of these stand side by side.
    """
    high = len(re.findall(rb"[\x80-\xff]", head))
    together = sum(map(len, re.findall(rb"[\x80-\xff]{2,}", head)))
    if high > _FEW_LETTERS * len(head) and together > _SIDE_BY_SIDE * high:
        raise SourceError(
            f"{name} is neither UTF-8 nor in a Western European encoding",
            hint="Name its encoding: --encoding cp1251, cp1250, cp1252, shift_jis, gb18030 ... Or save it as UTF-8.",
        )


def detect_dialect(
    sample: str, *, kind: str, whole: bool, delimiter: str | None = None, quoting: Quoting | None = None
) -> Dialect:
    """The first dialect, those usual for the kind of file first, in which nearly all rows have the header's fields."""
    preamble = 0
    if separator := _SEPARATOR_LINE.match(sample):
        sample, preamble, delimiter = sample[separator.end() :], 1, delimiter or separator[1]
    usual: Quoting = "minimal" if kind == "csv" else "none"
    for character in delimiter or DELIMITERS[kind]:
        for style in [quoting] if quoting else _quotings(sample, kind):
            dialect = Dialect(character, style, preamble)
            rows = _rows(sample, dialect, whole=whole)
            if _is_regular(rows) and (quoting or _is_plausible(rows, dialect, sample, kind)):
                return dialect
    return Dialect(delimiter or DELIMITERS[kind][0], quoting or usual, preamble)


def _quotings(sample: str, kind: str) -> list[Quoting]:
    if '"' not in sample:
        return ["minimal" if kind == "csv" else "none"]
    escaped: list[Quoting] = ["backslash"] if '\\"' in sample else []
    # A csv whose quotes are malformed is an error, for quotes that protect delimiters are no ordinary characters.
    return ["minimal", *escaped] if kind == "csv" else ["minimal", "none"]


def _rows(sample: str, dialect: Dialect, *, whole: bool) -> list[list[str]]:
    """The rows of a sample; none if its quoting is malformed."""
    lines = list(io.StringIO(sample, newline=""))
    reader = dialect.reader(lines)
    rows: list[list[str]] = []
    try:
        rows.extend(row for row in reader if row)
    except csv.Error:
        if whole or reader.line_num < len(lines):
            return []
        return rows
    return rows if whole or len(rows) < 2 else rows[:-1]


def _is_regular(rows: list[list[str]]) -> bool:
    """Whether there are several columns, in nearly all rows."""
    width = len(rows[0]) if rows else 0
    return width > 1 and sum(len(row) == width for row in rows) >= _REGULAR * len(rows)


def _is_plausible(rows: list[list[str]], dialect: Dialect, sample: str, kind: str) -> bool:
    """Whether quotes surround fields: in a tsv of raw texts, some are in quotes of their own."""
    if kind == "csv" or dialect.quoting == "none" or '"' not in sample:
        return True
    header = sample.partition("\n")[0].rstrip("\r").split(dialect.delimiter)
    if all(len(name) > 1 and name[0] == name[-1] == '"' for name in header) and dialect.quoting == "minimal":
        return True  # as this package begins a tsv that has quoted values
    if not _is_written_with_quotes(sample, dialect.delimiter):
        return False
    fields = [field for row in rows for field in row]
    # A writer quotes the fields that need it, or all of them.
    needed = any(mark in field for field in fields for mark in f'"\n\r{dialect.delimiter}')
    return needed or sample.count('"') >= 2 * len(fields)


def _is_written_with_quotes(sample: str, delimiter: str) -> bool:
    """Whether no field outside of quotes contains one (RFC 4180), as in all that writers of quoted fields write."""
    field = re.compile(rf'(?:"(?:[^"]|"")*"|[^"\n{re.escape(delimiter)}]*)(?:{re.escape(delimiter)}|\r?\n|\Z)')
    place = 0
    while place < len(sample):
        found = field.match(sample, place)
        if found is None:
            return len(sample) - place < _CUT  # a quoted field that the sample cuts
        place = found.end()
    return True
