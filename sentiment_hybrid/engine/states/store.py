"""The state store: the token states that an encoder's frozen layers give for each distinct window, computed once.

A store is a folder per (encoder fingerprint, layer, precision) with shards of ragged float16 token states, each of them
complete or absent (``shards.py``). The key of a window is a hash of its token ids, so it covers the normaliser, the
tokenizer and the window length, and all heads, trials and runs share the states. The key also assigns each window to
one of a few parts; a process locks a part while it fills it, so that several processes share the work.
If states cannot be stored, they are computed live in every epoch, with one warning.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sentiment_hybrid.engine.batches import TokenizedTexts, make_batches, padded
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.memory import in_batches
from sentiment_hybrid.engine.states import shards
from sentiment_hybrid.engine.states.shards import KEY_BYTES, PARTS, Shard, StoreIdentity, UnusableError
from sentiment_hybrid.files import reason, size_of
from sentiment_hybrid.models.encoder.module import Encoder

log = logging.getLogger(__name__)

_SHARD_BYTES = 256 * 2**20  # the most that kill -9 can cost
_MOST_SHARDS = 32  # written by one call, since each open shard holds a file descriptor
_WINDOW_BYTES = KEY_BYTES + 8  # disk space of a window besides its tokens
_LARGE = 10**9  # bytes; more are announced before encoding starts
_SPARE = 256 * 2**20  # bytes left free on the disk for checkpoints and results
_ATTEMPTS = 3  # to fill a store that is being cleared at the same time
_CHECKERS = 8  # threads that verify checksums

#: Folders that cannot store states, and unusable shards; each is logged once.
_logged: set[Path] = set()


class StoredStates:
    """States of the windows of a TokenizedTexts, memory-mapped; ``gather`` reads a batch of them.

    Args:
        arrays: the states of each shard, (tokens, H) float16.
        shard: (W,) index of the array of each window.
        start: (W,) index of its first token in that array.
    """

    def __init__(self, arrays: Sequence[np.ndarray], shard: np.ndarray, start: np.ndarray) -> None:
        self.shard, self.start = shard, start
        self.hidden_size = arrays[0].shape[1]
        self._bytes = [array.data.cast("B") for array in arrays]
        with warnings.catch_warnings():  # about read-only memory; nothing writes to it
            warnings.simplefilter("ignore", UserWarning)
            self._tensors = [torch.from_numpy(array) for array in arrays]

    def gather(self, windows: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        """States of these windows, padded with zeros: (W, T, H) float16, read-only.

        Adjacent windows of one length are returned as a view of the file. Others are joined with their padding in one
        pass over memory, which is faster than fancy indexing (benchmarks/states.py).
        """
        shard, start, longest = self.shard[windows], self.start[windows], int(lengths.max())
        shape = (len(windows), longest, self.hidden_size)
        first = int(shard[0])
        if lengths.min() == longest and (np.diff(start) == longest).all() and (shard == first).all():
            return self._tensors[first][int(start[0]) :][: shape[0] * longest].view(shape)
        row = 2 * self.hidden_size
        begins, ends, padding = (start * row).tolist(), ((start + lengths) * row).tolist(), (longest - lengths) * row
        zeros = memoryview(bytes(int(padding.max())))
        pieces: list[memoryview] = []
        for number, begin, end, pad in zip(shard.tolist(), begins, ends, padding.tolist(), strict=True):
            pieces += (self._bytes[number][begin:end], zeros[:pad])
        return torch.frombuffer(bytearray().join(pieces), dtype=torch.float16).view(shape)


class _CannotStoreError(OSError):
    """States cannot be stored for a reason other than an error of the system."""


class StateStore:
    """States below the trained layers of one encoder, at one precision.

    ``passes`` counts the windows that this object has encoded; ``refusal`` is the reason if states could not be stored.

    Args:
        root: the folder of all stores.
        encoder: frozen, or with only its last layers trained.
        fingerprint: of the encoder as loaded.
        max_gb: limit on the size of all stores together; None for no limit but the disk.
        process: (rank, number) of the processes of this machine that need the same states: each first fills its own
            parts, and then what the others have left.
    """

    def __init__(
        self,
        root: Path,
        encoder: Encoder,
        *,
        fingerprint: str,
        compute: Compute,
        name: str = "",
        max_gb: float | None = None,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        layer = None if encoder.frozen else encoder.stored_layer
        self.identity = StoreIdentity(fingerprint, layer, compute.precision, encoder.hidden_size)
        self.root, self.folder = root, root / self.identity.folder_name
        self.encoder, self.compute, self.name, self.process = encoder, compute, name, process
        self.max_bytes = None if max_gb is None else max_gb * 1e9
        self.passes, self.refusal = 0, ""

    def ensure(
        self,
        tokenized: TokenizedTexts,
        *,
        token_budget: int,
        progress: Callable[..., object] = lambda *windows, **total: None,
    ) -> StoredStates | None:
        """States of all windows; missing ones are encoded and stored first.

        ``progress`` is called first with ``total``, then with the windows of each batch. None if they cannot be stored;
        the reason is in ``refusal``, and logged once per folder. Shards that were completed remain for the next time.
        """
        why = ""
        keys = window_keys(tokenized)
        for _ in range(_ATTEMPTS):
            try:
                missing = _missing(keys, self._read_shards(keys))
                if len(missing):
                    self._prepare_folder(self._bytes(tokenized, missing), len(missing))
                    progress(0, total=len(missing))
                number, processes = self.process
                for turn in range(processes):  # this process's own parts first, then those of each other process
                    parts = range((number + turn) % processes, PARTS, processes)
                    own = missing[np.isin(_part_of(keys[missing]), parts)]
                    if len(own):
                        self._fill(tokenized, keys, own, parts, token_budget, progress)
                stored = _locate(keys, self._read_shards(keys))
            except FileNotFoundError as error:  # the cache is being cleared
                stored, why = None, reason(error)
            # NotImplementedError: a file system without locks.
            except (OSError, NotImplementedError) as error:
                why = reason(error) or type(error).__name__
                break
            if stored is not None:
                shards.describe(self.folder, self.identity, encoder=self.name)
                return stored
        self._refuse(why or "it is cleared repeatedly")
        return None

    def _bytes(self, tokenized: TokenizedTexts, windows: np.ndarray) -> int:
        tokens = int(tokenized.lengths_of(windows).sum())
        return tokens * self.identity.token_bytes + len(windows) * _WINDOW_BYTES

    def _refuse(self, why: str) -> None:
        self.refusal = f"token states cannot be kept in {self.folder}: {why}"
        level = logging.DEBUG if self.root in _logged else logging.WARNING
        _logged.add(self.root)
        log.log(
            level,
            "%s; the encoder runs in every epoch instead. `senthy cache` shows and clears the cache, cache.max_gb "
            "limits its size, and paths.cache_dir is its folder",
            self.refusal,
        )

    # --- filling

    def _prepare_folder(self, needed: int, windows: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_room(needed)
        if needed >= _LARGE:
            log.info("storing token states of %s windows, %.1f GB, in %s", f"{windows:,}", needed / 1e9, self.root)

    def _fill(
        self,
        tokenized: TokenizedTexts,
        keys: np.ndarray,
        missing: np.ndarray,
        parts: Sequence[int],
        token_budget: int,
        progress: Callable[..., object],
    ) -> None:
        lengths = tokenized.window_lengths
        with shards.locked(self.folder, parts):
            for part in parts:
                shards.remove_leftovers(self.folder, part)
            # Another process may have stored some of them while this one waited for the lock.
            missing = missing[_missing(keys[missing], self._read_shards(keys[missing]))]
            self.encoder.eval()
            tokens = int(lengths[missing].sum())
            most = max(_SHARD_BYTES // self.identity.token_bytes, tokens // _MOST_SHARDS)
            with self.compute.layout(self.encoder, tokens=tokens):
                # Sorted by length, a batch has almost no padding; a shard is a run of batches.
                for batches in _runs_of(make_batches(lengths, missing, token_budget), lengths, most):
                    windows = np.concatenate(batches)
                    self._check_room(self._bytes(tokenized, windows))
                    with shards.new_shard(
                        self.folder, self.identity, keys=keys[windows], lengths=lengths[windows], part=min(parts)
                    ) as append:
                        for batch, states in in_batches(
                            batches,
                            lengths,
                            lambda some: self._encode(tokenized, some),
                            token_budget=token_budget,
                            device=self.compute.device,
                        ):
                            append(states)
                            progress(len(batch))

    def _encode(self, tokenized: TokenizedTexts, windows: np.ndarray) -> np.ndarray:
        """States of the real tokens of some windows, concatenated: (tokens, H) float16."""
        ids, mask = (torch.from_numpy(array).to(self.compute.device) for array in padded(tokenized, windows))
        with torch.no_grad(), self.compute.autocast():
            states = self.encoder.below(ids, mask)  # (W, T, H)
        half = states[mask].to(torch.float16)
        if not torch.isfinite(half).all():
            raise _CannotStoreError("they exceed the range of half precision")
        array: np.ndarray = half.cpu().numpy()
        self.passes += len(windows)
        return array

    def _check_room(self, needed: int) -> None:
        """Raise OSError if this number of bytes would exceed cache.max_gb or the free space of the disk."""
        if self.max_bytes is not None:
            used = size_of(self.root)
            if used + needed > self.max_bytes:
                taken = f"{used / 1e9:.3g} GB of the {self.max_bytes / 1e9:g} GB of cache.max_gb are taken"
                raise _CannotStoreError(f"they need {needed / 1e9:.3g} GB, and {taken}")
        free = shutil.disk_usage(self.folder).free
        if needed + _SPARE > free:
            raise _CannotStoreError(f"they need {needed / 1e9:.3g} GB, and the disk has {free / 1e9:.3g} GB free")

    # --- reading

    def _read_shards(self, keys: np.ndarray) -> list[Shard]:
        """Valid shards with any of these windows; damaged and stale ones are logged and removed."""
        found = []
        for folder in shards.shard_folders(self.folder):
            if (shard := self._usable(folder, partial(Shard.read, folder, self.identity))) is not None:
                found.append(shard)
        needed = [shard for shard in found if np.isin(_half(shard.keys), _half(keys)).any()]
        with ThreadPoolExecutor(_CHECKERS) as pool:
            checked = list(pool.map(lambda shard: self._usable(shard.folder, shard.checked), needed))
        return [shard for shard in checked if shard is not None]

    def _usable(self, folder: Path, look: Callable[[], Shard]) -> Shard | None:
        """The result of ``look``, or None for an unusable shard. Raises OSError if it cannot be read."""
        try:
            return look()
        except FileNotFoundError:
            return None  # the cache is being cleared
        except UnusableError as error:
            # Of several processes, only the first one, whose log is shown.
            if self.process[0] == 0 and folder not in _logged:
                log.warning("%s is not used but computed again: %s", folder, error)
                _logged.add(folder)  # it is found again if it cannot be removed
                shards.remove(folder)
            return None


def window_keys(tokenized: TokenizedTexts) -> np.ndarray:
    """A 128-bit hash of each window's token ids, (W,) S16."""
    ids = tokenized.ids.tobytes()
    bounds = (tokenized.window_offsets * tokenized.ids.itemsize).tolist()
    digests = b"".join(
        hashlib.blake2b(ids[start:end], digest_size=KEY_BYTES).digest() for start, end in itertools.pairwise(bounds)
    )
    return np.frombuffer(digests, dtype=f"S{KEY_BYTES}")


