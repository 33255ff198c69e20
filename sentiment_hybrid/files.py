"""Writing that a stop or a full disk cannot leave half done, and its failures in the user's words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor

_ATTEMPTS = 5  # at swapping folders while others read


def reason(error: Exception) -> str:
    """Why the system refused, in a few words; safetensors tells its reason in the text alone."""
    if getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
        return "the disk is full"
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def written(target: Path | str, *, hint: str = "Free some disk space, or choose another directory.") -> Iterator[None]:
    """Tell a failed write of ``target`` as an OutputError; safetensors wraps the system's error in one of its own."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        raise OutputError(f"cannot write {target}: {reason(error)}", hint=hint) from error


@contextmanager
def atomic_file(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """A name beside ``path``, in a folder that is made, to write to; put in its place if the block ends well.

    With ``flush`` its content is on the disk before: then not even a power failure loses both files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield aside
        if flush:
            _flush(aside)
        aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink()


@contextmanager
def atomic_dir(directory: Path, *, aside: Path | None = None) -> Iterator[Path]:
    """A new folder to write to, flushed and put in place of ``directory`` if the block ends well.

    An old one is moved to ``.NAME.old`` first and then removed; `recover` puts it back after a stop between the two.
    ``aside`` is another name for the new folder until it is whole.

    Raises:
        OSError: it cannot be written; the old one is untouched.
    """
    recover(directory)
    for stale in directory.parent.glob(f".{directory.name}.*.partial"):
        shutil.rmtree(stale, ignore_errors=True)
    aside = aside or directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.partial")
    aside.mkdir(parents=True)
    try:
        yield aside
        flush_to_disk(aside)
        _swap_in(aside, directory)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def recover(directory: Path) -> None:
    """Put the old folder back if `atomic_dir` was stopped between moving it aside and putting the new one in place."""
    old = _old(directory)
    if old.is_dir() and not directory.exists():
        # Another process may publish or recover at this moment, and then there is nothing left to do.
        with suppress(OSError):
            old.rename(directory)


def _swap_in(aside: Path, directory: Path) -> None:
    old = _old(directory)
    for attempt in range(_ATTEMPTS):
        shutil.rmtree(old, ignore_errors=True)
        with suppress(FileNotFoundError):
            directory.rename(old)
        try:
            aside.rename(directory)
            break
        except OSError:
            # A reader may have recovered the old folder between the two renames.
            if attempt == _ATTEMPTS - 1 or not directory.is_dir():
                recover(directory)
                raise
    shutil.rmtree(old, ignore_errors=True)


def _old(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """A document as JSON that people can read too."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def replace_json(path: Path, document: dict[str, Any]) -> None:
    """Put a document in place of an old one, which stays whole until the new one is on the disk."""
    with atomic_file(path, flush=True) as aside:
        write_json(aside, document)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tensors by name as safetensors, readable by whom the user's other files are; the library makes it private.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(mode)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mark_used(path: Path) -> None:
    """Note in a file's time that it was used just now, where that may be noted: clearing goes by it."""
    with suppress(OSError):
        os.utime(path)


def flush_to_disk(folder: Path) -> None:
    """Have the content of every file of a folder on the disk itself, not only on its way there."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush(path)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def check_writable(
    *folders: Path, hint: str = "Choose another directory: --set paths.models_dir=... --set paths.results_dir=..."
) -> None:
    """Say so before hours of work, not after."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(
                f"cannot write into {folder}: {error.strerror or error}",
                hint=hint,
            ) from error
