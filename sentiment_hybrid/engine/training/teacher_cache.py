"""A teacher's predictions on disk: a folder per teacher, with chunks that are complete or absent.

Imports no torch, because `senthy cache` uses it too.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sentiment_hybrid import paths
from sentiment_hybrid.files import atomic_dir, leftovers, mark_used, read_json, remove, sha256, write_json

log = logging.getLogger(__name__)

_KEY = "S16"
_CHECKSUMS = "sha256.json"


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """A 128-bit hash of each text, (N,) S16."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(digests, dtype=_KEY)


class TeacherCache:
    """Probabilities (C,) and pooled states (H,) of texts by their keys."""

    def __init__(self, folder: Path, num_classes: int) -> None:
        self.folder, self.num_classes = folder, num_classes

    def find(self, keys: np.ndarray, *, states: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities (N, C) float32, NaN for missing texts, and with ``states`` states (N, H) float16.

        With ``states``, texts stored without states count as missing; the states are None if all texts are missing.
        Keys must be distinct.
        """
        for leftover in leftovers(self.folder):
            remove(leftover)
        probabilities = np.full((len(keys), self.num_classes), np.nan, dtype=np.float32)
        pooled: np.ndarray | None = None
        for chunk_keys, answers, chunk_states in self._chunks():
            if states and chunk_states is None:
                continue
            _, here, there = np.intersect1d(keys, chunk_keys, return_indices=True)
            probabilities[here] = answers[there]
            if states and chunk_states is not None:
                if pooled is None:
                    pooled = np.zeros((len(keys), chunk_states.shape[1]), dtype=np.float16)
                pooled[here] = chunk_states[there]
        return probabilities, pooled

    def add(self, keys: np.ndarray, probabilities: np.ndarray, states: np.ndarray | None, *, teacher: str) -> None:
        """Store predictions as a new chunk. Raises OSError."""
        name = f"chunk-{uuid.uuid4().hex[:12]}"
        with atomic_dir(self.folder / name) as aside:
            for file, array in {"keys": keys, "probabilities": probabilities, "states": states}.items():
                if array is not None:
                    np.save(aside / f"{file}.npy", array, allow_pickle=False)
            write_json(aside / _CHECKSUMS, {file.name: sha256(file) for file in aside.glob("*.npy")})
        if not (note := self.folder / paths.TEACHER_JSON).is_file():
            write_json(note, {"teacher": teacher})

    def mark_used(self) -> None:
        """Record the time of use, by which `senthy cache clear` finds old entries."""
        mark_used(self.folder / paths.TEACHER_JSON)

    def _chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        for folder in sorted(self.folder.glob("chunk-*")):
            try:
                yield _read(folder, self.num_classes)
            except (FileNotFoundError, KeyError):
                continue  # the cache is being cleared
            except (OSError, ValueError, EOFError) as error:
                log.warning("%s is damaged and computed again: %s", folder, error)
                shutil.rmtree(folder, ignore_errors=True)


def count_texts(folder: Path) -> int:
    """The number of texts in a teacher's folder. Raises OSError or ValueError if a chunk is damaged."""
    return sum(len(np.load(file, mmap_mode="r", allow_pickle=False)) for file in folder.glob("chunk-*/keys.npy"))


def _read(folder: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if (folder / _CHECKSUMS).is_file():  # earlier versions wrote none
        for name, digest in read_json(folder / _CHECKSUMS).items():
            if sha256(folder / name) != digest:
                raise ValueError(f"the checksum of {name} is wrong")
    # Not read: an absurd size in a damaged header is an error then, and takes no memory.
    arrays = {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in folder.glob("*.npy")}
    keys, probabilities, states = arrays["keys"], arrays["probabilities"], arrays.get("states")
    if keys.dtype != _KEY or probabilities.shape != (len(keys), num_classes):
        raise ValueError("its files do not match each other")
    if not (np.abs(probabilities.sum(axis=1) - 1.0) < 1e-3).all() or (states is not None and len(states) != len(keys)):
        raise ValueError("it contains no probabilities")
    return keys, probabilities, states
