"""Atomic writes of files and directories, locks, and error messages for failed writes."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.errors import OutputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

#: Files of at least this many bytes are linked rather than copied; users may edit small ones.
_LARGE = 1_000_000
#: Maximum size of a descriptive JSON file in bytes; parsed, it takes many times as much memory.
_LONGEST_JSON = 16_000_000
#: Names of the files that a killed process leaves next to a target; the first group is the target's name.
_LEFTOVER = re.compile(r"\.(.+)\.(?:writing|old|[0-9a-f]{8}\.partial)")

#: System errors if there is no space; Windows has no quotas of this kind.
_NO_ROOM = {errno.ENOSPC: "the disk is full", getattr(errno, "EDQUOT", -1): "the disk quota is used up"}
_FORBIDDEN = (errno.EACCES, errno.EPERM)


def _number(error: Exception) -> int:
    """The errno of an error; safetensors and shutil.copytree have it only in the message."""
    found = re.search(r"(?:\(os error |\[Errno )(\d+)", str(error))
    return getattr(error, "errno", None) or (int(found[1]) if found else 0)


def has_no_room(error: Exception) -> bool:
    """Whether an error of the system says that a disk or a quota is full."""
    return _number(error) in _NO_ROOM


def reason(error: Exception) -> str:
    """The reason for an error of the system, in a few words."""
    return _NO_ROOM.get(_number(error)) or getattr(error, "strerror", None) or str(error)


def remedy(error: Exception, other: str = "another directory") -> str:
    """A hint for a failed write that fits the reason; ``other`` names an alternative target."""
    if has_no_room(error) or any(words in str(error) for words in ("disk is full", "disk I/O")):  # those of SQLite
        return f"Free some disk space, or choose {other}."
    if _number(error) in _FORBIDDEN:
        return f"Change the permissions, or choose {other}."
    return f"Choose {other}."


def is_file(text: str) -> bool:
    """Whether a text is the name of an existing file, whose content the user may have meant."""
    with suppress(OSError, ValueError):  # a text may be too long for a name, or contain a null character
        return Path(text).is_file()
    return False


def is_same_file(first: Path, second: Path) -> bool:
    """Whether two names are of one file, also of one that does not exist yet."""
    first, second = first.expanduser(), second.expanduser()
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))


def holds_any_text(stream: Any) -> bool:
    """Whether a text stream can encode every character; a stream without an encoding, in memory, can."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


@contextmanager
def written(target: Path | str, *, hint: str = "", other: str = "another directory") -> Iterator[None]:
    """Turn a failed write of ``target`` by the system, SQLite or safetensors into an OutputError.

    The hint is ``hint``, else the `remedy`. A broken pipe is handled elsewhere.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        kind = type(error)
        if not isinstance(error, OSError) and kind.__module__ != "sqlite3" and kind.__name__ != "SafetensorError":
            raise
        raise OutputError(f"cannot write {target}: {reason(error)}", hint=hint or remedy(error, other)) from error


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock ``path`` against other writers; the system releases the lock of a killed process.

    The value is False on a file system without locks.

    Raises:
        OutputError: another process has locked it, and ``wait`` is False.
        OSError: its folder is not writable.
    """
    lock = path.with_name(f".{path.name}.writing")
    try:
        descriptor, works = _acquire(lock, wait=wait)
    except BlockingIOError as error:
        raise OutputError(
            f"another process is writing {path}", hint="Wait until it has finished, or choose another name."
        ) from error
    try:
        yield works
    finally:
        if os.name == "posix":  # other systems cannot remove an open file, which is removed below
            lock.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):
            if os.name != "posix":
                lock.unlink()


def _acquire(lock: Path, *, wait: bool) -> tuple[int, bool]:
    """The descriptor of a lock file, and whether it is locked."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            works = _lock(descriptor, wait=wait)
            # If the previous owner has removed this file in the meantime, a lock on it is useless: try again.
            if not works or os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor, works
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock; returns whether the file system has locks. Raises BlockingIOError if locked and ``wait`` is False."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise BlockingIOError(error.errno, "locked") from error
        return False
    return True


@contextmanager
def atomic_file(path: Path, *, flush: bool = False, wait: bool = True) -> Iterator[Path]:
    """A temporary name to write to, which replaces ``path`` if the block ends without an error.

    Missing folders are created. With ``flush``, the content is flushed to disk first, so that even a power failure
    leaves the old or the new file. Only one process writes at a time: others wait, or fail if ``wait`` is False.

    Raises:
        OutputError: another process is writing it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, wait=wait) as exclusive:
        if exclusive:
            _remove_partials(path)
        aside = _partial(path)
        try:
            yield aside
            if flush:
                flush_file(aside)
            aside.replace(path)
            if flush:
                _flush_folder(path.parent)
        finally:
            with suppress(OSError):
                aside.unlink()


