"""Builds the prepared database in a temporary file, which then replaces the old one; texts are sorted on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.config.schema import MAX_TEXT_BYTES, Data
from sentiment_hybrid.data import splits as split
from sentiment_hybrid.data.columns import Columns, choose, text_note
from sentiment_hybrid.data.corrections import Applied, Corrections
from sentiment_hybrid.data.labels import Labelling, LabelValues, all_mean, labelling_of, resolve
from sentiment_hybrid.data.normalizers import Normalizer
from sentiment_hybrid.data.ordering import (
    CORRECTED,
    KEEP,
    REASONS,
    TESTED,
    TRAINED,
    UNKNOWN,
    Rows,
    find_drops,
    positions,
)
from sentiment_hybrid.data.partitions import Partitions
from sentiment_hybrid.data.preparation import Facts, Preparation, Prepared, Recipe
from sentiment_hybrid.data.sources import Batch, Source, no_rows
from sentiment_hybrid.data.store import APPLICATION_ID, CHECKED, FORMAT_VERSION, Checksums, check_ours
from sentiment_hybrid.errors import DatabaseError, DataError, LabelError
from sentiment_hybrid.files import atomic_file, written

Int64s = npt.NDArray[np.int64]

#: Rows that were read but are not among those with a reason of `ordering.REASONS`.
UNREADABLE, UNLABELLED = "unreadable", "no label yet"

_READ_AT_ONCE = 10_000
_CACHE_KIB = 32 * 1024
_NEGATION = re.compile(r"\b(?:no|not|nor)\b|n['’´`]t\b", re.IGNORECASE)
#: Below this share of negated texts, stopwords were probably removed; usual English has 15 to 35 in a hundred.
_LEAST_NEGATION = 0.02
_NEGATION_ROWS = 500
_SAMPLED = 200
#: What a hint suggests where the database cannot be written.
_ANOTHER = "another file: --set paths.data_db=FILE. The old database, if any, is unchanged"
#: Rows per statement: old versions of SQLite take at most 999 values.
_INSERTED_AT_ONCE = 199


@dataclass(frozen=True)
class Part:
    """A source and the split that it is for: None where the split key decides."""

    source: Source
    split: int | None = None


@dataclass(frozen=True)
class Demands:
    """What an existing model requires of further data.

    ``labels`` are the model's, in order; with ``may_differ``, data with other labels keep theirs. ``tested`` and
    ``trained`` are order hashes of texts: the former are kept out of training and validation, the latter out of the
    test split. ``coding`` is what label values meant in the model's training, ``text_column`` its text column.
    """

    labels: tuple[str, ...]
    may_differ: bool = False
    tested: split.UInt64s | None = None
    trained: split.UInt64s | None = None
    coding: Mapping[str, str] | None = None
    text_column: str | None = None

    @property
    def bars(self) -> list[tuple[int, tuple[int, ...], split.UInt64s]]:
        """What the model keeps out: reason, split codes, and order hashes of the texts."""
        bars = ((TESTED, (split.TRAIN, split.VALID), self.tested), (TRAINED, (split.TEST,), self.trained))
        return [(why, codes, keys) for why, codes, keys in bars if keys is not None and len(keys)]

    def facts(self) -> list[Any]:
        """The part of a database's fingerprint that depends on the model."""
        digests = [
            None if keys is None else hashlib.sha256(np.unique(keys).tobytes()).hexdigest()
            for keys in (self.tested, self.trained)
        ]
        training = [] if self.coding is None else [dict(self.coding), self.text_column]
        return [list(self.labels), self.may_differ, *digests, *training]


