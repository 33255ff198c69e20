"""``senthy cache info|clear``: what lies in the cache folder, whether it is whole, and making room in it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sentiment_hybrid import console, paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import DatabaseError, UsageError
from sentiment_hybrid.files import reason

#: What can be cleared.
KINDS = ("states", "baselines", "finetune", "teachers")


@dataclass(frozen=True)
class Entry:
    """A store of token states, a baseline, or the prepared texts of a fine-tuning; all of them can be made again.

    ``used`` is when it was last used, in seconds since 1970; ``facts`` are what it says of itself, and ``problems``
    its damaged parts.
    """

    kind: str
    path: Path
    bytes: int
    used: float
    facts: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class CacheInfo:
    """What is kept, kind by kind.

    ``states_bytes`` is what counts against ``max_gb``; ``verified`` is whether every stored state was compared with
    its checksum.
    """

    folder: Path
    states_bytes: int
    max_gb: float | None
    entries: tuple[Entry, ...]
    verified: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What is damaged or of another version, each with its path."""
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
    """What was removed, how many bytes that freed, and what was kept: its path, and why."""

    removed: tuple[Entry, ...]
    bytes: int
    kept: tuple[tuple[Path, str], ...]


def info(config: Config, *, verify: bool = False, progress: Callable[[int], object] = lambda shards: None) -> CacheInfo:
    """What the cache folder holds; with ``verify`` every stored state is compared with its checksum."""
    from sentiment_hybrid.engine.states.shards import size_of

    cache = paths.cache_dir(config.paths.cache_dir)
    return CacheInfo(
        folder=cache,
        states_bytes=size_of(paths.states_dir(cache)),
        max_gb=config.cache.max_gb,
        entries=tuple(_entries(cache, KINDS, verify=verify, progress=progress)),
        verified=verify,
    )


def clear(
    config: Config, kinds: Sequence[str], *, older_than: float | None = None, confirm: Callable[[list[Entry]], bool]
) -> Cleared:
    """Remove what is of these kinds and was last used more than ``older_than`` days ago; what is being filled stays.

    Args:
        config: names the cache folder.
        kinds: of KINDS.
        older_than: days; None is whatever its age.
        confirm: is shown what would go, and says whether it may.

    Raises:
        UsageError: no kind is given.
    """
    if not kinds:
        raise UsageError(
            "nothing is named that could be cleared",
            hint="Add --states, --baselines, --finetune, --teachers, or --all.",
        )
    cache = paths.cache_dir(config.paths.cache_dir)
    before = time.time() - 86_400 * (older_than or 0.0)
    found = [entry for entry in _entries(cache, kinds) if older_than is None or entry.used < before]
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
    cache: Path,
    kinds: Sequence[str],
    *,
    verify: bool = False,
    progress: Callable[[int], object] = lambda shards: None,
) -> Iterator[Entry]:
    looks: dict[str, tuple[Path, str, Callable[[Path], Entry]]] = {
        "states": (paths.states_dir(cache), "[!.]*", partial(_store, verify=verify, progress=progress)),
        "baselines": (paths.baselines_dir(cache), "[!.]*", _baseline),
        "finetune": (paths.finetune_dir(cache), "[!.]*.db", _texts),
        "teachers": (paths.teachers_dir(cache), "[!.]*", _answers),
    }
    for kind in kinds:
        folder, pattern, look = looks[kind]
        for path in sorted(folder.glob(pattern)):
            with suppress(FileNotFoundError):  # another process clears, too
                if (entry := look(path)).bytes:  # of a store that was cleared, the empty files of its locks stay
                    yield entry


def _store(path: Path, *, verify: bool, progress: Callable[[int], object]) -> Entry:
    from sentiment_hybrid.engine.states import shards

    note = path / paths.STORE_JSON
    facts: dict[str, Any] = {"encoder": "unknown", **_read_json(note)}
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
            facts |= {name: shard.facts[name] for name in shards.Identity.__dataclass_fields__}
            facts["windows"] += shard.facts["windows"]
            facts["tokens"] += shard.facts["tokens"]
            facts["shards"] += 1
        progress(1)
    used = (note if note.is_file() else path).stat().st_mtime
    return Entry("states", path, shards.size_of(path), used, facts, tuple(problems))


def _baseline(path: Path) -> Entry:
    from sentiment_hybrid.engine.states.shards import size_of

    meta = path / paths.BASELINE_JSON
    facts = {name: value for name, value in _read_json(meta).items() if name in {"fingerprint", "num_classes"}}
    return Entry("baselines", path, size_of(path), (meta if meta.is_file() else path).stat().st_mtime, facts)


def _texts(path: Path) -> Entry:
    from sentiment_hybrid.data.store import open_store

    facts: dict[str, Any] = {}
    problems: tuple[str, ...] = ()
    try:
        with open_store(path) as store:
            rows = sum(store.count(split) for split in ("train", "valid", "test"))
            facts = {"source": store.source, "rows": rows, "labels": list(store.labels)}
    except DatabaseError as error:
        problems = (error.message,)
    return Entry("finetune", path, path.stat().st_size, path.stat().st_mtime, facts, problems)


