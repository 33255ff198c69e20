"""``senthy data``: prepares one database from the sources, unless it is up to date."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import console
from sentiment_hybrid.config.schema import Config, Data
from sentiment_hybrid.console import note, progress, warn
from sentiment_hybrid.data.sources import open_source, rows_in
from sentiment_hybrid.errors import DatabaseError, LockedError, ModelError, count

if TYPE_CHECKING:
    from sentiment_hybrid.data.build import Part, Plan


#: Maximum number of classes with a column each.
_MOST_COLUMNS = 10


@dataclass(frozen=True)
class DataResult:
    """The prepared database; ``built`` is False if it was up to date, ``report`` counts rows by reason."""

    path: Path
    fingerprint: str
    built: bool
    report: dict[str, Any]
    labels: tuple[str, ...]
    seconds: float
    source: str
    normalizer: str
    split_key_version: int
    corrections: dict[str, Any] | None = None


def run(config: Config, *, refresh: bool = False, offline: bool = False) -> DataResult:
    """Prepare the database at ``paths.data_db``, unless it is up to date.

    Raises:
        DataError: or a subclass: a source, its columns, labels or rows are unusable, or the file is not our database.
        OutputError: the database cannot be written; the old one is unchanged.
    """
    from sentiment_hybrid.data.build import Plan
    from sentiment_hybrid.data.corrections import read_corrections
    from sentiment_hybrid.data.normalizers import get_normalizer
    from sentiment_hybrid.data.store import check_ours

    target, data = config.paths.data_db, config.data
    check_ours(target)
    corrections = None if data.corrections is None else read_corrections(data.corrections)
    if corrections is not None and not corrections.decisions:
        warn(f"nothing is corrected in {corrections.path}: {count(corrections.undecided, 'row')} without a correction")
        corrections = None
    plan = Plan(_parts(data, offline=offline), data, get_normalizer(data.normalizer), corrections=corrections)
    found = None if refresh else _existing(target, time.perf_counter())
    if found is not None and found.fingerprint != plan.fingerprint and _differs_by_versions(found, plan):
        note(
            f"{target} keeps its normalizer, {found.normalizer}, and version {found.split_key_version} of the split "
            "key; --refresh updates both"
        )
        return found
    return prepare(target, plan, cache=config.paths.cache, refresh=refresh, offline=offline)


def _differs_by_versions(found: DataResult, plan: Plan) -> bool:
    """Whether a database is what is planned, but for the versions of its normalizer and split key."""
    from sentiment_hybrid.data.normalizers import from_id

    try:
        normalizer = from_id(found.normalizer)
    except ModelError:
        return False  # of a later senthy: it is prepared again
    data = plan.data.model_copy(update={"split_key_version": found.split_key_version})
    same = replace(plan, data=data, normalizer=normalizer).fingerprint == found.fingerprint
    return same and normalizer.name == plan.normalizer.name


def prepare(target: Path, plan: Plan, *, cache: Path, refresh: bool = False, offline: bool = False) -> DataResult:
    """Build a database with progress and warnings, unless one with this fingerprint exists; raises as ``run``."""
    from sentiment_hybrid.data.build import build, check_writable

    started = time.perf_counter()
    found = _existing(target, started)
    if found is not None and found.fingerprint == plan.fingerprint and not refresh:
        return found
    check_writable(target)
    if found is not None:
        _warn_replaced(found, plan.name, plan.fingerprint)
    plan.normalizer.prepare(cache, offline=offline)
    sources = [part.source for part in plan.parts]
    with progress("reading and cleaning", lambda: rows_in(sources)) as task:
        build(target, plan, on_rows=task.advance, on_step=lambda step: task.update(step=step))
    result = _opened(target, started, built=True)
    for warning in result.report["warnings"]:
        warn(warning)
    return result


def _parts(data: Data, *, offline: bool) -> list[Part]:
    from sentiment_hybrid.data import splits
    from sentiment_hybrid.data.build import Part

    if data.train_source is None:
        return [Part(open_source(data.source, data, offline=offline))]
    official = ((data.train_source, splits.TRAIN), (data.valid_source, splits.VALID), (data.test_source, splits.TEST))
    return [Part(open_source(spec, data, offline=offline), code) for spec, code in official if spec is not None]


def _existing(target: Path, started: float) -> DataResult | None:
    """The existing database, if it can be used; a damaged one or one of another version is rebuilt.

    Raises LockedError: a database in use by another program must not be replaced.
    """
    try:
        return _opened(target, started, built=False) if target.exists() else None
    except LockedError:
        raise
    except DatabaseError as error:
        warn(f"rebuilding {os.fspath(target)}: {error.message}")
        return None


def _opened(target: Path, started: float, *, built: bool) -> DataResult:
    from sentiment_hybrid.data.store import open_store

    with open_store(target) as store:
        return DataResult(
            path=target,
            fingerprint=store.fingerprint,
            built=built,
            report=store.report,
            labels=store.labels,
            seconds=time.perf_counter() - started,
            source=store.source,
            normalizer=store.normalizer,
            split_key_version=store.split_keys["split_key_version"],
            corrections=store.corrections,
        )


def _warn_replaced(found: DataResult, source: str, wanted: str) -> None:
    """Warn before a database from another source is replaced; it is kept until the new one is complete."""
    if found.source != source:
        warn(
            f"{found.path} contains {found.source}, which {source} will replace once it has been read "
            "(--set paths.data_db=FILE keeps both)"
        )
    elif found.fingerprint != wanted:
        note(f"rebuilding {found.path}: {source} or a setting under `data` has changed")


def show(result: DataResult) -> None:
    """Show the result of ``senthy data``: rows per split and class, and dropped rows by reason."""
    report = result.report
    state = "prepared" if result.built else "is up to date (--refresh rebuilds it)"
    console.say(f"{result.path} {state}: {result.source}, {console.duration(result.seconds)}")
    if len(result.labels) <= _MOST_COLUMNS:
        columns = ["split", "rows", *result.labels]
        rows = [_split_row(name, row, result.labels) for name, row in report["splits"].items()]
        if not console.fits(columns, rows):
            columns, *rows = map(list, zip(columns, *rows, strict=True))
        console.table("Rows per split", columns, rows)
    else:
        rows = [_range_row(name, row, result.labels) for name, row in report["splits"].items()]
        console.table(
            f"Rows per split, of {len(result.labels)} classes", ["split", "rows", "smallest class", "largest"], rows
        )
    read = max(report["rows_read"], 1)
    dropped = [
        (reason.replace("_", " "), f"{count:,}", f"{100 * count / read:.2f} %")
        for reason, count in report["dropped"].items()
        if count
    ]
    if result.corrections is not None:
        _show_corrections(result.corrections, left_out=report["dropped"].get("dropped by a correction", 0))
    if dropped:
        console.table(f"Dropped from {report['rows_read']:,} rows", ["reason", "rows", "share"], dropped)
    # The warnings of a new build were printed while it ran.
    for warning in () if result.built else report["warnings"]:
        console.warn(warning)


def _show_corrections(corrections: Mapping[str, Any], *, left_out: int) -> None:
    """The decisions by kind; ``left_out`` counts dropped rows with their copies."""
    changed, dropped, kept = (corrections[name] for name in ("changed", "dropped", "kept"))
    copies = f" ({left_out:,} with their copies)" if left_out > dropped else ""
    console.say(
        f"corrections: {count(changed, 'label')} changed, {count(dropped, 'row')} dropped{copies}, {kept:,} kept"
    )


def _range_row(name: str, counts: Mapping[str, int], labels: Sequence[str]) -> list[str]:
    sizes = sorted((counts.get(label, 0), label) for label in labels)
    ends = [f"{label}: {rows:,}" for rows, label in (sizes[0], sizes[-1])]
    return [name, f"{sum(rows for rows, _ in sizes):,}", *ends]


def _split_row(name: str, counts: Mapping[str, int], labels: Sequence[str]) -> list[str]:
    total = sum(counts.get(label, 0) for label in labels)
    shares = [f"{counts.get(label, 0):,} ({100 * counts.get(label, 0) / max(total, 1):.1f} %)" for label in labels]
    return [name, f"{total:,}", *shares]
