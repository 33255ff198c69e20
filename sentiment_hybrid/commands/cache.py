"""``senthy cache info|clear``: what the cache folder contains, whether it is undamaged, and how to shrink it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sentiment_hybrid import console, paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.states import shards
from sentiment_hybrid.engine.training.teacher_cache import count_texts
from sentiment_hybrid.errors import DatabaseError, UsageError
from sentiment_hybrid.files import facts_of, leftovers, reason, size_of

#: What can be cleared.
KINDS = ("states", "baselines", "finetune", "teachers", "leftovers")


@dataclass(frozen=True)
class Entry:
    """Something in the cache that can be recomputed, or a partial file, folder or run left by a killed process.

    ``used`` is the time of last use, in seconds since 1970; ``facts`` describe the content, ``problems`` the damage.
    """

    kind: str
    path: Path
    bytes: int
    used: float
    facts: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class CacheInfo:
    """The content of the cache folder.

    ``states_bytes`` counts against ``max_gb``; ``verified``: all checksums were compared.
    """

    folder: Path
    states_bytes: int
    max_gb: float | None
    entries: tuple[Entry, ...]
    verified: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        """Damage and other versions, each with its path."""
        return tuple(problem for entry in self.entries for problem in entry.problems)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        kinds = {kind: [_plain(entry) for entry in self.entries if entry.kind == kind] for kind in KINDS}
        return {
            "folder": str(self.folder),
            "states_gb": self.states_bytes / 1e9,
            "max_gb": self.max_gb,
            "verified": self.verified,
            **kinds,
            "problems": list(self.problems),
        }


@dataclass(frozen=True)
class Cleared:
    """What was removed, the bytes freed, and what was kept: path and reason."""

    removed: tuple[Entry, ...]
    bytes: int
    kept: tuple[tuple[Path, str], ...]


def info(
    config: Config, *, verify: bool = False, progress: Callable[..., object] = lambda *shards, **total: None
) -> CacheInfo:
    """The content of the cache folder; ``verify`` compares all checksums."""
    cache = config.paths.cache
    progress(0, total=sum(len([*shards.shard_folders(path)]) for path in paths.states_dir(cache).glob("[!.]*")))
    return CacheInfo(
        folder=cache,
        states_bytes=size_of(paths.states_dir(cache)),
        max_gb=config.cache.max_gb,
        entries=tuple(_entries(config, KINDS, verify=verify, progress=progress)),
        verified=verify,
    )


def clear(
    config: Config, kinds: Sequence[str], *, older_than: float | None = None, confirm: Callable[[list[Entry]], bool]
) -> Cleared:
    """Remove entries of these kinds, last used more than ``older_than`` days ago, unless they are being filled.

    Raises:
        UsageError: no kind is given.
    """
    if not kinds:
        raise UsageError(
            "nothing to clear was named",
            hint="Add --states, --baselines, --finetune, --teachers, --leftovers, or --all.",
        )
    before = time.time() - 86_400 * (older_than or 0.0)
    found = [entry for entry in _entries(config, kinds) if older_than is None or entry.used < before]
    if not found or not confirm(found):
        return Cleared((), 0, ())
    outcomes = [(entry, _remove(entry)) for entry in found]
    return Cleared(
        removed=tuple(entry for entry, (_, why) in outcomes if not why),
        bytes=sum(freed for _, (freed, _) in outcomes),
        kept=tuple((entry.path, why) for entry, (_, why) in outcomes if why),
    )


# --- looking ---------------------------------------------------------------------------------------------------------


def _entries(
    config: Config,
    kinds: Sequence[str],
    *,
    verify: bool = False,
    progress: Callable[[int], object] = lambda shards: None,
) -> Iterator[Entry]:
    cache = config.paths.cache
    looks: dict[str, tuple[Iterable[Path], str, Callable[[Path], _Found]]] = {
        "states": (
            paths.states_dir(cache).glob("[!.]*"),
            paths.STORE_JSON,
            partial(_store, verify=verify, progress=progress),
        ),
        "baselines": (paths.baselines_dir(cache).glob("[!.]*"), paths.BASELINE_JSON, _baseline),
        "finetune": (paths.finetune_dir(cache).glob("[!.]*.db"), "", _texts),
        "teachers": (paths.teachers_dir(cache).glob("[!.]*"), paths.TEACHER_JSON, _answers),
        "leftovers": (_left(config, cache), "", lambda path: ({}, [])),
    }
    for kind in kinds:
        places, note, look = looks[kind]
        for path in sorted(places):
            with suppress(FileNotFoundError):  # another process clears, too
                facts, problems = look(path)
                used = (path / note if (path / note).is_file() else path).stat().st_mtime
                entry = Entry(kind, path, size_of(path), used, facts, tuple(problems))
                # A cleared store keeps its empty lock files.
                if entry.bytes or kind == "leftovers":
                    yield entry


def _left(config: Config, cache: Path) -> Iterator[Path]:
    """Partial files of killed processes beside models, results and the database, and runs without an epoch."""
    models, results, runs = config.paths.models_dir, config.paths.results_dir, paths.runs_dir(config.paths.results_dir)
    places = (models, results, runs, config.paths.data_db.parent, paths.baselines_dir(cache), paths.finetune_dir(cache))
    for folder in dict.fromkeys(places):
        yield from leftovers(folder)
    yield from (run for run in runs.glob("[!.]*") if _is_dead_run(run))


def _is_dead_run(run: Path) -> bool:
    """Whether a run is not active and has neither an epoch nor a checkpoint."""
    if not (run / paths.RUN_CONFIG).is_file() or "finished" in facts_of(run / paths.RUN_META):
        return False
    if (run / paths.RUN_METRICS).is_file() or (run / paths.CHECKPOINTS_DIR / paths.CHECKPOINT_POINTERS).is_file():
        return False
    try:
        with FileLock(run / paths.RUN_LOCK).acquire(blocking=False):
            return True
    except Timeout:
        return False


#: Facts of an entry, and its damage.
_Found = tuple[dict[str, Any], list[str]]


def _store(path: Path, *, verify: bool, progress: Callable[[int], object]) -> _Found:
    facts: dict[str, Any] = {"encoder": "unknown", **facts_of(path / paths.STORE_JSON)}
    facts |= {"windows": 0, "tokens": 0, "shards": 0}
    problems = []
    for folder in shards.shard_folders(path):
        try:
            shard = shards.Shard.read(folder)
            if verify:
                shard.checked()
        except FileNotFoundError:
            continue
        except (shards.UnusableError, OSError) as error:
            problems.append(f"{folder}: {error}")
        else:
            facts |= {name: shard.facts[name] for name in shards.StoreIdentity.__dataclass_fields__}
            facts["windows"] += shard.facts["windows"]
            facts["tokens"] += shard.facts["tokens"]
            facts["shards"] += 1
        progress(1)
    return facts, problems


def _baseline(path: Path) -> _Found:
    facts = facts_of(path / paths.BASELINE_JSON)
    return {name: facts[name] for name in ("fingerprint", "num_classes") if name in facts}, []


def _texts(path: Path) -> _Found:
    try:
        with open_store(path) as store:
            rows = sum(store.count(split) for split in ("train", "valid", "test"))
            return {"source": store.source, "rows": rows, "labels": list(store.labels)}, []
    except DatabaseError as error:
        return {}, [error.message]


def _answers(path: Path) -> _Found:
    facts = facts_of(path / paths.TEACHER_JSON)
    try:
        return {**facts, "texts": count_texts(path)}, []
    except (OSError, ValueError, EOFError) as error:
        return facts, [f"{path}: {error}"]


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "path": str(entry.path),
        "gb": entry.bytes / 1e9,
        "last_used": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(entry.used)),
        **entry.facts,
        "problems": list(entry.problems),
    }


# --- removing --------------------------------------------------------------------------------------------------------


def _remove(entry: Entry) -> tuple[int, str]:
    """The bytes freed, and the reason if something is left."""
    why = ""
    try:
        if entry.kind == "states":
            why = _remove_store(entry.path)
        elif entry.path.is_dir():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink(missing_ok=True)
    except OSError as error:
        why = reason(error)
    return max(0, entry.bytes - size_of(entry.path)), why


def _remove_store(store: Path) -> str:
    """Remove shards, holding the locks of a writer; processes that have mapped them are not affected.

    The empty lock files stay: a held lock must keep its name.
    """
    try:
        with shards.locked(store, wait=False):
            for folder in shards.shard_folders(store):
                shards.remove(folder)
            for part in range(shards.PARTS):
                shards.remove_leftovers(store, part)
            (store / paths.STORE_JSON).unlink(missing_ok=True)
    except Timeout:
        return "it is being written"
    return "some of it is in use, or may not be removed" if size_of(store) else ""


def show(info: CacheInfo) -> None:
    """Show the content of the cache folder, its size, and damage."""
    console.say(f"cache: {info.folder}")
    room = "unlimited (cache.max_gb)" if info.max_gb is None else f"{info.max_gb:g} GB (cache.max_gb)"
    console.say(f"token states: {info.states_bytes / 1e9:.3f} GB of {room}")
    columns = ["kind", "of", "size", "name", "GB", "last used"]
    rows = [[entry.kind, *_row(entry)] for entry in info.entries]
    if rows and not console.fits(columns, rows):
        columns = ["kind", "of", "GB", "last used"]
        rows = [[kind, "\n".join(filter(None, texts)), gb, used] for kind, *texts, gb, used in rows]
    if rows:
        console.table("Content", columns, rows, left=len(columns) - 2)
    for problem in info.problems:
        console.warn(problem)
    if info.verified and not info.problems:
        console.say("verified: all checksums are correct")


def _row(entry: Entry) -> list[str]:
    facts, layer = entry.facts, entry.facts.get("layer", "unknown")
    of, count = facts.get("source", ""), f"{facts['rows']:,} rows" if "rows" in facts else ""
    if entry.kind == "states":
        of = f"{facts['encoder']}, {'last layer' if layer is None else f'layer {layer}'}, {facts.get('precision')}"
        count = f"{facts['windows']:,} windows, {facts['tokens']:,} tokens"
    if entry.kind == "teachers":
        of, count = facts.get("teacher", "unknown"), f"{facts.get('texts', 0):,} texts"
    if entry.kind == "leftovers":
        of = "a killed process"
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    return [of, count, entry.path.name, f"{entry.bytes / 1e9:.3f}", used]


def show_cleared(cleared: Cleared) -> None:
    """Show what was removed from the cache, and what could not be."""
    for entry in cleared.removed:
        console.say(f"removed {entry.path}")
    console.say(f"freed {cleared.bytes / 1e9:.3f} GB" if cleared.removed or cleared.kept else "nothing was removed")
    for path, why in cleared.kept:
        console.warn(f"{path} was not removed: {why}")
