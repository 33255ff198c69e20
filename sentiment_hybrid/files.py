"""Writing that a stop or a full disk cannot leave half done, and its failures in the user's words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor


def reason(error: Exception) -> str:
    """Why the system refused, in a few words; safetensors tells its reason in the text alone."""
    if getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
        return "the disk is full"
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def written(target: Path | str, *, hint: str = "Free some space or choose another folder.") -> Iterator[None]:
    """Tell a failed write of ``target`` as an OutputError; safetensors wraps the system's error in one of its own."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        raise OutputError(f"cannot write {target}: {reason(error)}", hint=hint) from error


@contextmanager
def aside_of(path: Path) -> Iterator[Path]:
    """A name beside ``path``, in a folder that is made, to write to; put in its place if the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield aside
        aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink()


def write_json(path: Path, document: dict[str, Any]) -> None:
    """A document as JSON that people can read too."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def replace_json(path: Path, document: dict[str, Any]) -> None:
    """Put a document in place of an old one, which stays whole until the new one is on the disk."""
    with aside_of(path) as aside:
        write_json(aside, document)
        _flush(aside)


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
    *folders: Path, hint: str = "Choose another folder: --set paths.models_dir=... --set paths.results_dir=..."
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
