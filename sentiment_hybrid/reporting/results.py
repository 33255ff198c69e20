"""The results file: a JSON list that several processes can append to without losing entries."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.files import atomic_file, reason

#: Seconds to wait for another process that is appending; an append takes milliseconds.
LOCK_SECONDS = 60.0


def append_result(path: Path, entry: Mapping[str, Any]) -> Path | None:
    """Append ``entry`` to the list in ``path``; returns the new path of a damaged file that was moved aside, else None.

    The new list is written to a temporary file, flushed to disk and renamed under a lock, so that readers always see
    a complete list, and concurrent appends lose nothing. NaN and infinities become null. Raises OutputError if the
    directory cannot be written, or the lock is not acquired within LOCK_SECONDS.
    """
    addition = _jsonable(entry)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            entries, aside = _read_or_set_aside(path)
            _replace(path, json.dumps([*entries, addition], indent=2, ensure_ascii=False, allow_nan=False))
    except OSError as error:
        raise _unwritable(path, error) from error
    return aside


def read_results(path: Path) -> list[dict[str, Any]]:
    """The entries in ``path``, oldest first; an empty list if the file does not exist.

    Raises OutputError if it cannot be read or is damaged; the next append moves a damaged file aside.
    """
    try:
        entries = _parse(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(
            f"results file {path} cannot be read: {reason(error)}", hint="check its permissions"
        ) from error
    if entries is None:
        raise OutputError(
            f"results file {path} is damaged: it is not a JSON list of objects",
            hint="repair it by hand, or leave it: the next result is written to a new file, and this one is kept",
        )
    return entries


def _parse(content: bytes) -> list[dict[str, Any]] | None:
    """The entries, or None if the content is not a JSON list of objects."""
    try:
        entries = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    return entries


def _read_or_set_aside(path: Path) -> tuple[list[dict[str, Any]], Path | None]:
    if not path.exists():
        return [], None
    entries = _parse(path.read_bytes())
    if entries is not None:
        return entries, None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    while aside.exists():
        aside = path.with_name(f"{path.stem}.damaged-{stamp}-{secrets.token_hex(2)}{path.suffix}")
    path.replace(aside)
    return [], aside


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file of ``path``; the system releases it when a process dies, so it is never stale."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS)
    try:
        with lock:
            yield
    except Timeout as error:
        raise OutputError(
            f"results file {path} has been locked by another process for {LOCK_SECONDS:.0f} seconds",
            hint=f"wait for that process, or stop it; the lock file is {lock.lock_file}",
        ) from error


def _replace(path: Path, text: str) -> None:
    with atomic_file(path, flush=True) as aside:
        aside.write_text(text + "\n", encoding="utf-8", newline="\n")


def _jsonable(value: Any) -> Any:
    """Plain JSON values: NaN is None, numpy scalars and arrays are numbers and lists, paths and dates are strings."""
    if isinstance(value, Mapping):
        return {_text(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return _jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return _text(value)


def _text(value: Any) -> str:
    """As text; lone surrogates, which UTF-8 cannot encode, are escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"results file {path} cannot be written: {reason(error)}",
        hint="check permissions and free space, or choose another directory with --set paths.results_dir=DIR",
    )
