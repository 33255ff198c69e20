"""The results file: a JSON list that several processes can append to without losing entries."""

from __future__ import annotations

import json
import logging
import math
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sentiment_hybrid.errors import OutputError, count
from sentiment_hybrid.files import atomic_file, reason, remedy

log = logging.getLogger(__name__)

_SEPARATORS = re.compile(r"[\s,]*")
#: Seconds to wait for another process that is appending; an append takes milliseconds.
LOCK_SECONDS = 60.0


def append_result(path: Path, entry: Mapping[str, Any]) -> None:
    """Append ``entry`` to the list in ``path``.

    The new list is written to a temporary file, flushed to disk and renamed under a lock, so that readers always see
    a complete list, and concurrent appends lose nothing. NaN and infinities become null. A damaged file is moved aside,
    with a warning; the entries that can be read stay in the list. Raises OutputError if the directory cannot be
    written, or the lock is not acquired within LOCK_SECONDS.
    """
    addition = jsonable(entry)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            entries = [*jsonable(_read_or_set_aside(path)), addition]
            text = json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False)
            with atomic_file(path, flush=True) as aside:
                aside.write_text(text + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(
            f"results file {path} cannot be written: {reason(error)}",
            hint=remedy(error, "another directory with --set paths.results_dir=DIR"),
        ) from error


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
            f"results file {path} is damaged: it is not a JSON list of objects, or contains NaN",
            hint="repair it by hand, or leave it: the next result keeps what can be read, and a copy of this file",
        )
    return entries


def _parse(content: bytes) -> list[dict[str, Any]] | None:
    """The entries, or None if the content is not a JSON list of objects; NaN, which Python reads, is not JSON."""
    try:
        entries = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    return entries


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _readable(content: bytes) -> list[dict[str, Any]]:
    """The complete entries at the beginning of a damaged list."""
    text, decoder, entries = content.decode("utf-8", "replace").lstrip("\ufeff \t\r\n"), json.JSONDecoder(), []
    place = 1 if text.startswith("[") else len(text)
    while (found := _SEPARATORS.match(text, place)) and found.end() < len(text):
        try:
            entry, place = decoder.raw_decode(text, found.end())
        except (ValueError, RecursionError):
            break
        entries += [entry] if isinstance(entry, dict) else []
    return entries


def _read_or_set_aside(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    content = path.read_bytes()
    entries = _parse(content)
    if entries is not None:
        return entries
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    while aside.exists():
        aside = path.with_name(f"{path.stem}.damaged-{stamp}-{secrets.token_hex(2)}{path.suffix}")
    kept = _readable(content)
    # A copy, because the list itself is only replaced atomically.
    with atomic_file(aside, flush=True) as copy:
        copy.write_bytes(content)
    log.warning(
        "the results file %s was damaged: %s kept, and a copy of the file is %s",
        path,
        f"{count(len(kept), 'entry', 'entries')} could be read and {'was' if len(kept) == 1 else 'were'}",
        aside,
    )
    return kept


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file of ``path``; the system releases it when a process dies, so it is never stale."""
    from filelock import FileLock, Timeout

    # Not the lock of `files.locked`, which is also needed to replace the file.
    lock = FileLock(path.with_name(f".{path.name}.append.lock"), timeout=LOCK_SECONDS)
    try:
        with lock:
            yield
    except Timeout as error:
        raise OutputError(
            f"results file {path} has been locked by another process for {LOCK_SECONDS:.0f} seconds",
            hint=f"wait for that process, or stop it; the lock file is {lock.lock_file}",
        ) from error


def jsonable(value: Any) -> Any:
    """Plain JSON values: NaN is None, numpy scalars and arrays are numbers and lists, paths and dates are strings."""
    if isinstance(value, Mapping):
        return {_text(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return _text(value)


def _text(value: Any) -> str:
    """As text; lone surrogates, which UTF-8 cannot encode, are escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
