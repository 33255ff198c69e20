"""JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sentiment_hybrid.data.sources.base import BATCH_SIZE, MISSING, Batch, TextSource, some, unsound


class JsonLinesSource(TextSource):
    """One JSON object per line; the columns are the keys of the first ten thousand."""

    def place(self, row: int) -> str:
        """The line: a row is one."""
        return f"line {row}"

    @property
    def columns(self) -> list[str]:
        """Keys in order of first occurrence."""
        if self._columns is None:
            with self._text() as text:
                self._columns = list(self._batch(some(text, BATCH_SIZE, len), 1).columns)
        return self._columns

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        with self._text() as text:
            first = 1
            while lines := some(text, size, len):
                yield self._batch(lines, first, columns)
                first += len(lines)

    def _batch(self, lines: Sequence[str], first: int, columns: Sequence[str] = ()) -> Batch:
        """The objects in some lines; blank ones are left out."""
        records: dict[int, dict[str, Any]] = {}
        problems: dict[int, str] = {}
        for number, line in enumerate(lines, first):
            if line.strip():
                record, problem = _record(line)
                if problem:
                    problems[len(records)] = problem
                records[number] = record
        names = columns or keys_of(records.values())
        values = {name: [record.get(name, MISSING) for record in records.values()] for name in names}
        return self._without(problems, Batch(list(records), values))


def _record(line: str) -> tuple[dict[str, Any], str]:
    """The object in a line, or what is wrong with it."""
    try:
        record = None if unsound(line) else json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return {}, unsound(line) or f"no JSON object: {line.strip()[:60]}"
    if "\\ud" in line.casefold():
        record = {key: without_half_characters(value) for key, value in record.items()}
    return with_sound_keys(record)


def with_sound_keys(record: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """An object with trimmed keys, or what is wrong with one of them."""
    if problem := next((f"invalid key: {key!a} ({found})" for key in record if (found := unsound(key))), ""):
        return {}, problem
    return {key.strip(): value for key, value in record.items()}, ""


def without_half_characters(value: Any) -> Any:
    """Replace escaped lone surrogates by the replacement character."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def keys_of(records: Iterable[dict[str, Any]]) -> list[str]:
    """Keys in order of first occurrence."""
    return list(dict.fromkeys(key for record in records for key in record))