@dataclass
class _Intake:
    """A source, and its label values so far with their numbers among those of all sources."""

    part: Part
    columns: Columns
    values: LabelValues
    numbers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a database is made of.

    ``parts`` are one part without a split, or official splits; ``demands`` those of the model that the data are
    prepared for; ``corrections`` decisions about single rows.
    """

    parts: Sequence[Part]
    data: Data
    normalizer: Normalizer
    demands: Demands | None = None
    corrections: Corrections | None = None

    @property
    def name(self) -> str:
        """The sources as the database names them."""
        return ", ".join(part.source.name for part in self.parts)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that determines the content of the database: sources, settings, versions."""
        data, official = self.data, ("train_source", "valid_source", "test_source")
        excluded = {"source", *official, "split_key_version", "max_labels", "corrections"}
        settings = data.model_dump(mode="json", exclude=excluded)
        # Databases from before these settings and before encodings were detected remain up to date.
        for name, default in {"delimiter": None, "max_text_bytes": MAX_TEXT_BYTES, "label_case": "error"}.items():
            if settings[name] == default:
                del settings[name]
        settings["encoding"] = {"auto": "utf-8", "utf-8": "utf-8 alone"}.get(data.encoding, data.encoding)
        facts = {
            "format": FORMAT_VERSION,
            "split_key": data.split_key_version,
            "normalizer": self.normalizer.id,
            "data": settings,
            "sources": [[part.split, part.source.fingerprint()] for part in self.parts],
        }
        if self.demands is not None:
            facts["demands"] = self.demands.facts()
        if self.corrections is not None:
            facts["corrections"] = self.corrections.fingerprint()
        return hashlib.sha256(json.dumps(facts, sort_keys=False).encode()).hexdigest()


