"""Reading batches of stored states: ours beside a loop over windows, fancy indexing, and torch's index_select.

Run it with `python benchmarks/states.py [--rows N] [--hidden H] [--shards S] [--turns N] [--json]`. Random states of
windows as long as tweets are written as `senthy` writes them. Batches of 64 windows are then read in training's order
(length-bucketed, shuffled) and in testing's (sorted by length); the ways take turns, and medians are compared. The
limit is a plain copy of as many bytes of the same files in a row. Checksums are timed as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sentiment_hybrid.engine.batches import TokenizedTexts, make_batches, plan_epoch
from sentiment_hybrid.engine.states import shards
from sentiment_hybrid.engine.states.store import StoredStates, _locate, window_keys
from sentiment_hybrid.files import size_of

Read = Callable[[np.ndarray, np.ndarray], torch.Tensor]
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as many readers as processes; and index_select waits for threads that others hold
    with tempfile.TemporaryDirectory() as folder:
        facts = measure(Path(folder), options)
    print(json.dumps(facts, indent=2) if options.json else table(facts))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    random = np.random.default_rng(0)
    tokenized = texts(options.rows, random)
    lengths = tokenized.window_lengths
    stored, arrays, seconds = store(folder, tokenized, options, random)
    ways: dict[str, Read] = {"ours": stored.gather, **rivals(stored, arrays)}
    plan = plan_epoch(lengths, rows_per_step=BATCH, token_budget=10**9, seed=0, epoch=1)
    orders = {
        "training": [batch for _, batches in plan for batch in batches],
        "testing": make_batches(lengths, np.arange(options.rows), BATCH * int(lengths.mean())),
    }
    facts: dict[str, object] = {"checksums_gb_per_s": round(size_of(folder) / 1e9 / seconds, 2)}
    for name, batches in orders.items():
        check(ways, batches[:5], lengths)
        size = int(np.mean([len(batch) * int(lengths[batch].max()) * options.hidden * 2 for batch in batches]))
        read_by = {**ways, "plain copy": plain_copy(arrays, size)}
        times: dict[str, list[float]] = {way: [] for way in read_by}
        for turn in range(options.turns + 1):
            for way, read in read_by.items():
                started = time.perf_counter()
                for batch in batches:
                    read(batch, lengths[batch])
                if turn:  # the first one fills the page cache
                    times[way].append((time.perf_counter() - started) / len(batches) * 1e6)
        medians = {way: round(statistics.median(values), 1) for way, values in times.items()}
        facts[name] = {"batches": len(batches), "bytes": size, "microseconds": medians}
    return facts


def texts(rows: int, random: np.random.Generator) -> TokenizedTexts:
    lengths = np.clip(random.normal(20, 7, rows).round(), 4, 60).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    ids = random.integers(0, 30_000, offsets[-1]).astype(np.int32)
    return TokenizedTexts(ids, offsets, np.arange(rows + 1), 1, 0)


def store(
    folder: Path, tokenized: TokenizedTexts, options: argparse.Namespace, random: np.random.Generator
) -> tuple[StoredStates, list[np.ndarray], float]:
    """Shards of states, opened; and the seconds that their checksums take."""
    identity = shards.StoreIdentity("0" * 64, None, "bf16", options.hidden)
    keys, lengths = window_keys(tokenized), tokenized.window_lengths
    by_length = np.concatenate(make_batches(lengths, np.arange(len(lengths)), 10_000))
    for part in np.array_split(by_length, options.shards):
        with shards.new_shard(folder, identity, keys=keys[part], lengths=lengths[part], part=0) as append:
            for block in np.array_split(part, 20):
                append(random.standard_normal((int(lengths[block].sum()), options.hidden)).astype(np.float16))
    found = [shards.Shard.read(shard) for shard in shards.shard_folders(folder)]
    started = time.perf_counter()
    for shard in found:
        shard.checked()
    seconds = time.perf_counter() - started
    stored = _locate(keys, found)
    assert stored is not None
    return stored, [shard.states() for shard in found], seconds


def rivals(stored: StoredStates, arrays: list[np.ndarray]) -> dict[str, Read]:
    hidden = arrays[0].shape[1]

    def loop(windows: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        out = np.zeros((len(windows), int(lengths.max()), hidden), dtype=np.float16)
        places = zip(stored.shard[windows], stored.start[windows], lengths, strict=True)
        for place, (shard, start, length) in enumerate(places):
            out[place, :length] = arrays[shard][start : start + length]
        return torch.from_numpy(out)

    def piecewise(windows: np.ndarray, lengths: np.ndarray, take: Callable[[int, np.ndarray], object]) -> torch.Tensor:
        columns = np.arange(int(lengths.max()))
        real = columns < lengths[:, None]
        places = stored.start[windows][:, None] + columns
        out = np.zeros((*real.shape, hidden), dtype=np.float16)
        for shard in np.unique(stored.shard[windows]):
            own = real & (stored.shard[windows] == shard)[:, None]
            out[own] = take(int(shard), places[own])
        return torch.from_numpy(out)

    return {
        "loop over windows": loop,
        "fancy indexing": lambda w, n: piecewise(w, n, lambda shard, rows: arrays[shard][rows]),
        "index_select": lambda w, n: piecewise(
            w, n, lambda shard, rows: stored._tensors[shard].index_select(0, torch.from_numpy(rows)).numpy()
        ),
    }


def check(ways: dict[str, Read], batches: list[np.ndarray], lengths: np.ndarray) -> None:
    for batch in batches:
        first, *others = (read(batch, lengths[batch]) for read in ways.values())
        assert all(torch.equal(first, other) for other in others)


def plain_copy(arrays: list[np.ndarray], size: int) -> Read:
    """Copies so many bytes of the same files, from where the last copy ended: what reading in order would cost."""
    whole = [array.reshape(-1).view(np.uint8) for array in arrays]
    pieces = itertools.cycle([part[at : at + size] for part in whole for at in range(0, len(part) - size, size)])

    def copy(windows: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(next(pieces).copy())

    return copy


def table(facts: dict[str, object]) -> str:
    lines = [f"checksums: {facts['checksums_gb_per_s']} GB/s, one thread"]
    for name in ("training", "testing"):
        order = facts[name]
        assert isinstance(order, dict)
        lines.append(f"{name}: {order['batches']:,} batches of {order['bytes'] / 1e6:.2f} MB")
        ours = order["microseconds"]["ours"]
        for way, value in order["microseconds"].items():
            ratio = "" if way in {"ours", "plain copy"} else f"  {value / ours:.1f}x ours"
            lines.append(f"  {way:18} {value:8.1f} us{ratio}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