def _answers(path: Path) -> Entry:
    from sentiment_hybrid.engine.states.shards import size_of
    from sentiment_hybrid.engine.training.kept_answers import count_texts

    note = path / paths.TEACHER_JSON
    facts, problems = _read_json(note), tuple[str, ...]()
    try:
        facts["texts"] = count_texts(path)
    except (OSError, ValueError, EOFError) as error:
        problems = (f"{path}: {error}",)
    return Entry("teachers", path, size_of(path), (note if note.is_file() else path).stat().st_mtime, facts, problems)


def _read_json(path: Path) -> dict[str, Any]:
    """What a note for people says; nothing where it cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


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
    """The bytes that were freed, and why something is left, if so."""
    from sentiment_hybrid.engine.states.shards import size_of

    try:
        why = _remove_store(entry.path) if entry.kind == "states" else _delete(entry.path)
    except OSError as error:
        why = reason(error)
    left = size_of(entry.path) if entry.path.is_dir() else entry.bytes if entry.path.exists() else 0
    return max(0, entry.bytes - left), why


def _delete(path: Path) -> str:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return ""


def _remove_store(store: Path) -> str:
    """Shards go under the locks that a fill would hold; what has mapped them into memory keeps what it has.

    The empty files of the locks stay: a lock that is held must keep its name.
    """
    from filelock import Timeout

    from sentiment_hybrid.engine.states import shards

    try:
        with shards.locked(store, wait=False):
            for folder in shards.shard_folders(store):
                shards.remove(folder)
            for part in range(shards.PARTS):
                shards.remove_leftovers(store, part)
            (store / paths.STORE_JSON).unlink(missing_ok=True)
    except Timeout:
        return "it is being filled"
    return "some of it is in use, or may not be removed" if shards.size_of(store) else ""


def show(info: CacheInfo) -> None:
    """Show the content of the cache folder, its size, and damage."""
    console.say(f"cache: {info.folder}")
    kinds = {kind: [entry for entry in info.entries if entry.kind == kind] for kind in ("states", "baselines")}
    finetune = [entry for entry in info.entries if entry.kind == "finetune"]
    if kinds["states"]:
        columns = ["encoder", "layer", "precision", "windows", "tokens", "GB", "last used", "folder"]
        console.table("Token states", columns, [_store_row(entry) for entry in kinds["states"]], left=3)
    room = "unlimited (cache.max_gb)" if info.max_gb is None else f"{info.max_gb:g} GB (cache.max_gb)"
    console.say(f"token states: {info.states_bytes / 1e9:.3f} GB of {room}")
    if kinds["baselines"]:
        rows = [[entry.path.name, f"{entry.bytes / 1e9:.3f}", _day(entry.used)] for entry in kinds["baselines"]]
        console.table("Baselines", ["training texts", "GB", "last used"], rows)
    if finetune:
        columns = ["source", "file", "rows", "GB", "last used"]
        console.table("Fine-tuning data", columns, [_texts_row(entry) for entry in finetune], left=2)
    if teachers := [entry for entry in info.entries if entry.kind == "teachers"]:
        columns = ["teacher", "texts", "GB", "last used"]
        console.table("Probabilities of teachers", columns, [_teacher_row(entry) for entry in teachers])
    for problem in info.problems:
        console.warn(problem)
    if info.verified and not info.problems:
        console.say("verified: all checksums are correct")


def _teacher_row(entry: Entry) -> list[object]:
    texts = f"{entry.facts['texts']:,}" if "texts" in entry.facts else "-"
    return [entry.facts.get("teacher", "unknown"), texts, f"{entry.bytes / 1e9:.3f}", _day(entry.used)]


def _store_row(entry: Entry) -> list[object]:
    facts = entry.facts
    layer = facts.get("layer", "unknown")
    return [
        *(facts["encoder"], "last" if layer is None else layer, facts.get("precision", "unknown")),
        *(f"{facts['windows']:,}", f"{facts['tokens']:,}", f"{entry.bytes / 1e9:.3f}", _day(entry.used)),
        entry.path.name,
    ]


def _texts_row(entry: Entry) -> list[object]:
    rows = f"{entry.facts['rows']:,}" if entry.facts else "-"
    return [
        entry.facts.get("source", "unknown"),
        entry.path.name,
        rows,
        f"{entry.bytes / 1e9:.3f}",
        _day(entry.used),
    ]


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def show_cleared(cleared: Cleared) -> None:
    """Show what was removed from the cache, and what could not be."""
    for entry in cleared.removed:
        console.say(f"removed {entry.path}")
    console.say(f"freed {cleared.bytes / 1e9:.3f} GB" if cleared.removed or cleared.kept else "nothing was removed")
    for path, why in cleared.kept:
        console.warn(f"{path} was not removed: {why}")
