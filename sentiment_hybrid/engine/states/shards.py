"""The files of the state store: shards of ragged float16 states, complete or absent, verified before use.

``states/<encoder>-<layer>-<precision>/shard-*/``. A process that writes has locked a part of the store; the names of
folders that are being written or removed begin with a dot. Imports no torch, because `senthy cache` uses it too.
"""

from __future__ import annotations

import io
import json
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from sentiment_hybrid import paths
from sentiment_hybrid.files import mark_used, new_dir, replace_json, write_json

FORMAT = 2
KEY_BYTES = 16
#: The number of processes that can fill a store at once; the key of a window determines its part.
PARTS = 16

_FILES = _STATES, _KEYS, _STARTS = "states.npy", "keys.npy", "starts.npy"
_SUMS = "bytes", "crc32"
_BLOCK = 2**20

#: Files that this process has verified: path -> (size, modification time, inode).
_checked: dict[Path, tuple[int, int, int]] = {}


@dataclass(frozen=True)
class StoreIdentity:
    """Identifies the states of a store: the encoder, the layer (None for the last one) and the precision.

    A shard with another identity is stale.
    """

    fingerprint: str
    layer: int | None
    precision: str
    hidden_size: int

    @property
    def folder_name(self) -> str:
        """``<fingerprint>-last-bf16`` or ``<fingerprint>-layer9-bf16``."""
        layer = "last" if self.layer is None else f"layer{self.layer}"
        return f"{self.fingerprint[:20]}-{layer}-{self.precision}"

    @property
    def token_bytes(self) -> int:
        """Disk space of a token."""
        return 2 * self.hidden_size


class UnusableError(ValueError):
    """A shard is damaged or stale, with the reason."""


@dataclass(frozen=True)
class Shard:
    """The windows of a shard: their keys (W,) and starts (W + 1,); ``states`` opens their states."""

    folder: Path
    keys: np.ndarray
    starts: np.ndarray
    facts: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, identity: StoreIdentity | None = None) -> Shard:
        """Open a shard; checks its metadata and the sizes of its files, but not their content.

        Raises:
            UnusableError: it is stale or damaged.
            FileNotFoundError: it has been removed.
            OSError: it cannot be read, and may be valid.
        """
        facts = _facts(folder, identity)
        try:
            cut = [name for name in _FILES if (folder / name).stat().st_size != facts["bytes"][name]]
            keys, starts = (np.load(folder / name, allow_pickle=False) for name in (_KEYS, _STARTS))
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise _gone_or(folder, f"a file is missing or damaged ({error})") from error
        if cut:
            raise UnusableError(f"{cut[0]} does not have its original size")
        whole = (
            keys.dtype == f"S{KEY_BYTES}"
            and len(keys) == facts["windows"] == len(starts) - 1
            and starts[-1] == facts["tokens"]
            and (np.diff(starts) >= 0).all()
        )
        if not whole:
            raise UnusableError("its files do not match each other")
        return cls(folder, keys, starts, facts)

    def checked(self) -> Shard:
        """This shard, after verifying its checksums, unless this process has verified the same files before.

        Raises:
            UnusableError: a checksum is wrong.
            FileNotFoundError: the shard has been removed.
            OSError: it cannot be read.
        """
        for name, expected in self.facts["crc32"].items():
            path = self.folder / name
            try:
                facts = path.stat()
                known = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
                if _checked.get(path) == known:
                    continue
                found = _crc32(path)
            except FileNotFoundError as error:
                raise _gone_or(self.folder, f"{name} is missing") from error
            if found != expected:
                raise UnusableError(f"the checksum of {name} is wrong")
            _checked[path] = known
        return self

    def states(self) -> np.ndarray:
        """(tokens, H) float16, memory-mapped. Raises OSError."""
        states: np.ndarray = np.load(self.folder / _STATES, mmap_mode="r", allow_pickle=False)
        return states.view(np.ndarray)