def _half(keys: np.ndarray) -> np.ndarray:
    """Half of each key, (W,) uint64: fast to sort, and enough to find a window; ``_locate`` compares whole keys."""
    halves: np.ndarray = np.ascontiguousarray(keys).view(np.uint64)[::2]
    return halves


def _part_of(keys: np.ndarray) -> np.ndarray:
    first = keys.view(np.uint8).reshape(-1, KEY_BYTES)[:, 0] if len(keys) else np.empty(0, dtype=np.uint8)
    return first % PARTS


def _missing(keys: np.ndarray, found: list[Shard]) -> np.ndarray:
    """The first window of each key that is in no shard, in the order of the windows.

    They are stored in this order, so that reading the texts in order, as testing does, reads contiguous runs.
    """
    distinct, example = np.unique(keys, return_index=True)
    known = np.concatenate([shard.keys for shard in found]) if found else distinct[:0]
    return np.sort(example[~np.isin(_half(distinct), _half(known))])


def _runs_of(batches: list[np.ndarray], lengths: np.ndarray, most: int) -> Iterator[list[np.ndarray]]:
    """Runs of batches of about ``most`` tokens."""
    ends = np.cumsum([lengths[batch].sum() for batch in batches])
    for _, run in itertools.groupby(zip(batches, (ends - 1) // max(1, most), strict=True), key=lambda item: item[1]):
        yield [batch for batch, _ in run]


def _locate(keys: np.ndarray, found: list[Shard]) -> StoredStates | None:
    """The stored states of the windows; None if a shard has been removed."""
    if not found:
        return None
    all_keys = np.concatenate([shard.keys for shard in found])
    order = np.argsort(_half(all_keys), kind="stable")
    places = order[np.searchsorted(_half(all_keys), _half(keys), sorter=order).clip(max=len(order) - 1)]
    if not np.array_equal(all_keys[places], keys):
        return None
    try:
        arrays = [shard.states() for shard in found]
    except FileNotFoundError:
        return None
    shard_of = np.repeat(np.arange(len(found)), [len(shard.keys) for shard in found])
    starts = np.concatenate([shard.starts[:-1] for shard in found])
    return StoredStates(arrays, shard_of[places], starts[places])
