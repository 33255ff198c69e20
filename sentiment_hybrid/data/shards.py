"""Many files as the shards of one job, and the folder of its outputs: local here, elsewhere through remote.py."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sentiment_hybrid.data.remote import RemoteFolder, Shard, downloaded, is_pattern, is_url, listed
from sentiment_hybrid.data.sources import SUFFIXES
from sentiment_hybrid.data.writers import as_output_error, kind_of_output
from sentiment_hybrid.errors import OutputError, SourceError, UsageError
from sentiment_hybrid.files import locked, read_json, replace_json

#: The folder, among the outputs, of what describes them; readers of datasets skip names that begin with _ or a dot.
OWN = "_senthy"
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Shards:
    """The shards of a job in the order of their names; ``ignored`` are files of unknown formats beside them."""

    root: str
    shards: Sequence[Shard]
    ignored: Sequence[str] = ()


class Folder(Protocol):
    """A folder of outputs; names are relative, with / between their parts."""

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON document; None if there is none."""

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Write a JSON document as a whole."""

    def names(self) -> Sequence[str]:
        """Every file but those whose name, or that of a folder on the way, begins with a dot."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none."""

    def held(self, name: str) -> AbstractContextManager[object]:
        """Wait until no other process of this machine is at ``name``, and keep the others out."""

    def new(self, name: str) -> AbstractContextManager[Path]:
        """A local path to write a file to completely; it is in its place after the block."""


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
    found = sorted((one for one in found if not _is_hidden(one.name)), key=lambda one: one.name)
    known = found if any_suffix or is_pattern(str(spec)) else [one for one in found if _is_known(one.name)]
    if not known:
        what = "no file matches" if is_pattern(str(spec)) else "there is no file to label in"
        seen = f" (but {_few([one.name for one in found])})" if found else ""
        raise SourceError(f"{what} {spec}{seen}", hint=f"Known suffixes: {', '.join(SUFFIXES)}, each also .gz.")
    return Shards(root, known, [one.name for one in found if one not in known])


def _is_hidden(name: str) -> bool:
    return any(part[0] in "._" for part in name.split("/"))


def _is_known(name: str) -> bool:
    suffixes = [suffix.lower() for suffix in Path(name).suffixes if suffix.lower() != ".gz"]
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


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
        Shard(path.relative_to(root).as_posix(), str(path), _stamp(path)) for path in paths if path.exists()
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
        suffixes = [suffix.lower() for suffix in Path(shard.name).suffixes if suffix.lower() != ".gz"]
        kinds.setdefault(SUFFIXES.get(suffixes[-1], "other") if suffixes else "other", shard.name)
    if len(kinds) > 1:
        raise SourceError(
            f"the files are of several formats: {', '.join(f'{kind} ({name})' for kind, name in kinds.items())}",
            hint="Choose those of one format by a pattern, such as --input 'FOLDER/*.csv'.",
        )


def output_name(shard: Shard, kind: str | None = None) -> str:
    """The name of a shard's output: its own where that can be written, with ``.csv`` added where it cannot."""
    try:
        kind_of_output(Path(shard.name))
    except UsageError:
        return f"{shard.name}.{kind if kind not in (None, 'lines') else 'csv'}"
    return shard.name


# --- outputs ---------------------------------------------------------------------------------------------------------


def open_folder(spec: str | Path) -> Folder:
    """The folder of the outputs. Raises OutputError where it cannot be one."""
    if is_url(spec):
        return RemoteFolder(str(spec))
    return LocalFolder(Path(spec).expanduser())


class LocalFolder:
    """A folder on this machine, or one that is mounted."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise OutputError(f"{root} is a file", hint="The output of several files is a folder.")
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON document; None if there is none, or it is damaged."""
        try:
            return read_json(self.root / name)
        except (OSError, ValueError):
            return None

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Write a JSON document as a whole, flushed to the disk."""
        with as_output_error(self.root / name):
            replace_json(self.root / name, document)

    def names(self) -> list[str]:
        """Every file that is not hidden."""
        found = [Path(folder) / name for folder, _, names in os.walk(self.root) for name in names]
        relative = sorted(path.relative_to(self.root).as_posix() for path in found)
        return [name for name in relative if not any(part.startswith(".") for part in name.split("/"))]

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none."""
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return None

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """A lock, which the system frees when its process dies. That of writing ``name`` is another one."""
        path = self.root / f"{name}.held"
        with as_output_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path):
                yield

    @contextlib.contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """The path itself: whoever writes it does so as a whole."""
        yield self.root / name
