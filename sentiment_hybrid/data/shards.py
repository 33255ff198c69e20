"""The folder of the outputs of a job over many files: local here, elsewhere through remote.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentiment_hybrid.data.remote import RemoteFolder, Shard, is_url
from sentiment_hybrid.data.writers import ANOTHER_FILE, kind_of_output
from sentiment_hybrid.errors import OutputError, UsageError
from sentiment_hybrid.files import locked, read_json, replace_json, written

#: The folder, among the outputs, of what describes them; readers of datasets skip names that begin with _ or a dot.
OWN = "_senthy"


def output_name(shard: Shard, kind: str | None = None) -> str:
    """The name of a shard's output: its own where that can be written, with ``.csv`` added where it cannot."""
    try:
        kind_of_output(Path(shard.name))
    except UsageError:
        return f"{shard.name}.{kind if kind not in (None, 'lines') else 'csv'}"
    return shard.name


class LocalFolder:
    """A folder of outputs on this machine, or one that is mounted; names are relative, with / between their parts."""

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
        with written(self.root / name, other=ANOTHER_FILE):
            replace_json(self.root / name, document)

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        with written(self.root / name, other=ANOTHER_FILE):
            (self.root / name).unlink(missing_ok=True)

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
        with written(path, other=ANOTHER_FILE):
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path):
                yield

    @contextlib.contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """The path itself: whoever writes it does so as a whole."""
        yield self.root / name


Folder = LocalFolder | RemoteFolder


def open_folder(spec: str | Path) -> Folder:
    """The folder of the outputs. Raises OutputError where it cannot be one."""
    if is_url(spec):
        return RemoteFolder(str(spec))
    return LocalFolder(Path(spec).expanduser())
