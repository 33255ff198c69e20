"""Many files as one source, or as the shards of a job: those of a folder, a pattern or a URL."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sentiment_hybrid.data.remote import Shard, downloaded, is_pattern, is_url, listed
from sentiment_hybrid.data.sources.base import BATCH_SIZE, Batch, Source
from sentiment_hybrid.data.sources.formats import KNOWN, kind_by_suffix
from sentiment_hybrid.errors import ColumnError, SourceError, some


@dataclass(frozen=True)
class Shards:
    """The shards of a job in the order of their names; ``ignored`` are files of unknown formats beside them."""

    root: str
    shards: Sequence[Shard]
    ignored: Sequence[str] = ()


def is_several(spec: str | Path | None) -> bool:
    """Whether an input names several files: a folder, a pattern, or a URL."""
    if spec is None or str(spec) == "-":
        return False
    path = Path(spec).expanduser()
    return is_url(spec) or path.is_dir() or (is_pattern(str(spec)) and not path.exists())


def find_shards(spec: str | Path, *, any_suffix: bool = False) -> Shards:
    """The files that a folder, a pattern (``**`` for any depth) or a URL names, without hidden ones and ``_names``.

    In a folder, files of unknown formats are ignored, unless ``any_suffix``.

    Raises:
        SourceError: there are none, or the place cannot be read.
    """
    if is_url(spec):
        root, found = listed(str(spec))
    else:
        root, found = _listed(str(Path(spec).expanduser()))
    found = sorted((one for one in found if not is_hidden(one.name)), key=lambda one: one.name)
    known = found if any_suffix or is_pattern(str(spec)) else [one for one in found if kind_by_suffix(one.name)]
    if not known:
        what = "no file matches" if is_pattern(str(spec)) else "there is no file of a known format in"
        seen = f" (but {some([one.name for one in found], 3)})" if found else ""
        raise SourceError(f"{what} {spec}{seen}", hint=f"Known suffixes: {KNOWN}.")
    return Shards(root, known, [one.name for one in found if one not in known])


def is_hidden(name: str) -> bool:
    """Whether a file is skipped for its name, or for that of a folder on the way."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _listed(spec: str) -> tuple[str, list[Shard]]:
    """The common folder and the local files that a folder or a pattern names."""
    if Path(spec).is_dir():
        root = Path(spec)
        paths = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    else:
        root = pattern_root(spec)
        matches = glob.glob(spec, recursive=True)  # noqa: PTH207 - Path.glob matches hidden names too
        paths = [path for path in map(Path, matches) if path.is_file()]
    return str(root.resolve()), [
        Shard(path.relative_to(root).as_posix(), str(path.absolute()), _stamp(path)) for path in paths if path.exists()
    ]


def pattern_root(spec: str) -> Path:
    """The folder before the first part of a pattern that has a wildcard."""
    parts = Path(spec).parts
    fixed = next(at for at, part in enumerate(parts) if is_pattern(part))
    return Path(*parts[:fixed])


def _stamp(path: Path) -> list[int | str]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


@contextlib.contextmanager
def fetched(shard: Shard) -> Iterator[Path]:
    """A shard as a local file, for as long as the block lasts. Raises SourceError."""
    if is_url(shard.place):
        with downloaded(shard.place) as path:
            yield path
    else:
        yield Path(shard.place)


def check_one_kind(shards: Shards) -> None:
    """Refuse formats that differ, by suffix: their rows would not make one table."""
    kinds: dict[str, str] = {}
    for shard in shards.shards:
        kinds.setdefault(kind_by_suffix(shard.name) or "other", shard.name)
    if len(kinds) > 1:
        raise SourceError(
            f"the files are of several formats: {', '.join(f'{kind} ({name})' for kind, name in kinds.items())}",
            hint="Choose those of one format by a pattern, such as --input 'FOLDER/*.csv'.",
        )


class SeveralFiles(Source):
    """Files of the same columns, one after the other; rows are numbered through all of them."""

    def __init__(self, sources: Sequence[Source], *, name: str) -> None:
        super().__init__(name, bad_rows=sources[0].bad_rows)
        self._sources = sources
        self._starts: list[int] = []
        for source in sources[1:]:
            if set(source.columns) != set(sources[0].columns):
                raise ColumnError(
                    f"{source.name} has the columns {', '.join(source.columns)}, "
                    f"but {sources[0].name} has {', '.join(sources[0].columns)}",
                    hint="Files that are read together have the same columns: choose them by a pattern.",
                )

    @property
    def columns(self) -> list[str]:
        """Those of the first file."""
        return self._sources[0].columns

    def fingerprint(self) -> str:
        """sha256 over the names and the contents of all files, in their order."""
        parts = "".join(source.fingerprint() for source in self._sources)
        return hashlib.sha256(parts.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(source.size for source in self._sources)

    def place(self, row: int) -> str:
        """The file of a row, and its number there."""
        at = max(at for at, start in enumerate(self._starts) if start < row)
        return f"{self._sources[at].name}, {self._sources[at].place(row - self._starts[at])}"

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        raise NotImplementedError("`batches` asks each file")

    def batches(
        self, columns: Sequence[str] | None = None, *, size: int = BATCH_SIZE, native: bool = False
    ) -> Iterator[Batch]:
        """As for each file. An error names the file."""
        given, self.total, self._starts = 0, None, []
        for source in self._sources:
            source.limit, start = self.limit, given
            self._starts.append(start)
            for batch in source.batches(columns, size=size, native=native):
                given += len(batch) + sum(batch.skipped.values())
                self.total = rows_in(self._sources)
                yield replace(batch, rows=_shifted(batch.rows, start))
        self.total = given


def _shifted(rows: Sequence[int], by: int) -> Sequence[int]:
    if isinstance(rows, range):
        return range(rows.start + by, rows.stop + by, rows.step)
    return [row + by for row in rows]


def rows_in(sources: Sequence[Source]) -> float | None:
    """Rows in all; sources that are not begun yet are judged by their size beside those before them."""
    known = list(itertools.takewhile(lambda total: total is not None, (source.total for source in sources)))
    rows = sum(filter(None, known))
    if len(known) == len(sources):
        return rows
    sizes = [source.size for source in sources]
    return rows * sum(sizes) / size if (size := sum(sizes[: len(known)])) else None
