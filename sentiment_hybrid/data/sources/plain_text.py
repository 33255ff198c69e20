"""Plain text, one text per line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sentiment_hybrid.data.sources.base import Batch, TextSource, some


class LinesSource(TextSource):
    """Lines in a column named text; blank lines are texts too, so that rows stay aligned."""

    columns = ["text"]  # noqa: RUF012

    def place(self, row: int) -> str:
        """The line: a row is one."""
        return f"line {row}"

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        with self._text() as text:
            first = 1
            while lines := [line.rstrip("\r\n") for line in some(text, size, len)]:
                yield Batch(range(first, first + len(lines)), {"text": lines})
                first += len(lines)
