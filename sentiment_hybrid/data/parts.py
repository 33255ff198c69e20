"""An output written in parts, each flushed to disk, so that a stopped run can be resumed after the last one."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentiment_hybrid.console import note
from sentiment_hybrid.data.writers import ANOTHER_FILE, Rows, Style, check_target, file_writer, kind_of_output
from sentiment_hybrid.errors import OutputError, count
from sentiment_hybrid.files import flush_file, locked, replace_json, written

_PROGRESS = "progress.json"
#: Rows of a row group of parquet, made of several parts.
_ROW_GROUP = 16_384


class Parts:
    """The parts of ``target``, in a hidden folder beside it. ``facts`` are the caller's, stored with the last part."""

    def __init__(self, target: Path, columns: Sequence[str], style: Style) -> None:
        self.target = target
        self.folder = target.with_name(f".{target.name}.parts")
        self.done = 0
        self.facts: dict[str, int] = {}
        self._key: dict[str, Any] = {}
        self._kind = kind_of_output(target)
        self._columns, self._style = list(columns), style

    def find(self, key: dict[str, Any], *, resume: bool, strict: bool = True, done: str) -> None:
        """Continue with the parts of a stopped run, or remove them; a note tells how many texts were ``done``.

        Raises:
            OutputError: the run to be resumed had another ``key``; without ``strict``, it is removed.
        """
        self._key = key
        found = self._read()
        if resume and found:
            changed = [name for name, value in key.items() if found["key"].get(name) != value]
            if changed and strict:
                raise OutputError(
                    f"cannot resume {self.target}: the {' and the '.join(changed)} changed since it was stopped",
                    hint="Undo the change, or leave out --resume to start over.",
                )
            if not changed:
                self.done, self.facts = found["parts"], found["facts"]
                return note(f"resuming after {count(self.facts['rows'], 'text')}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if found and found["facts"]:
            texts = count(found["facts"]["rows"], "text")
            note(f"starting over; a stopped run had {done} {texts} (--resume continues it)")
        elif resume:
            note("there is nothing to resume")
        return None

    def _read(self) -> dict[str, Any] | None:
        """The record of the last run; None if there is none, or the folder is damaged."""
        try:
            found: dict[str, Any] = json.loads((self.folder / _PROGRESS).read_text(encoding="utf-8"))
            whole = all(self._part(number).is_file() for number in range(found["parts"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if whole and {"key", "facts"} <= found.keys() else None

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:08}"

    def write(self, batches: Iterable[Rows], facts: dict[str, int]) -> None:
        """Write one part, flush it, and record it."""
        path = self._part(self.done)
        if self._kind == "parquet" and self.done == 1:
            import pyarrow.parquet

            types = {column.name: column.type for column in pyarrow.parquet.read_schema(self._part(0))}
            self._style = replace(self._style, types={**self._style.types, **types})
        with file_writer(path, self.target, self._columns, self._style, header=self.done == 0) as writer:
            for rows in batches:
                writer.write(rows)
        flush_file(path)
        self.done += 1
        self.facts = facts
        replace_json(self.folder / _PROGRESS, {"key": self._key, "parts": self.done, "facts": facts})

    def finish(self) -> None:
        """Concatenate the parts and replace the target."""
        if not self.done:
            self.write([], self.facts)
        paths = [self._part(number) for number in range(self.done)]
        whole = self.folder / "whole" if len(paths) > 1 else paths[0]
        if len(paths) > 1 and self._kind == "parquet":
            _joined_parquet(paths, whole)
        elif len(paths) > 1:
            with whole.open("wb") as file:
                for path in paths:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, file, 1 << 20)
        flush_file(whole)
        whole.replace(self.target)
        shutil.rmtree(self.folder, ignore_errors=True)


def _joined_parquet(parts: Sequence[Path], whole: Path) -> None:
    """Row groups of at least `_ROW_GROUP` rows: readers are slow with many small ones."""
    import pyarrow.parquet

    waiting: list[Any] = []
    schema = pyarrow.parquet.read_schema(parts[0])
    with pyarrow.parquet.ParquetWriter(whole, schema, write_page_checksum=True) as writer:
        for part in parts:
            waiting.append(pyarrow.parquet.read_table(part))
            if part == parts[-1] or sum(map(len, waiting)) >= _ROW_GROUP:
                writer.write_table(pyarrow.concat_tables(waiting))
                waiting.clear()


@contextlib.contextmanager
def open_parts(target: Path, columns: Sequence[str], style: Style = Style()) -> Iterator[Parts]:
    """The parts of a locked output; concatenated when the block ends without an error.

    After a kill, an interruption or a full disk, `Parts.find` can continue with them. Not for SQLite.

    Raises:
        OutputError: another process is writing ``target``, or it cannot be written.
        KeyboardInterrupt: interrupted; says how to resume.
    """
    target = target.expanduser().resolve()
    with written(target, other=ANOTHER_FILE):
        check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target, wait=False):
            parts = Parts(target, columns, style)
            try:
                yield parts
                parts.finish()
            except KeyboardInterrupt as stop:
                if not parts.done:
                    shutil.rmtree(parts.folder, ignore_errors=True)
                    raise
                rows = parts.facts.get("rows", 0)
                raise KeyboardInterrupt(
                    f"interrupted after {rows:,} texts; the same command with --resume continues there"
                ) from stop
            except BaseException as error:
                if not (isinstance(error, OSError) and parts.done):
                    shutil.rmtree(parts.folder, ignore_errors=True)
                raise
