"""The state store: each distinct window passes the frozen layers of an encoder once, ever; its states stay on disk.

A store is a folder per (encoder fingerprint, layer, precision); inside it, shards of ragged float16 token states that
are complete or absent (``engine/shards``). The key of a window is a hash of its token ids, so the normaliser, the
tokenizer and the window length are part of it, and every head, trial and run shares the states. The key also puts a
window into one of a few parts; who fills a part holds its lock, so that processes share the work.
What cannot be kept is no failure: the states are then computed live, which is said once.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sentiment_hybrid.engine.batches import TokenizedTexts, pack, padded_ids
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.memory import in_batches
from sentiment_hybrid.engine.states import shards
from sentiment_hybrid.engine.states.shards import KEY_BYTES, PARTS, Identity, Shard, UnusableError
from sentiment_hybrid.files import reason
from sentiment_hybrid.models.encoder.module import Encoder

log = logging.getLogger(__name__)

_SHARD_BYTES = 256 * 2**20  # what kill -9 can cost
_MOST_SHARDS = 32  # of one fill: each shard that is open holds a file descriptor
_WINDOW_BYTES = KEY_BYTES + 8  # what a window takes beside its tokens
_LARGE = 10**9  # from here on, what storing will take is said before it starts
_SPARE = 256 * 2**20  # left free on the disk: checkpoints and results must still find room
_ATTEMPTS = 3  # at filling a store that is cleared or deleted meanwhile
_CHECKERS = 8  # threads that read checksums

#: Folders that cannot keep states, and shards that cannot be used: each is told once.
_told: set[Path] = set()


class StoredStates:
    """States of the windows of one TokenizedTexts, memory-mapped; ``gather`` reads a batch of them.

    Args:
        arrays: of each shard, (tokens, H) float16.
        shard: (W,) which array a window lies in.
        start: (W,) its first token there.
    """

    def __init__(self, arrays: Sequence[np.ndarray], shard: np.ndarray, start: np.ndarray) -> None:
        self.shard, self.start = shard, start
        self.hidden_size = arrays[0].shape[1]
        self._bytes = [array.data.cast("B") for array in arrays]
        with warnings.catch_warnings():  # that the maps cannot be written to: nobody does
            warnings.simplefilter("ignore", UserWarning)
            self._tensors = [torch.from_numpy(array) for array in arrays]

    def gather(self, windows: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        """States of these windows, padded with zeros: (W, T, H) float16, not to be written to.

        Windows of one length that lie side by side are a view of the file. Others are joined, each with its padding,
        in one pass over the memory: faster than fancy indexing, which copies token by token (benchmarks/states.py).
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


class _RefusedError(OSError):
    """States cannot be kept, for a reason of our own."""


