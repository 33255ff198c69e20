"""The files of the state store: shards of ragged float16 states, complete or absent, checked before they are used.

``states/<encoder>-<layer>-<precision>/shard-*/``. Who writes into a store holds the lock of a part of it; what is being
written, or about to be removed, has a name that begins with a dot. Imports no torch: `senthy cache` works on these too.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
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
#: That as many processes of a machine can fill at once; the key of a window says which one it belongs to.
PARTS = 16

_FILES = _STATES, _KEYS, _STARTS = "states.npy", "keys.npy", "starts.npy"
_SUMS = "bytes", "crc32"
_BLOCK = 2**20

#: Files that this process has found whole, as they were then: a second look costs nothing.
_checked: dict[Path, tuple[int, int, int]] = {}


@dataclass(frozen=True)
class Identity:
    """What the states of a store are: output of so many layers of an encoder, at one precision; no layer is the last.

    A shard of anything else is stale.
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
        """What a token takes on the disk."""
        return 2 * self.hidden_size


class UnusableError(ValueError):
    """A shard is damaged, or stale: of another format or of other states; says why."""


@dataclass(frozen=True)
class Shard:
    """The windows of a shard: their keys (W,) and starts (W + 1,); ``states`` opens what they are about."""

    folder: Path
    keys: np.ndarray
    starts: np.ndarray
    facts: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, identity: Identity | None = None) -> Shard:
        """A shard; its facts and the sizes of its files are checked, not what they hold.

        Raises:
            UnusableError: it is stale or damaged.
            FileNotFoundError: it has been removed.
            OSError: it cannot be looked at, and may be whole.
        """
        facts = _facts(folder, identity)
        try:
            cut = [name for name in _FILES if (folder / name).stat().st_size != facts["bytes"][name]]
            keys, starts = (np.load(folder / name, allow_pickle=False) for name in (_KEYS, _STARTS))
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise _gone_or(folder, f"a file is missing or damaged ({error})") from error
        if cut:
            raise UnusableError(f"{cut[0]} has another size than it was written with")
        whole = (
            keys.dtype == f"S{KEY_BYTES}"
            and len(keys) == facts["windows"] == len(starts) - 1
            and starts[-1] == facts["tokens"]
            and (np.diff(starts) >= 0).all()
        )
        if not whole:
            raise UnusableError("its files do not fit each other")
        return cls(folder, keys, starts, facts)

    def checked(self) -> Shard:
        """This shard, its content compared with its checksums, unless this process has done so with these very files.

        Raises:
            UnusableError: they differ.
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


def write(
    folder: Path,
    identity: Identity,
    blocks: Iterable[np.ndarray],
    *,
    keys: np.ndarray,
    lengths: np.ndarray,
    part: int,
) -> None:
    """Write a shard aside, flush it and put it in place; the caller holds the lock of ``part``.

    Args:
        folder: the store's.
        identity: what the states are of.
        blocks: the states, (tokens, H) float16 each, of one window after the other.
        keys: of the windows, (W,).
        lengths: tokens of the windows, (W,).
        part: what the lock is for.

    Raises:
        OSError: the disk is full, or the folder refuses or has been removed; nothing is left.
    """
    tokens = int(lengths.sum())
    aside = folder / f".{part:02d}-{uuid.uuid4().hex}.partial"
    with new_dir(folder / f"shard-{uuid.uuid4().hex}", aside=aside):
        crc = _write_states(aside / _STATES, blocks, (tokens, identity.hidden_size))
        np.save(aside / _KEYS, keys)
        np.save(aside / _STARTS, np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
        facts = {"format": FORMAT, **asdict(identity), "tokens": tokens, "windows": len(keys)}
        facts["bytes"] = {name: (aside / name).stat().st_size for name in _FILES}
        facts["crc32"] = {_STATES: crc, **{name: _crc32(aside / name) for name in (_KEYS, _STARTS)}}
        write_json(aside / paths.SHARD_JSON, facts)


def _write_states(path: Path, blocks: Iterable[np.ndarray], shape: tuple[int, int]) -> int:
    """The checksum of what was written."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
    contents = itertools.chain([header.getvalue()], (block.tobytes() for block in blocks))
    crc = 0
    # Written plainly: a memory map of a full disk ends the process with a bus error instead of telling.
    with path.open("wb") as file:
        for content in contents:
            crc = zlib.crc32(content, crc)
            file.write(content)
    return crc


def shard_folders(store: Path) -> list[Path]:
    """Where the shards of a store lie; there are none in a store that is not there."""
    try:
        return sorted(path for path in store.iterdir() if path.name.startswith("shard-"))
    except FileNotFoundError:
        return []


def remove(folder: Path) -> None:
    """Take a shard away: at once for other processes, whose memory maps live on."""
    aside = folder.with_name(f".00-{uuid.uuid4().hex}.partial")
    with suppress(OSError):
        folder.rename(aside)
    for place in (aside, folder):
        shutil.rmtree(place, ignore_errors=True)


def remove_leftovers(store: Path, part: int) -> None:
    """What killed processes left half-written or half-removed; the caller holds the part's lock."""
    for folder in store.glob(f".{part:02d}-*.partial"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(store: Path, parts: Sequence[int] = range(PARTS), *, wait: bool = True) -> Iterator[None]:
    """Hold the locks of parts of a store. Raises filelock.Timeout if another holds one, and not ``wait``."""
    with ExitStack() as locks:
        for part in sorted(parts):  # always in one order
            locks.enter_context(FileLock(store / f".lock-{part:02d}").acquire(blocking=wait))
        yield


def describe(store: Path, identity: Identity, *, encoder: str) -> None:
    """Note what a store holds, once, and when it was last used; only for people to read, so it may fail."""
    note = store / paths.STORE_JSON
    with suppress(OSError):
        if not note.is_file():
            replace_json(note, {"encoder": encoder, **asdict(identity)})
    mark_used(note)


def size_of(folder: Path) -> int:
    """Bytes of all files below; those that vanish meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total


def _facts(folder: Path, identity: Identity | None) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / paths.SHARD_JSON).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise UnusableError(f"it has format {facts['format']}, and this version writes {FORMAT}")
        found = Identity(*(facts[name] for name in Identity.__dataclass_fields__))
        counts = [facts["tokens"], facts["windows"], *(facts[kind][name] for kind in _SUMS for name in _FILES)]
    except FileNotFoundError as error:
        raise _gone_or(folder, f"it has no {paths.SHARD_JSON}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise error if isinstance(error, UnusableError) else UnusableError(f"{paths.SHARD_JSON} is damaged") from error
    if not all(isinstance(count, int) for count in counts):
        raise UnusableError(f"{paths.SHARD_JSON} is damaged")
    if identity is not None and found != identity:
        raise UnusableError(f"it holds other states ({found.folder_name}, {found.hidden_size} wide)")
    return facts


def _gone_or(folder: Path, why: str) -> Exception:
    """A shard without one of its files is damaged; one that is not there at all has been removed."""
    return UnusableError(why) if folder.is_dir() else FileNotFoundError(f"{folder} has been removed")


def _crc32(path: Path) -> int:
    # Read, not mapped: a failing disk then tells an error instead of ending the process.
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