@contextmanager
def atomic_dir(directory: Path, *, wait: bool = True) -> Iterator[Path]:
    """A new temporary folder, which is flushed to disk and replaces ``directory`` if the block ends without an error.

    The old one is first renamed to ``.NAME.old`` and then removed; `recover` restores it after a kill in between. Only
    one process writes at a time: others wait, or fail if ``wait`` is False.

    Raises:
        OSError: it cannot be written; the old one is untouched.
        OutputError: another process is writing it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with locked(directory, wait=wait) as exclusive:
        _put_back(directory)
        if exclusive:
            _remove_partials(directory)
        with new_dir(directory, aside=_partial(directory)) as aside:
            yield aside


@contextmanager
def new_dir(directory: Path, *, aside: Path) -> Iterator[Path]:
    """As `atomic_dir`, without a lock, for a name that no other process writes; ``aside`` is its temporary name."""
    aside.mkdir(parents=True)
    try:
        yield aside
        flush_to_disk(aside)
        _swap_in(aside, directory)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def recover(directory: Path) -> Path:
    """The folder, restored if `atomic_dir` was killed after it had renamed the old one and before it renamed the new.

    Its parent is also restored, because models that were packed together are replaced together.
    """
    for place in (directory.parent, directory):
        if place.name and _old(place).is_dir() and not place.exists():
            # If nothing may be written there, it stays as it is.
            with suppress(OSError), locked(place):
                _put_back(place)
    return directory


def leftovers(folder: Path) -> list[Path]:
    """Partial and replaced files and folders in ``folder`` that killed processes have left."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (match := _LEFTOVER.fullmatch(path.name)) and _is_dead(path, folder / match[1]):
            found.append(path)
    return found


def _is_dead(leftover: Path, target: Path) -> bool:
    if leftover == _old(target) and not target.exists():
        return False  # the only copy
    try:
        with locked(target, wait=False) as exclusive:
            pass
    except (OSError, OutputError):
        return False
    return exclusive and leftover.exists()  # releasing the lock has removed a stale lock file


def _put_back(directory: Path) -> None:
    if not directory.exists():
        with suppress(FileNotFoundError):
            _old(directory).rename(directory)


def _swap_in(aside: Path, directory: Path) -> None:
    old = _old(directory)
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        directory.rename(old)
    try:
        aside.rename(directory)
    except OSError:
        _put_back(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def _remove_partials(path: Path) -> None:
    """Remove partial files of killed processes; the caller has the lock, so no process is writing them."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.partial"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a folder as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """A hard link to a large file; a copy of a small one, or if links are not supported."""
    if Path(source).stat().st_size >= _LARGE:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _old(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON object, or too large.
    """
    if (size := path.stat().st_size) > _LONGEST_JSON:
        raise ValueError(f"it has {size:,} bytes")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError(f"it contains {type(document).__name__} instead of an object")
    return document


def facts_of(path: Path) -> dict[str, Any]:
    """What a descriptive JSON file says; nothing if it cannot be read."""
    with suppress(OSError, ValueError):
        return read_json(path)
    return {}


def replace_text(path: Path, text: str, *, hint: str = "") -> None:
    """Replace a text file; lone surrogates are escaped. Raises OutputError, with this hint."""
    with written(path, hint=hint), atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document as indented JSON."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def replace_json(path: Path, document: dict[str, Any]) -> None:
    """Replace a JSON file; the old one is kept until the new one has been flushed to disk."""
    with atomic_file(path, flush=True) as aside:
        write_json(aside, document)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors, with the usual permissions; the library would make the file private.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(mode)


def size_of(folder: Path) -> int:
    """Total size of a file, or of the files in a folder, except those removed meanwhile."""
    if not folder.is_dir():
        return folder.stat().st_size if folder.exists() else 0
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total


def digest_of(facts: object) -> str:
    """sha256 (hex) of JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mark_used(path: Path) -> None:
    """Set a file's modification time to now, if possible; `senthy cache clear --older-than` compares it."""
    with suppress(OSError):
        os.utime(path)


def flush_to_disk(folder: Path) -> None:
    """Flush every file of a folder to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            flush_file(path)


def _flush_folder(folder: Path) -> None:
    """Flush a rename to disk; Windows cannot open folders, and does not need it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file(path: Path) -> None:
    """Flush a file to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def check_writable(
    *folders: Path, hint: str = "Choose another directory: --set paths.models_dir=... --set paths.results_dir=..."
) -> None:
    """Raise OutputError if a folder cannot be written, before hours of work."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}", hint=hint) from error


def check_replaceable(target: Path, is_ours: Callable[[], bool]) -> None:
    """Raise UsageError unless ``target`` is new, empty or ours: an output replaces only an older one of its kind."""
    if recover(target).exists() and not target.is_dir():
        raise UsageError(f"--output {target} is a file", hint="Choose a new directory.")
    if target.is_dir() and any(target.iterdir()) and not is_ours():
        raise UsageError(f"--output {target} contains other files", hint="Choose a new directory.")