@contextmanager
def new_shard(
    folder: Path, identity: StoreIdentity, *, keys: np.ndarray, lengths: np.ndarray, part: int
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a shard under a temporary name, and rename it at the end of the block; the caller has locked ``part``.

    The value is a function that appends states, (tokens, H) float16, window by window.

    Args:
        keys: of the windows, (W,).
        lengths: numbers of tokens of the windows, (W,).
        part: the locked part.

    Raises:
        OSError: the disk is full, or the folder is not writable or was removed; nothing is left.
    """
    tokens, crc = int(lengths.sum()), 0
    aside = folder / f".{part:02d}-{uuid.uuid4().hex}.partial"
    with new_dir(folder / f"shard-{uuid.uuid4().hex}", aside=aside):
        # Not a memory map: on a full disk that ends the process with a bus error instead of an exception.
        with (aside / _STATES).open("wb") as file:

            def append(content: Any) -> None:  # an array or bytes
                nonlocal crc
                crc = zlib.crc32(content, crc)
                file.write(content)

            header = io.BytesIO()
            shape = (tokens, identity.hidden_size)
            np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
            append(header.getvalue())
            yield append
        np.save(aside / _KEYS, keys)
        np.save(aside / _STARTS, np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
        facts = {"format": FORMAT, **asdict(identity), "tokens": tokens, "windows": len(keys)}
        facts["bytes"] = {name: (aside / name).stat().st_size for name in _FILES}
        facts["crc32"] = {_STATES: crc, **{name: _crc32(aside / name) for name in (_KEYS, _STARTS)}}
        write_json(aside / paths.SHARD_JSON, facts)


def shard_folders(store: Path) -> list[Path]:
    """The folders of a store's shards; none if there is no store."""
    try:
        return sorted(path for path in store.iterdir() if path.name.startswith("shard-"))
    except FileNotFoundError:
        return []


def stored_keys(store: Path) -> set[bytes]:
    """Keys of the windows in a store; removes nothing, not even damaged shards."""
    found: set[bytes] = set()
    for path in store.glob("shard-*/keys.npy"):
        with suppress(OSError, ValueError, EOFError):  # damaged or being removed: its windows will be encoded again
            found.update(np.load(path, allow_pickle=False).tolist())
    return found


def remove(folder: Path) -> None:
    """Remove a shard, atomically for other processes, whose memory maps remain valid."""
    aside = folder.with_name(f".00-{uuid.uuid4().hex}.partial")
    with suppress(OSError):
        folder.rename(aside)
    for place in (aside, folder):
        shutil.rmtree(place, ignore_errors=True)


def remove_leftovers(store: Path, part: int) -> None:
    """Remove partially written and partially removed shards of killed processes; the caller has locked the part."""
    for folder in store.glob(f".{part:02d}-*.partial"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(store: Path, parts: Sequence[int] = range(PARTS), *, wait: bool = True) -> Iterator[None]:
    """Lock parts of a store. Without ``wait``, raises filelock.Timeout if another process has locked one."""
    with ExitStack() as locks:
        for part in sorted(parts):  # in a fixed order, against deadlocks
            locks.enter_context(FileLock(store / f".lock-{part:02d}").acquire(blocking=wait))
        yield


def describe(store: Path, identity: StoreIdentity, *, encoder: str) -> None:
    """Record the content of a store and its last use, for `senthy cache`; failures are ignored."""
    note = store / paths.STORE_JSON
    with suppress(OSError):
        if not note.is_file():
            replace_json(note, {"encoder": encoder, **asdict(identity)})
    mark_used(note)


def _facts(folder: Path, identity: StoreIdentity | None) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / paths.SHARD_JSON).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise UnusableError(f"it has format {facts['format']}, and this version writes {FORMAT}")
        found = StoreIdentity(*(facts[name] for name in StoreIdentity.__dataclass_fields__))
        counts = [facts["tokens"], facts["windows"], *(facts[kind][name] for kind in _SUMS for name in _FILES)]
    except FileNotFoundError as error:
        raise _gone_or(folder, f"it has no {paths.SHARD_JSON}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise error if isinstance(error, UnusableError) else UnusableError(f"{paths.SHARD_JSON} is damaged") from error
    if not all(isinstance(count, int) for count in counts):
        raise UnusableError(f"{paths.SHARD_JSON} is damaged")
    if identity is not None and found != identity:
        raise UnusableError(f"it contains other states ({found.folder_name}, size {found.hidden_size})")
    return facts


def _gone_or(folder: Path, why: str) -> Exception:
    """The error of a missing file: the shard is damaged, or has been removed as a whole."""
    return UnusableError(why) if folder.is_dir() else FileNotFoundError(f"{folder} has been removed")


def _crc32(path: Path) -> int:
    # Not memory-mapped: a failing disk then raises an exception instead of ending the process.
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
