"""Writing that a stop or a full disk cannot leave half done, and its failures in the user's words."""

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes of a file that is rather linked than copied: people edit small ones.
_LARGE = 1_000_000
#: Bytes of a JSON document that describes something, at most: read, it takes many times as much memory.
_LONGEST_JSON = 16_000_000
#: Names beside a target that only a stop leaves there; the first group is the target's.
_LEFTOVER = re.compile(r"\.(.+)\.(?:writing|old|[0-9a-f]{8}\.partial)")


#: What the system reports where there is no room for more; Windows has no quotas of this kind.
_NO_ROOM = {errno.ENOSPC: "the disk is full", getattr(errno, "EDQUOT", -1): "the disk quota is used up"}
_FORBIDDEN = (errno.EACCES, errno.EPERM)


def _number(error: Exception) -> int:
    """The error number of the system; safetensors and shutil.copytree have it only in the message."""
    found = re.search(r"(?:\(os error |\[Errno )(\d+)", str(error))
    return getattr(error, "errno", None) or (int(found[1]) if found else 0)


def reason(error: Exception) -> str:
    """Why the system refused, in a few words."""
    return _NO_ROOM.get(_number(error)) or getattr(error, "strerror", None) or str(error)


def remedy(error: Exception, other: str = "another directory") -> str:
    """What to do about a failed write: a hint that fits the reason; ``other`` is what can be chosen instead."""
    if _number(error) in _NO_ROOM or "disk is full" in str(error):  # as SQLite says
        return f"Free some disk space, or choose {other}."
    if _number(error) in _FORBIDDEN:
        return f"Change the permissions, or choose {other}."
    return f"Choose {other}."


def is_file(text: str) -> bool:
    """Whether a text that was given is the name of a file, whose content may have been meant."""
    with suppress(OSError, ValueError):  # a text may be too long for a name, or have a null character
        return Path(text).is_file()
    return False


def holds_any_text(stream: Any) -> bool:
    """Whether the encoding of a text stream has every character; one without an encoding is no file."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


@contextmanager
def written(target: Path | str, *, hint: str = "") -> Iterator[None]:
    """Tell a failed write of ``target`` as an OutputError; safetensors wraps the system's error in one of its own."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        raise OutputError(f"cannot write {target}: {reason(error)}", hint=hint or remedy(error)) from error


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of ``path``, which everyone who replaces it takes; the system frees it when a process dies.

    Gives False where the file system has no locks.

    Raises:
        OutputError: another process holds it, and not ``wait``.
        OSError: its folder may not be written.
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
        if os.name == "posix":  # elsewhere an open file cannot be removed, so nobody's lock can be either
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
            # Whoever held it before has removed the file: a lock of that file would keep nobody out.
            if not works or os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor, works
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Whether the file system has locks. Raises BlockingIOError when another holds this one, and not ``wait``."""
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
    """A name beside ``path``, in a folder that is made, to write to; put in its place if the block ends well.

    With ``flush`` its content is on the disk before: then not even a power failure loses both files. One process at a
    time writes it: another waits, or is refused if not ``wait``.

    Raises:
        OutputError: another process is writing it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, wait=wait) as alone:
        if alone:
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
    """A new folder to write to, flushed and put in place of ``directory`` if the block ends well.

    An old one is moved to ``.NAME.old`` first and then removed; `recover` puts it back after a stop between the two.
    One process at a time writes it: another waits, or is refused if not ``wait``.

    Raises:
        OSError: it cannot be written; the old one is untouched.
        OutputError: another process is writing it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with locked(directory, wait=wait) as alone:
        _put_back(directory)
        if alone:
            _remove_partials(directory)
        with new_dir(directory, aside=_partial(directory)) as aside:
            yield aside


@contextmanager
def new_dir(directory: Path, *, aside: Path) -> Iterator[Path]:
    """As `atomic_dir`, without a lock: no other writes this name. It is called ``aside`` until it is whole."""
    aside.mkdir(parents=True)
    try:
        yield aside
        flush_to_disk(aside)
        _swap_in(aside, directory)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def recover(directory: Path) -> Path:
    """The folder, put back if `atomic_dir` was stopped between moving it aside and putting the new one in place.

    The same goes for the folder that it is in: models that were packed together are replaced together.
    """
    for place in (directory.parent, directory):
        if place.name and _old(place).is_dir() and not place.exists():
            # Where nothing may be written, it stays as it is.
            with suppress(OSError), locked(place):
                _put_back(place)
    return directory


def leftovers(folder: Path) -> list[Path]:
    """What killed processes have left of files and folders in ``folder``: partial ones, and replaced ones."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (match := _LEFTOVER.fullmatch(path.name)) and _is_dead(path, folder / match[1]):
            found.append(path)
    return found


def _is_dead(leftover: Path, target: Path) -> bool:
    if leftover == _old(target) and not target.exists():
        return False  # the only one there is
    try:
        with locked(target, wait=False) as alone:
            pass
    except (OSError, OutputError):
        return False
    return alone and leftover.exists()  # a lock that nobody holds is gone now


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
    """Remove what killed processes have left; the caller holds the lock, so that nobody is writing them."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.partial"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """A second name for a large file, which takes no room; a copy of a small one, or where there are no links."""
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
        ValueError: it is no JSON object, or larger than such a file is.
    """
    if (size := path.stat().st_size) > _LONGEST_JSON:
        raise ValueError(f"it has {size:,} bytes")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError(f"it holds {type(document).__name__} instead of an object")
    return document


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


def digest_of(facts: object) -> str:
    """sha256 (hex) of JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


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
            flush_file(path)


def _flush_folder(folder: Path) -> None:
    """Have a rename on the disk itself; Windows cannot open folders, and needs no such thing."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file(path: Path) -> None:
    """Have the content of a file on the disk itself."""
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