def build(
    target: Path,
    plan: Plan,
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Read the sources, clean and split the texts, and replace the database, which is unchanged until then.

    Args:
        target: the database.
        plan: what it is made of; its fingerprint is stored.
        on_rows: called with the number of rows read since the last call.
        on_step: called with the name of the step that follows reading.

    Returns:
        The stored metadata: labels, splits, report, fingerprints.

    Raises:
        SourceError, ColumnError, LabelError, DataError: the texts cannot be used.
        OutputError: the folder cannot be written or the disk is full.
        DatabaseError: the file at ``target`` is not a prepared database, or is read-only.
    """
    check_writable(target)
    fingerprint = plan.fingerprint
    with _aside(target) as connection, Partitions(target.parent) as partitions:
        builder = _Builder(connection, partitions, plan)
        builder.read_all(on_rows)
        on_step("putting rows in order")
        info = builder.finish() | {"fingerprint": fingerprint}
        facts = json.dumps(info, ensure_ascii=False)
        checksums = builder.checksums.to_json(facts)
        connection.execute("INSERT INTO meta VALUES ('info', ?), ('checksums', ?)", (facts, checksums))
    return info


class _Builder:
    """Reads the sources into partitions on disk, and fills an empty database from these."""

    def __init__(self, connection: sqlite3.Connection, partitions: Partitions, plan: Plan) -> None:
        self.connection, self.partitions, self.plan = connection, partitions, plan
        self.data, self.demands = plan.data, plan.demands
        codes = [part.split for part in plan.parts]
        self.applied = None if plan.corrections is None else Applied(plan.corrections, codes)
        self.official = codes[0] is not None
        self.has_valid = split.VALID in codes
        self.checksums = Checksums()
        self.intakes = [self._intake(part) for part in plan.parts]
        #: Of each batch: `Facts`, source rows and numbers of label values.
        self.facts: list[tuple[npt.NDArray[Any], ...]] = []
        #: Rows that were read as such, and those that were not.
        self.rows = self.unlabelled = 0
        self.unreadable: Counter[str] = Counter()
        #: Texts that were searched for a negation, and those that have one.
        self.sampled = self.negated = 0

    def _intake(self, part: Part) -> _Intake:
        source, trained_on = part.source, None if self.demands is None else self.demands.text_column
        columns = choose(source.columns, self.data, source=source.name, trained_on=trained_on)
        values = LabelValues(source.name, columns.label, place=source.place, most=self.data.max_labels)
        return _Intake(part, columns, values)

    def read_all(self, on_rows: Callable[[int], None]) -> None:
        """Read every source into the partitions. Raises DataError if a source has no rows."""
        with Preparation() as preparation:
            for index, intake in enumerate(self.intakes):
                source, before, unlabelled = intake.part.source, self.rows_read, self.unlabelled
                for (batch, texts), prepared in preparation.each(self._batches(intake), self._recipe(intake.part)):
                    self._take(batch, texts, prepared, index=index)
                    on_rows(len(batch) + sum(batch.skipped.values()))
                if self.rows_read == before and self.unlabelled > unlabelled:
                    raise DataError(f"no row of {source.name} has a label yet", hint="Fill in its column label.")
                if self.rows_read == before:
                    raise no_rows(source.name)

    @property
    def rows_read(self) -> int:
        """The rows so far, those without a label that people are still giving excepted."""
        return self.rows + self.unreadable.total()

    def _batches(self, intake: _Intake) -> Iterator[tuple[tuple[Batch, list[str]], list[str], list[str]]]:
        """((batch, texts), texts, raw texts) of each batch, as `Preparation.each` takes them."""
        columns = intake.columns
        names = list(dict.fromkeys((columns.text, columns.label, columns.raw)))
        half_labelled = intake.part.source.half_labelled
        for batch in intake.part.source.batches(names, size=_READ_AT_ONCE):
            if half_labelled:
                batch = self._labelled(batch, columns.label)
            texts = [text or "" for text in batch.columns[columns.text]]
            raws = texts
            if columns.raw != columns.text:
                raws = [raw or text for raw, text in zip(batch.columns[columns.raw], texts, strict=True)]
            yield (batch, texts), texts, raws

    def _labelled(self, batch: Batch, column: str) -> Batch:
        """The rows that somebody has labelled; the others are counted."""
        rows = [at for at, label in enumerate(batch.columns[column]) if (label or "").strip()]
        self.unlabelled += len(batch) - len(rows)
        values = {name: [some[at] for at in rows] for name, some in batch.columns.items()}
        return replace(batch, rows=[batch.rows[at] for at in rows], columns=values)

    def _take(self, batch: Batch, texts: list[str], prepared: Prepared, *, index: int) -> None:
        """Keep the rows of a batch: facts in memory, texts in the partitions."""
        intake = self.intakes[index]
        self._look_for_negation(texts)
        if self.applied is not None:
            self.applied.find(index, batch.rows, batch.columns[intake.columns.raw], texts, first=self.rows)
        rows = np.asarray(batch.rows, dtype=np.int64)
        self.facts.append((*prepared.facts, rows, self._value_numbers(batch, intake)))
        self.partitions.add(prepared.pieces, self.rows)
        self.rows += len(batch)
        self.unreadable.update(batch.skipped)

    def _value_numbers(self, batch: Batch, intake: _Intake) -> npt.NDArray[np.int32]:
        """Label values as numbers (N,); which label each value means is decided when all are known."""
        given = [value or "" for value in batch.columns[intake.columns.label]]
        for value in dict.fromkeys(given):
            if value not in intake.numbers:
                intake.values.add(value, batch.rows[given.index(value)])
                intake.numbers[value] = sum(len(one.numbers) for one in self.intakes)
        return np.fromiter(map(intake.numbers.__getitem__, given), dtype=np.int32, count=len(given))

    def _recipe(self, part: Part) -> Recipe:
        """How to prepare the rows of a source; a missing official validation split is drawn from training."""
        data, drawn = self.data, part.split == split.TRAIN and not self.has_valid
        return Recipe(
            self.plan.normalizer.id, data.split_seed, data.split_key_version,
            test_size=data.test_size if part.split is None else 0.0, valid_size=data.valid_size,
            split=None if drawn else part.split,
        )  # fmt: skip

    def _look_for_negation(self, texts: list[str]) -> None:
        few = _SAMPLED if self.sampled >= 10 * _SAMPLED else 10 * _SAMPLED
        some = [text for text in texts[:few] if text]
        self.sampled += len(some)
        self.negated += sum(_NEGATION.search(text) is not None for text in some)

    def finish(self) -> dict[str, Any]:
        """Determine labels, dropped rows and order, and write the table. Raises LabelError or DataError."""
        self.labellings = self._labellings()
        labels = self.labellings[0].labels
        *parts, source_rows, values = map(np.concatenate, zip(*self.facts, strict=True))
        self.facts.clear()
        facts = Facts(*parts)
        rows = self._rows(facts, values)
        fingerprint = self._split_fingerprint(facts, rows)
        if self.applied is not None:
            self.applied.apply(rows, labels, copies=self.data.repeats == "drop")
        find_drops(
            rows,
            official=self.official,
            drop_conflicts=self.data.conflicts == "drop",
            drop_repeats=self.data.repeats == "drop",
        )
        counts, dropped = rows.counts(len(labels)), self._dropped(rows)
        self._check_enough(counts, labels, dropped)
        places = positions(rows)
        self._write(rows, source_rows, places)
        info = self._info(labels, counts, dropped, fingerprint)
        if self.applied is not None:
            info["corrections"] = self.applied.facts(rows, places, self.plan.normalizer)
        return info

    def _rows(self, facts: Facts, values: npt.NDArray[np.int32]) -> Rows:
        """The rows with their labels, and the reasons for dropping that depend on a row alone."""
        pairs = zip(self.intakes, self.labellings, strict=True)
        codes = [labelling.codes.get(value, -1) for intake, labelling in pairs for value in intake.numbers]
        labels = np.array(codes, dtype=np.int64)[values]
        reasons = facts.reasons
        if self.demands is not None:
            for why, splits, barred in self.demands.bars:
                known = (reasons == KEEP) & np.isin(facts.splits, splits) & np.isin(facts.keys, barred)
                reasons[known] = why
        reasons[labels < 0] = UNKNOWN
        return Rows(facts.splits, labels, facts.keys, facts.identities, reasons)

    def _dropped(self, rows: Rows) -> dict[str, int]:
        """Rows that were dropped by reason."""
        sizes = np.bincount(rows.reasons, minlength=len(REASONS)).tolist()
        without = {KEEP}
        without |= {TESTED, TRAINED} if self.demands is None else set()
        without |= {CORRECTED} if self.applied is None else set()
        late = {name: size for code, (name, size) in enumerate(zip(REASONS, sizes, strict=True)) if code not in without}
        return {UNREADABLE: self.unreadable.total(), UNLABELLED: self.unlabelled} | late

    def _write(self, rows: Rows, source_rows: Int64s, places: Int64s) -> None:
        """Insert the rows in order, in a thread, so that SQLite works while the next partition is sorted."""
        facts = (rows.labels, source_rows, rows.keys.view(np.int64))  # SQLite has no unsigned numbers
        with ThreadPoolExecutor(1) as writer:
            before = writer.submit(_insert, self.connection, ())
            for numbers, texts, raws in self.partitions.in_order(places):
                columns = [*(fact[numbers] for fact in facts), texts, raws]
                self.checksums.add(dict(zip(CHECKED, columns, strict=True)))
                before.result()
                before = writer.submit(_insert, self.connection, columns)
            before.result()

    def _labellings(self) -> tuple[Labelling, ...]:
        values, demands = [intake.values for intake in self.intakes], self.demands
        if demands is None or (
            demands.may_differ and not all(all_mean(one, self.data, demands.labels, demands.coding) for one in values)
        ):
            return resolve(values, self.data)
        return tuple(labelling_of(one, self.data, demands.labels, coding=demands.coding) for one in values)

    def _check_enough(self, counts: Int64s, labels: tuple[str, ...], dropped: dict[str, int]) -> None:
        kept = int(counts.sum())
        lost = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
        if self.demands is not None:
            self._check_demands(counts, labels, dropped)
        section = "data" if self.demands is None else "finetune"
        if kept == 0:
            raise DataError(f"no row is left of {self.rows_read:,} ({lost})", hint="Is it the right text column?")
        if kept < len(labels):
            raise DataError(f"{kept} usable rows are fewer than the {len(labels)} classes ({lost or 'none left out'})")
        for label, name in enumerate(labels):
            if not counts[split.TRAIN, label]:
                raise DataError(
                    f"the training split has no row of class {name!r}; {kept:,} usable rows are too few",
                    hint=f"Add rows, or lower {section}.test_size and {section}.valid_size.",
                )
        for code, name in enumerate(split.SPLITS):
            if not counts[code].any():
                raise DataError(
                    f"the {name} split is empty; {kept:,} usable rows are too few for it",
                    hint=f"Add rows, or reserve more of them: --set {section}.valid_size=0.3 "
                    f"--set {section}.test_size=0.3",
                )

    def _check_demands(self, counts: Int64s, labels: tuple[str, ...], dropped: dict[str, int]) -> None:
        if dropped.get(REASONS[TESTED]) and not counts[split.TRAIN].any():
            raise DataError(
                f"nothing is left to train on: {dropped[REASONS[TESTED]]:,} of {self.rows_read:,} rows contain texts "
                "that the model is tested on",
                hint="Add texts that are not in the test split of paths.data_db.",
            )
        sizes = counts.sum(axis=0)
        missing = [name for name, size in zip(labels, sizes.tolist(), strict=True) if not size]
        if missing and sizes.any():
            there = ", ".join(f"{size:,} {name}" for name, size in zip(labels, sizes.tolist(), strict=True) if size)
            raise LabelError(
                f"the data have no usable row of class {', '.join(missing)}, which the model has; they have {there}",
                hint="A model unlearns a class that is missing from further training: add rows of it, such as some "
                "that the model was trained on.",
            )

    def _info(
        self, labels: tuple[str, ...], counts: Int64s, dropped: dict[str, int], fingerprint: str
    ) -> dict[str, Any]:
        splits: dict[str, Any] = {}
        first = 1
        for code, name in enumerate(split.SPLITS):
            classes = dict(zip(labels, counts[code].tolist(), strict=True))
            splits[name] = {"first": first, "rows": sum(classes.values()), "classes": classes}
            first += splits[name]["rows"]
        columns = self.intakes[0].columns
        return {
            "labels": list(labels),
            "normalizer": self.plan.normalizer.id,
            "split_fingerprint": fingerprint,
            "split_seed": self.data.split_seed,
            "split_key_version": self.data.split_key_version,
            "source": self.plan.name,
            "text_column": columns.text,
            "label_coding": {value: label for one in reversed(self.labellings) for value, label in one.coding.items()},
            "splits": splits,
            "report": self._report(splits, dropped),
        }

    def _split_fingerprint(self, facts: Facts, rows: Rows) -> str:
        data, sizes = self.data, f"{self.data.test_size!r}/{self.data.valid_size!r}"
        if self.official:
            sizes = "official" if self.has_valid else f"official/{data.valid_size!r}"
        no_text = split.hash_raw([""], data.split_seed, version=data.split_key_version)[1]
        used = (rows.labels >= 0) & (rows.keys != no_text)
        return split.fingerprint(
            rows.splits[used], facts.split_hashes[used], rows.keys[used],
            split_seed=data.split_seed, sizes=sizes, version=data.split_key_version,
        )  # fmt: skip

    def _report(self, splits: dict[str, Any], dropped: dict[str, int]) -> dict[str, Any]:
        kept = sum(item["rows"] for item in splits.values())
        by_class = {name: splits[name]["classes"] for name in reversed(split.SPLITS)}
        shares = {name: {label: n / max(sum(c.values()), 1) for label, n in c.items()} for name, c in by_class.items()}
        return {
            "source": [intake.part.source.name for intake in self.intakes],
            "columns": [
                {"text": item.columns.text, "label": item.columns.label, "raw": item.columns.raw}
                for item in self.intakes
            ],
            "rows_read": self.rows_read,
            "rows_kept": kept,
            "dropped": dropped,
            "unreadable": dict(self.unreadable),
            "splits": by_class,
            "shares": shares,
            "warnings": [*self._warnings(), *self._of_labels(by_class)],
        }

    def _of_labels(self, by_class: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Warnings about labels, the text column of a model, and splits with one class."""
        found = [note for labelling in self.labellings for note in (labelling.merged, labelling.missing)]
        if self.demands is not None:
            found += [
                text_note(item.part.source.columns, item.columns.text, self.demands.text_column,
                          source=item.part.source.name)
                for item in self.intakes
            ]  # fmt: skip
        for name, rows in by_class.items():
            if name != "train" and len(there := [label for label, number in rows.items() if number]) == 1:
                found.append(f"the {name} split has only one class, {there[0]!r}: figures on it say little")
        return list(dict.fromkeys(filter(None, found)))

    def _warnings(self) -> list[str]:
        columns = self.intakes[0].columns
        if self.sampled < _NEGATION_ROWS or self.negated >= _LEAST_NEGATION * self.sampled:
            return []
        share = f"{100 * self.negated / self.sampled:.1f} %"
        advice = f" Train on the raw column: --text-column {shlex.quote(columns.raw)}."
        return [
            f"column {columns.text!r} has almost no negation: only {share} of the checked texts contain 'no' or "
            "'not'. Stopwords seem to have been removed, and with them the words that reverse a sentiment (unless the "
            f"texts are not English).{advice if columns.raw != columns.text else ''}"
        ]


def _insert(connection: sqlite3.Connection, columns: Sequence[npt.NDArray[Any]]) -> None:
    """Append rows, which SQLite numbers; many per statement, which is a third faster than one."""
    table = np.empty((len(columns[0]) if columns else 0, len(CHECKED)), dtype=object)
    for place, column in enumerate(columns):
        table[:, place] = column
    marks = "(NULL" + ", ?" * len(CHECKED) + ")"
    for start in range(0, len(table), _INSERTED_AT_ONCE):
        some = table[start : start + _INSERTED_AT_ONCE]
        values = ", ".join([marks] * len(some))
        connection.execute(f"INSERT INTO examples VALUES {values}", some.ravel().tolist())


_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE examples (
    id INTEGER PRIMARY KEY, label INTEGER NOT NULL, source_row INTEGER NOT NULL, key_hash INTEGER NOT NULL,
    text TEXT NOT NULL, raw TEXT
);
"""


# --- aside, then swapped in ----------------------------------------------------------------------------------------


def check_writable(target: Path) -> None:
    """Check that a database can be replaced.

    Raises:
        DatabaseError: the file is not a prepared database, or is read-only.
        OutputError: its folder cannot be created.
    """
    check_ours(target)
    with written(target, other=_ANOTHER):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.stat().st_mode & stat.S_IWUSR:
            raise DatabaseError(
                f"{target} is read-only, so it is not replaced", hint="chmod u+w it, or name another paths.data_db."
            )


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[sqlite3.Connection]:
    """A new database, put in place of the target if the block ends well; another run that builds it waits."""
    with (
        written(target, other=_ANOTHER),
        atomic_file(target, flush=True) as new,
        contextlib.closing(_open_aside(new)) as connection,
    ):
        yield connection
        connection.commit()


def _open_aside(new: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(new, check_same_thread=False)
    try:
        # Nobody else reads this file and a crash throws it away: neither locks nor journal nor sync are needed.
        for setting in ("page_size = 16384", "locking_mode = EXCLUSIVE", "journal_mode = OFF", "synchronous = OFF"):
            connection.execute(f"PRAGMA {setting}").fetchall()
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