class StateStore:
    """States below the trained layers of one encoder, at one precision.

    ``passes`` counts the windows that this object has encoded; ``refusal`` says why some could not be kept, if
    that has happened: of several calls the last that it happened to.

    Args:
        root: the folder of all stores.
        encoder: frozen, or with its last layers alone trained.
        fingerprint: of the encoder as it was loaded.
        compute: where and how to encode.
        name: what people call the encoder.
        max_gb: what all stores together may take; None is what the disk has.
        share: the number of this process among those of its machine that ask for the same states at the same time, and
            how many they are: each fills its own parts first, and then what the others have left.
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
        share: tuple[int, int] = (0, 1),
    ) -> None:
        layer = None if encoder.frozen else encoder.stored_layer
        self.identity = Identity(fingerprint, layer, compute.precision, encoder.hidden_size)
        self.root = root
        self.folder = root / self.identity.folder_name
        self.encoder = encoder
        self.compute = compute
        self.name = name
        self.max_bytes = None if max_gb is None else max_gb * 1e9
        self.share = share
        self.passes = 0
        self.refusal = ""

    def ensure(
        self,
        tokenized: TokenizedTexts,
        *,
        token_budget: int,
        progress: Callable[..., object] = lambda *windows, **total: None,
    ) -> StoredStates | None:
        """States of all windows: those missing are encoded and stored first.

        ``progress`` is called with the windows of each batch, and first with ``total``.

        None where they cannot be kept (no room, a folder that refuses): the reason is in ``refusal``, and logged once
        per folder. What was complete stays for the next time.
        """
        why = ""
        keys = window_keys(tokenized)
        for _ in range(_ATTEMPTS):
            try:
                self._fill_missing(tokenized, keys, token_budget, progress)
                stored = _locate(keys, self._read_shards(keys))
            except FileNotFoundError as error:  # as where nothing is found: somebody has cleared it meanwhile
                stored, why = None, reason(error)
            # NotImplementedError: a file system without locks.
            except (OSError, NotImplementedError) as error:
                why = reason(error) or type(error).__name__
                break
            if stored is not None:
                shards.describe(self.folder, self.identity, encoder=self.name)
                return stored
        self._refuse(why or "it is cleared again and again")
        return None

    def _bytes(self, tokenized: TokenizedTexts, windows: np.ndarray) -> int:
        """What the states of these windows take on the disk."""
        tokens = int(tokenized.window_lengths[windows].sum())
        return tokens * self.identity.token_bytes + len(windows) * _WINDOW_BYTES

    def _refuse(self, why: str) -> None:
        self.refusal = f"token states cannot be kept in {self.folder}: {why}"
        level = logging.DEBUG if self.root in _told else logging.WARNING
        _told.add(self.root)
        log.log(
            level,
            "%s; the encoder runs live instead, in every epoch. `senthy cache` shows and clears what is kept, "
            "cache.max_gb is the most that it may take, and paths.cache_dir is where it lies",
            self.refusal,
        )

    # --- filling

    def _fill_missing(
        self, tokenized: TokenizedTexts, keys: np.ndarray, token_budget: int, progress: Callable[..., object]
    ) -> None:
        missing = _missing(keys, self._read_shards(keys))
        if len(missing) == 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = self._bytes(tokenized, missing)
        self._check_room(needed)
        progress(0, total=len(missing))
        if needed >= _LARGE:
            log.info("storing token states of %s windows, %.1f GB, in %s", f"{len(missing):,}", needed / 1e9, self.root)
        for parts in self._turns():
            of_parts = missing[np.isin(_part_of(keys[missing]), parts)]
            if len(of_parts):
                self._fill(tokenized, keys, of_parts, parts, token_budget, progress)

    def _turns(self) -> list[list[int]]:
        """Parts to fill together: this process's own, and then those of each other one, if it has left any."""
        number, processes = self.share
        return [list(range((number + turn) % processes, PARTS, processes)) for turn in range(processes)]

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
        # One process at a time: what another has stored meanwhile is not computed again.
        with shards.locked(self.folder, parts):
            for part in parts:
                shards.remove_leftovers(self.folder, part)
            missing = missing[_missing(keys[missing], self._read_shards(keys[missing]))]
            self.encoder.eval()
            # Sorted by length, a batch has almost no padding; a shard is a run of batches.
            tokens = int(lengths[missing].sum())
            most = max(_SHARD_BYTES // self.identity.token_bytes, tokens // _MOST_SHARDS)
            with self.compute.layout(self.encoder, tokens=tokens):
                for batches in _runs_of(pack(lengths, missing, token_budget), lengths, most):
                    windows = np.concatenate(batches)
                    self._check_room(self._bytes(tokenized, windows))
                    shards.write(
                        self.folder,
                        self.identity,
                        self._encoded(tokenized, batches, token_budget, progress),
                        keys=keys[windows],
                        lengths=lengths[windows],
                        part=min(parts),
                    )

    def _encoded(
        self,
        tokenized: TokenizedTexts,
        batches: list[np.ndarray],
        token_budget: int,
        progress: Callable[..., object],
    ) -> Iterator[np.ndarray]:
        for batch, states in in_batches(
            batches,
            tokenized.window_lengths,
            lambda windows: self._encode(tokenized, windows),
            token_budget=token_budget,
            device=self.compute.device,
        ):
            yield states
            progress(len(batch))

    def _encode(self, tokenized: TokenizedTexts, windows: np.ndarray) -> np.ndarray:
        """Real tokens' states of a batch of windows, one after the other: (tokens, H) float16."""
        lengths = tokenized.window_lengths[windows]
        mask = np.arange(int(lengths.max()))[None, :] < lengths[:, None]
        device = self.compute.device
        on_device = torch.from_numpy(mask).to(device)
        ids = torch.from_numpy(padded_ids(tokenized, windows, mask)).to(device)
        with torch.no_grad(), self.compute.autocast():
            states = self.encoder.below(ids, on_device)  # (W, T, H)
        half = states[on_device].to(torch.float16)
        if not torch.isfinite(half).all():
            raise _RefusedError("they are beyond what half precision can hold")
        array: np.ndarray = half.cpu().numpy()
        self.passes += len(windows)
        return array

    def _check_room(self, needed: int) -> None:
        """Raises OSError where so many bytes more are beyond the budget or the disk."""
        if self.max_bytes is not None:
            used = shards.size_of(self.root)
            if used + needed > self.max_bytes:
                taken = f"{used / 1e9:.3g} GB of the {self.max_bytes / 1e9:g} GB of cache.max_gb are taken"
                raise _RefusedError(f"they need {needed / 1e9:.3g} GB, and {taken}")
        free = shutil.disk_usage(self.folder).free
        if needed + _SPARE > free:
            raise _RefusedError(f"they need {needed / 1e9:.3g} GB, and the disk has {free / 1e9:.3g} GB free")

    # --- reading

    def _read_shards(self, keys: np.ndarray) -> list[Shard]:
        """Whole shards with any of these windows; what is damaged or stale is told, removed, and so missing."""
        found = []
        for folder in shards.shard_folders(self.folder):
            if (shard := self._usable(folder, partial(Shard.read, folder, self.identity))) is not None:
                found.append(shard)
        needed = [shard for shard in found if np.isin(_half(shard.keys), _half(keys)).any()]
        with ThreadPoolExecutor(_CHECKERS) as pool:
            checked = list(pool.map(lambda shard: self._usable(shard.folder, shard.checked), needed))
        return [shard for shard in checked if shard is not None]

    def _usable(self, folder: Path, look: Callable[[], Shard]) -> Shard | None:
        """The shard that ``look`` gives. Raises OSError when it cannot be looked at: it may be whole."""
        try:
            return look()
        except FileNotFoundError:
            return None  # removed meanwhile by whoever cleared the cache
        except UnusableError as error:
            # Of several processes the first one alone: it is the one whose log is read.
            if self.share[0] == 0 and folder not in _told:
                log.warning("%s is not used but computed again: %s", folder, error)
                _told.add(folder)  # where it may not be removed, it is met again
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


def stored_keys(folder: Path) -> set[bytes]:
    """Keys of the windows in a store's folder; a look alone: not even a damaged shard is removed."""
    found: set[bytes] = set()
    for path in folder.glob("shard-*/keys.npy"):
        with suppress(OSError, ValueError, EOFError):  # damaged, or just cleared: its windows will be encoded again
            found.update(np.load(path, allow_pickle=False).tolist())
    return found


def _half(keys: np.ndarray) -> np.ndarray:
    """Half of each key, (W,) uint64: quick to sort, and enough to find a window; ``_locate`` compares the whole."""
    halves: np.ndarray = np.ascontiguousarray(keys).view(np.uint64)[::2]
    return halves


def _part_of(keys: np.ndarray) -> np.ndarray:
    """The part that each window belongs to."""
    first = keys.view(np.uint8).reshape(-1, KEY_BYTES)[:, 0] if len(keys) else np.empty(0, dtype=np.uint8)
    return first % PARTS


def _missing(keys: np.ndarray, found: list[Shard]) -> np.ndarray:
    """The first window of each key that no shard has, in the order of the windows.

    In that order they come to lie on the disk, and whoever reads the texts in order, as testing does, reads whole runs.
    """
    distinct, example = np.unique(keys, return_index=True)
    known = np.concatenate([shard.keys for shard in found]) if found else distinct[:0]
    return np.sort(example[~np.isin(_half(distinct), _half(known))])


def _runs_of(batches: list[np.ndarray], lengths: np.ndarray, most: int) -> Iterator[list[np.ndarray]]:
    """Runs of batches of about ``most`` tokens."""
    run: list[np.ndarray] = []
    tokens = 0
    for batch in batches:
        run.append(batch)
        tokens += int(lengths[batch].sum())
        if tokens >= most:
            yield run
            run, tokens = [], 0
    if run:
        yield run


def _locate(keys: np.ndarray, found: list[Shard]) -> StoredStates | None:
    """Where the windows lie; None where a shard has gone."""
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
