"""What people decided about single rows: which keep their label, which get another one, and which are left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data import splits as split
from sentiment_hybrid.data.labels import finder
from sentiment_hybrid.data.ordering import Rows
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.errors import DataError, LabelError, count

#: Columns of a file of flagged rows; ``correction`` is the one that people fill in.
COLUMNS = (
    "row", "text", "label", "likely_label", "correction", "why", "confidence", "detail", "split", "id",
)  # fmt: skip
_NEEDED = ("row", "label", "correction", "split", "id")
KEEP, DROP = "keep", "drop"
_TOLD = 3


class Decision(NamedTuple):
    """A decision about a row: its number in its source, its split, what it was, and a label, ``keep`` or ``drop``."""

    row: int
    split: str
    id: str
    label: str
    correction: str


@dataclass(frozen=True)
class Corrections:
    """The decisions in a file; ``undecided`` counts rows whose correction is empty."""

    path: Path
    decisions: tuple[Decision, ...]
    undecided: int

    def fingerprint(self) -> str:
        """Identifies the decisions, in whatever order; the name of the file and undecided rows do not count."""
        return hashlib.sha256(json.dumps(sorted(self.decisions)).encode()).hexdigest()


def row_id(raw: str) -> str:
    """Identifies the raw text of a row; the letter keeps spreadsheets from taking it for a number."""
    return f"t{hashlib.blake2b(raw.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}"


def read_corrections(path: Path) -> Corrections:
    """Read the decisions in a file that `senthy check` has written.

    Raises:
        SourceError: it cannot be read.
        DataError: it has other columns, a row number that is none, or two decisions about one row.
    """
    source = open_source(str(path), Data(), offline=True)
    missing = [name for name in _NEEDED if name not in source.columns]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}, so it does not contain corrections",
            hint="Fill in the column `correction` of the file that `senthy check` has written, and keep the others.",
        )
    found: dict[tuple[str, int], Decision] = {}
    undecided = 0
    for batch in source.batches(_NEEDED):
        for values in zip(*(batch.columns[name] for name in _NEEDED), strict=True):
            row, label, correction, part, name = ((value or "").strip() for value in values)
            if not correction:
                undecided += 1
                continue
            decision = Decision(_number(row, path), part, name, label, correction)
            if found.setdefault((part, decision.row), decision) != decision:
                raise DataError(f"{path} has two different corrections of row {row}", hint="Remove one of them.")
    return Corrections(path, tuple(found.values()), undecided)


def _number(row: str, path: Path) -> int:
    try:
        return int(float(row))
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: {row!r} is not a row number", hint="Leave the column `row` as it is.") from error


@dataclass
class _Met:
    """A decision whose row was read: the raw text, the text, and its place among the rows with a text, or None."""

    decision: Decision
    raw: str
    text: str
    place: int | None


@dataclass
class Applied:
    """Applies corrections to the rows of one or several sources, and remembers what they were.

    Args:
        corrections: the decisions.
        parts: the split code of each source, or [None] for a source that is split by hash.

    Raises:
        DataError: a split is none, or a row of a source has two different decisions.
    """

    corrections: Corrections
    parts: Sequence[int | None]
    #: Decisions of each kind; copies of corrected rows are not counted.
    kept: int = 0
    changed: int = 0
    dropped: int = 0
    #: Places of the rows that were left out, copies of the same text included.
    left_out: int = 0
    _wanted: list[dict[int, Decision]] = field(default_factory=list)
    _met: list[_Met] = field(default_factory=list)
    #: Place among the rows with a text, and the original label of those whose label has changed.
    _labels: dict[int, int] = field(default_factory=dict)
    _gone: list[tuple[_Met, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._wanted = [{} for _ in self.parts]
        for decision in self.corrections.decisions:
            first = self._wanted[self._part_of(decision)].setdefault(decision.row, decision)
            if first._replace(split=decision.split) != decision:  # two splits, but one source
                raise DataError(
                    f"{self.corrections.path} has two different corrections of row {decision.row} ({first.split}: "
                    f"{first.correction}, {decision.split}: {decision.correction})",
                    hint="Remove one of them.",
                )

    def _part_of(self, decision: Decision) -> int:
        """The source of a row. Raises DataError for a split that is none."""
        if decision.split not in split.SPLITS:
            raise DataError(
                f"{self.corrections.path}: {decision.split!r} is not a split", hint="Leave the column `split` as it is."
            )
        code = split.SPLITS.index(decision.split)
        if self.parts == [None]:
            return 0
        # Validation rows without a source of their own are drawn from training rows.
        return self.parts.index(code if code in self.parts else split.TRAIN)

    def meet(
        self,
        part: int,
        rows: Sequence[int],
        text_of: Callable[[int], tuple[str, str]],
        kept: npt.NDArray[np.bool_],
        first: int,
    ) -> None:
        """Take note of the corrected rows in a batch.

        Args:
            part: the number of their source.
            rows: numbers in the source.
            text_of: raw text and text by place in the batch.
            kept: (N,) whether a row has a text.
            first: number of rows with a text before this batch.
        """
        wanted = self._wanted[part]
        if not wanted:
            return
        numbers = np.cumsum(kept) + first - 1
        for at in np.flatnonzero(np.isin(np.asarray(rows), list(wanted))).tolist():
            raw, text = text_of(at)
            self._met.append(_Met(wanted.pop(int(rows[at])), raw, text, int(numbers[at]) if kept[at] else None))

    def apply(self, rows: Rows, labels: Sequence[str], *, copies: bool) -> None:
        """Change ``rows.labels`` in place; -1 leaves a row out.

        Args:
            rows: all rows with a text.
            labels: of the data.
            copies: rows with the same text and label as a corrected one are corrected too: without that, a copy would
                replace a row that was left out, and contradict one with a new label.

        Raises:
            DataError: rows have changed since, or are of other data; with ``copies``, copies are corrected differently.
            LabelError: a correction is no label of the data.
        """
        find = finder(labels)
        self._check(rows, find)
        unknown = [one for one in self.corrections.decisions if _code(one.correction, find) is None]
        if unknown:
            raise LabelError(
                f"{self.corrections.path}: the correction of row {unknown[0].row} is {unknown[0].correction!r}, which "
                "is not a label of the data",
                hint=f"Enter {', '.join(labels)}, keep or drop; or nothing.",
            )
        if copies:
            self._check_copies(rows, find)
        twins = _Twins(rows) if copies else None
        labels_before = rows.labels.copy()
        for met in self._met:
            code = _code(met.decision.correction, find)
            assert met.place is not None
            assert code is not None
            # A row may have been corrected as the copy of another one.
            before = int(labels_before[met.place])
            if code in (_KEPT, before):
                self.kept += 1
                continue
            places = [met.place] if twins is None else twins.of(met.place)
            self._change(rows, met, places, code=code, before=before)

    def _change(self, rows: Rows, met: _Met, places: list[int], *, code: int, before: int) -> None:
        new = [at for at in places if rows.labels[at] != code]
        rows.labels[places] = code
        if code == _DROPPED:
            self.dropped += 1
            self.left_out += len(new)
            self._gone += [(met, before)] if new else []
        else:
            self.changed += 1
            self._labels |= dict.fromkeys(places, before)

    def _check_copies(self, rows: Rows, find: Callable[[str], int | None]) -> None:
        """Raises DataError if rows with the same text and label have different decisions."""
        firsts: dict[tuple[int, int], tuple[int | None, int]] = {}
        for met in self._met:
            label, code = int(rows.labels[met.place]), _code(met.decision.correction, find)
            code, row = label if code == _KEPT else code, met.decision.row
            first, other = firsts.setdefault((int(rows.texts[met.place]), label), (code, row))
            if first != code:
                raise DataError(
                    f"{self.corrections.path} has different corrections of rows {other} and {row}, which have the same "
                    "text and label",
                    hint="Give both the same correction, or keep copies apart with --set data.repeats=keep.",
                )

    def _check(self, rows: Rows, find: Callable[[str], int | None]) -> None:
        """Raises DataError unless every corrected row is what it was when the file was written."""
        changed = [f"row {one.row} is not there" for part in self._wanted for one in part.values()]
        same = 0
        for met in self._met:
            wrong = _difference(met, rows, find)
            same += not wrong
            changed += [f"row {met.decision.row} {wrong}"] if wrong else []
        if not changed:
            return
        path = self.corrections.path
        told = "; ".join(changed[:_TOLD]) + (f"; and {len(changed) - _TOLD:,} more" if len(changed) > _TOLD else "")
        if not same:
            raise DataError(
                f"{path} contains corrections of other data: {told}",
                hint="Give the corrections that were made for this source, or leave out --corrections.",
            )
        raise DataError(
            f"{count(len(changed), 'corrected row')} of {path} changed since the file was written: {told}",
            hint="Empty `correction` in these rows, or restore the source; `senthy check` flags rows as they are now.",
        )

    def facts(self, rows: Rows, positions: npt.NDArray[np.int64], clean: Callable[[str], str]) -> dict[str, Any]:
        """What a database keeps of corrections: numbers, and what the labels of its rows were, by position."""
        before = {int(positions[at]): old for at, old in self._labels.items() if positions[at]}
        tested = [
            [met.decision.row, old, clean(met.text), met.raw]
            for met, old in self._gone
            if rows.splits[met.place] == split.TEST
        ]
        return {
            "kept": self.kept,
            "changed": self.changed,
            "dropped": self.dropped,
            "original_labels": [[at, before[at]] for at in sorted(before)],
            "dropped_from_test": sorted(tested),
        }


_KEPT, _DROPPED = -2, -1


def _code(correction: str, find: Callable[[str], int | None]) -> int | None:
    """A label's index, `_KEPT`, `_DROPPED`, or None; a label that is called keep or drop is a label."""
    code = find(correction)
    return {KEEP: _KEPT, DROP: _DROPPED}.get(correction.casefold()) if code is None else code


def _difference(met: _Met, rows: Rows, find: Callable[[str], int | None]) -> str:
    if row_id(met.raw) != met.decision.id:
        return "has another text"
    if met.place is None:
        return "is empty after cleaning"
    if (found := find(met.decision.label)) is None or found != int(rows.labels[met.place]):
        return f"has not the label {met.decision.label!r}"
    return ""


class _Twins:
    """Rows by text and label."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._labels = rows.labels.copy()
        self._order = np.argsort(rows.texts, kind="stable")
        self._sorted = rows.texts[self._order]

    def of(self, place: int) -> list[int]:
        """Rows with the same text and the same original label, this one included."""
        text = self._rows.texts[place]
        start, end = (np.searchsorted(self._sorted, text, side=side) for side in ("left", "right"))
        alike = self._order[start:end]
        return [int(at) for at in alike if self._labels[at] == self._labels[place]]
