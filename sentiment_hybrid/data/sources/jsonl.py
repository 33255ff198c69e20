"""JSON lines."""

from __future__ import annotations

import json
from collections import Counter
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
                records, _ = self._records(some(text, BATCH_SIZE, len), 1)
                self._columns = keys_of(records.values())
        return self._columns

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        with self._text() as text:
            first = 1
            while lines := some(text, size, len):
                records, skipped = self._records(lines, first)
                names = columns or keys_of(records.values())
                values = {name: [record.get(name, MISSING) for record in records.values()] for name in names}
                yield Batch(list(records), values, skipped)
                first += len(lines)

    def _records(self, lines: Iterable[str], first: int) -> tuple[dict[int, dict[str, Any]], dict[str, int]]:
        """Objects by line number, and the number of lines without one."""
        records: dict[int, dict[str, Any]] = {}
        skipped: Counter[str] = Counter()
        for number, line in enumerate(lines, first):
            if not line.strip():
                continue
            try:
                record = None if unsound(line) else json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict) and not any(map(unsound, record)):
                if "\\ud" in line.casefold():
                    record = {key: without_half_characters(value) for key, value in record.items()}
                records[number] = {key.strip(): value for key, value in record.items()}
            elif self.bad_rows == "error":
                raise self.bad_row(number, unsound(line) or _odd_key(record) or f"no JSON object: {line.strip()[:60]}")
            else:
                skipped["no JSON object"] += 1
        return records, dict(skipped)


def _odd_key(record: Any) -> str:
    keys = record if isinstance(record, dict) else ()
    return next((f"a key {key!a}: {problem}" for key in keys if (problem := unsound(key))), "")


def without_half_characters(value: Any) -> Any:
    """Replace escaped lone surrogates by the replacement character."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def keys_of(records: Iterable[dict[str, Any]]) -> list[str]:
    """Keys in order of first occurrence."""
    return list(dict.fromkeys(key for record in records for key in record))
