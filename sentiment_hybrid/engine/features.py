"""The state store: each distinct window of a frozen encoder is computed once, ever, and kept on disk.

A store is a folder per (encoder fingerprint, layer, precision); inside it, shards of ragged float16 token states that
are complete or absent (written aside, flushed, renamed). The key of a window is a hash of its token ids, so the
normaliser, the tokenizer and the window length are part of it, and every head, trial and run shares the states.
The key also puts a window into one of a few parts; who fills a part holds its lock, so that processes share the work.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from sentiment_hybrid.engine.batches import TokenizedTexts, pack, padded_ids
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.files import flush_to_disk, reason
from sentiment_hybrid.models.encoder import Encoder

_SHARD_BYTES = 256 * 2**20  # what kill -9 can cost
_MOST_SHARDS = 32  # of one fill: each shard that is open holds a file descriptor
_FORMAT = 1
_KEY_BYTES = 16
_PARTS = 16  # that as many processes of a machine can fill at once


@dataclass(frozen=True)
class StoredStates:
    """States of the windows of one TokenizedTexts, memory-mapped; ``gather`` reads a batch of them."""

    arrays: tuple[np.ndarray, ...]  # per shard (tokens, H) float16
    shard: np.ndarray  # (W,) which array a window lies in
    start: np.ndarray  # (W,) its first token there

    def gather(self, windows: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        """States of these windows, padded with zeros: (W, T, H) float16."""
        hidden = self.arrays[0].shape[1]
        out = np.zeros((len(windows), int(lengths.max()), hidden), dtype=np.float16)
        for place, (shard, start, length) in enumerate(
            zip(self.shard[windows], self.start[windows], lengths, strict=True)
        ):
            out[place, :length] = self.arrays[shard][start : start + length]
        return torch.from_numpy(out)


class StateStore:
    """States of one frozen encoder at one precision; ``passes`` counts the windows that this object has encoded.

    ``share`` is the number of this process among those of its machine that ask for the same states at the same time,
    and how many they are: each fills its own parts first, and then what the others have left.
    """

    def __init__(
        self, root: Path, encoder: Encoder, *, fingerprint: str, compute: Compute, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.folder = root / f"{fingerprint[:20]}-last-{compute.precision}"
        self.encoder = encoder
        self.hidden_size = encoder.hidden_size
        self.compute = compute
        self.share = share
        self.passes = 0

    def ensure(
        self,
        tokenized: TokenizedTexts,
        *,
        token_budget: int,
        progress: Callable[[int], object] = lambda windows: None,
    ) -> StoredStates:
        """States of all windows: those missing are encoded and stored first; ``progress`` hears of each batch.

        Raises:
            OutputError: the folder cannot be written, or the disk has no room for the missing states.
        """
        keys = _window_keys(tokenized)
        distinct, example = np.unique(keys, return_index=True)
        with _told(self.folder):
            shards = self._read_shards()
            missing = example[_missing(distinct, shards)]
            if len(missing):
                self._check_room(int(tokenized.window_lengths[missing].sum()) * self.hidden_size * 2)
                self.folder.mkdir(parents=True, exist_ok=True)
                for parts in self._turns():
                    of_parts = missing[np.isin(_part_of(keys[missing]), parts)]
                    if len(of_parts):
                        self._fill(tokenized, keys, of_parts, parts, token_budget, progress)
                shards = self._read_shards()
        return _locate(keys, shards)

    def _turns(self) -> list[list[int]]:
        """Parts to fill together: this process's own, and then those of each other one, if it has left any."""
        number, processes = self.share
        return [list(range((number + turn) % processes, _PARTS, processes)) for turn in range(processes)]

    def _fill(
        self,
        tokenized: TokenizedTexts,
        keys: np.ndarray,
        missing: np.ndarray,
        parts: Sequence[int],
        token_budget: int,
        progress: Callable[[int], object],
    ) -> None:
        lengths = tokenized.window_lengths
        with ExitStack() as locks:
            # One process at a time: what another has stored meanwhile is not computed again. Always in one order.
            for part in sorted(parts):
                locks.enter_context(FileLock(self.folder / f".lock-{part:02d}"))
                self._remove_leftovers(part)
            missing = missing[_missing(keys[missing], self._read_shards())]
            if len(missing) == 0:
                return
            self.encoder.eval()
            # Sorted by length, a batch has almost no padding; a shard is a run of batches.
            tokens = int(lengths[missing].sum())
            most = max(_SHARD_BYTES // (2 * self.hidden_size), tokens // _MOST_SHARDS)
            for windows in _shards_of(pack(lengths, missing, token_budget), lengths, most):
                self._write_shard(tokenized, keys, windows, progress, aside_name=f".{min(parts):02d}-")

    def _write_shard(
        self,
        tokenized: TokenizedTexts,
        keys: np.ndarray,
        batches: list[np.ndarray],
        progress: Callable[[int], object],
        *,
        aside_name: str,
    ) -> None:
        windows = np.concatenate(batches)
        lengths = tokenized.window_lengths
        total = int(lengths[windows].sum())
        aside = self.folder / f"{aside_name}{uuid.uuid4().hex}.partial"
        aside.mkdir(parents=True)
        try:
            # Written plainly: a memory map of a full disk ends the process with a bus error instead of telling.
            with (aside / "states.npy").open("wb") as file:
                header = {"descr": "<f2", "fortran_order": False, "shape": (total, self.hidden_size)}
                np.lib.format.write_array_header_1_0(file, header)
                for batch in batches:
                    file.write(self._encode(tokenized, batch).tobytes())
                    progress(len(batch))
            np.save(aside / "keys.npy", keys[windows])
            np.save(aside / "starts.npy", np.concatenate(([0], np.cumsum(lengths[windows]))).astype(np.int64))
            (aside / "shard.json").write_text(
                json.dumps({"format": _FORMAT, "tokens": total, "windows": len(windows)}), encoding="utf-8"
            )
            flush_to_disk(aside)
            aside.rename(self.folder / f"shard-{uuid.uuid4().hex}")
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    def _encode(self, tokenized: TokenizedTexts, windows: np.ndarray) -> np.ndarray:
        """Real tokens' states of a batch of windows, one after the other: (tokens, H) float16."""
        lengths = tokenized.window_lengths[windows]
        mask = np.arange(int(lengths.max()))[None, :] < lengths[:, None]
        device = self.compute.device
        on_device = torch.from_numpy(mask).to(device)
        ids = torch.from_numpy(padded_ids(tokenized, windows, mask)).to(device)
        with torch.no_grad(), self.compute.autocast():
            states = self.encoder(input_ids=ids, attention_mask=on_device)
        self.passes += len(windows)
        array: np.ndarray = states[on_device].to(torch.float16).cpu().numpy()
        return array

    def _read_shards(self) -> list[_Shard]:
        if not self.folder.is_dir():
            return []
        shards = []
        for folder in sorted(self.folder.glob("shard-*")):
            shard = _Shard.read(folder, self.hidden_size)
            if shard is None:  # damaged: never used; its windows count as missing and are computed again
                shutil.rmtree(folder, ignore_errors=True)
            else:
                shards.append(shard)
        return shards

    def _remove_leftovers(self, part: int) -> None:
        """What killed processes left half-written; the caller holds the part's lock, so nobody is writing there."""
        for folder in self.folder.glob(f".{part:02d}-*.partial"):
            shutil.rmtree(folder, ignore_errors=True)

    def _check_room(self, needed: int) -> None:
        parent = self.folder
        while not parent.exists():
            parent = parent.parent
        free = shutil.disk_usage(parent).free
        if needed > free:
            raise OutputError(
                f"the token states of this data need {needed / 1e9:.1f} GB and {self.folder.parent} has "
                f"{free / 1e9:.1f} GB free",
                hint="Lower train.sample_size, train.valid_sample_size or test.sample_size, or set paths.cache_dir "
                "to a larger disk.",
            )


@dataclass(frozen=True)
class _Shard:
    states: np.ndarray
    keys: np.ndarray
    starts: np.ndarray

    @classmethod
    def read(cls, folder: Path, hidden_size: int) -> _Shard | None:
        """The shard, or None when it is not whole. Raises OSError when it cannot be looked at: it may be whole."""
        try:
            facts = json.loads((folder / "shard.json").read_text(encoding="utf-8"))
            shard = cls(
                np.load(folder / "states.npy", mmap_mode="r", allow_pickle=False),
                np.load(folder / "keys.npy", allow_pickle=False),
                np.load(folder / "starts.npy", allow_pickle=False),
            )
        except (FileNotFoundError, ValueError, EOFError):
            return None
        whole = (
            facts.get("format") == _FORMAT
            and shard.states.shape == (facts["tokens"], hidden_size)
            and len(shard.keys) == facts["windows"] == len(shard.starts) - 1
            and shard.starts[-1] == facts["tokens"]
        )
        return shard if whole else None


def _window_keys(tokenized: TokenizedTexts) -> np.ndarray:
    """A 128-bit hash of each window's token ids, (W,) S16."""
    ids = tokenized.ids.tobytes()
    bounds = (tokenized.window_offsets * tokenized.ids.itemsize).tolist()
    digests = b"".join(
        hashlib.blake2b(ids[start:end], digest_size=_KEY_BYTES).digest() for start, end in itertools.pairwise(bounds)
    )
    return np.frombuffer(digests, dtype=f"S{_KEY_BYTES}")


def _part_of(keys: np.ndarray) -> np.ndarray:
    """The part that each window belongs to."""
    first = keys.view(np.uint8).reshape(-1, _KEY_BYTES)[:, 0] if len(keys) else np.empty(0, dtype=np.uint8)
    return first % _PARTS


def _missing(distinct: np.ndarray, shards: list[_Shard]) -> np.ndarray:
    """Places in ``distinct`` of the windows that no shard has."""
    known = np.concatenate([s.keys for s in shards]) if shards else distinct[:0]
    return np.flatnonzero(~np.isin(distinct, known))


def _shards_of(batches: list[np.ndarray], lengths: np.ndarray, most: int) -> Iterator[list[np.ndarray]]:
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


def _locate(keys: np.ndarray, shards: list[_Shard]) -> StoredStates:
    all_keys = np.concatenate([s.keys for s in shards])
    shard_of = np.repeat(np.arange(len(shards)), [len(s.keys) for s in shards])
    starts = np.concatenate([s.starts[:-1] for s in shards])
    order = np.argsort(all_keys, kind="stable")
    places = order[np.searchsorted(all_keys, keys, sorter=order).clip(max=len(order) - 1)]
    if not np.array_equal(all_keys[places], keys):
        raise OutputError("the store of token states lost windows while it was read", hint="Run the command again.")
    return StoredStates(tuple(s.states for s in shards), shard_of[places], starts[places])


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Tells a failed read or write in the user's words."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot keep token states in {folder}: {reason(error)}",
            hint="Set paths.cache_dir to a writable folder with room, or lower the sample sizes.",
        ) from error
