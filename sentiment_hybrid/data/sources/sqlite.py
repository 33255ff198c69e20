"""Tables of SQLite databases."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sentiment_hybrid.data.sources.base import LONGEST_LINE, Batch, FileSource, chosen, some
from sentiment_hybrid.errors import SourceError

LOCK_SECONDS = 5.0


class SqliteSource(FileSource):
    """One table or view of an SQLite database, opened read-only."""

    def __init__(self, path: Path, *, table: str | None = None, **options: Any) -> None:
        super().__init__(path, **options)
        self.table = self._find(table)
        self.name = f"{self.name}:{self.table}"

    def _files(self) -> list[Path]:
        """The database and, if another program has it open, its write-ahead log with further committed rows."""
        log = self.path.with_name(f"{self.path.name}-wal")
        return [self.path, log] if log.is_file() and log.stat().st_size else [self.path]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            address = f"{self.path.resolve().as_uri()}?mode=ro"
            # One thread at a time reads, but another may close the connection.
            with contextlib.closing(
                sqlite3.connect(address, uri=True, timeout=LOCK_SECONDS, check_same_thread=False)
            ) as connection:
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_LINE)
                connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
                yield connection
        except UnicodeError as error:
            raise SourceError(
                f"cannot read the SQLite database {self.path}: the name of a table or column is not UTF-8",
                hint="Rename it, or copy what is needed into another table.",
            ) from error
        except sqlite3.Error as error:
            locked = "locked" in str(error) or "busy" in str(error)
            raise SourceError(
                f"cannot read the SQLite database {self.path}: {error}",
                hint="Close whatever writes to it, and try again." if locked else "",
            ) from error

    def _find(self, wanted: str | None) -> str:
        with self._connected() as connection:
            query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
            names = [str(row[0]) for row in connection.execute(f"{query} ORDER BY name")]
            table = chosen(names, wanted, kind="table", source=str(self.path))
            plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {_quoted(table)}").fetchall()
        if any("RECURSIVE" in str(step[-1]) for step in plan):
            raise SourceError(
                f"{self.path}: the view {table} is recursive, and may never end",
                hint=f"Store its rows first: CREATE TABLE rows AS SELECT * FROM {_quoted(table)} LIMIT 1000000",
            )
        return table

    def bad_row(self, row: int, problem: str) -> SourceError:
        """As for any source, but SQLite stores UTF-8, so no option sets another encoding."""
        return super().bad_row(row, problem.replace("not text in the given encoding", "a text that is not UTF-8"))

    @property
    def columns(self) -> list[str]:
        """Columns of the table or view."""
        with self._connected() as connection:
            return [item[0].strip() for item in connection.execute(f"SELECT * FROM {_quoted(self.table)}").description]

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        with self._connected() as connection:
            self.total = self._count(connection)
            cursor = connection.execute(f"SELECT * FROM {_quoted(self.table)}")
            names = [item[0].strip() for item in cursor.description]
            first = 1
            while rows := some(cursor, size, _length):
                values = {name: [row[names.index(name)] for row in rows] for name in columns}
                yield Batch(range(first, first + len(rows)), values)
                first += len(rows)

    def _count(self, connection: sqlite3.Connection) -> int | None:
        """The rows of a table; those of a view would be computed twice."""
        query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
        if not connection.execute(query, (self.table,)).fetchone()[0]:
            return None
        return int(connection.execute(f"SELECT count(*) FROM {_quoted(self.table)}").fetchone()[0])


def _length(row: Sequence[Any]) -> int:
    return sum(len(value) for value in row if isinstance(value, str | bytes))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
