"""What people decided about single rows: which keep their label, which get another one, and which are left out."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data import splits as split
from sentiment_hybrid.data.labels import finder
from sentiment_hybrid.data.ordering import CLEANED_AWAY, CORRECTED, EMPTY, Rows
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.errors import DataError, LabelError, count, some

#: Columns of a file of flagged rows; ``correction`` is the one that people fill in.
COLUMNS = (
    "row", "text", "label", "likely_label", "correction", "why", "confidence", "detail", "split", "id",
)  # fmt: skip
_NEEDED = ("row", "label", "correction", "split", "id")
KEEP, DROP = "keep", "drop"


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
        """Identifies the decisions, regardless of their order, the name of the file, and undecided rows."""
        return hashlib.sha256(json.dumps(sorted(self.decisions)).encode()).hexdigest()


def row_id(raw: str) -> str:
    """Identifies the raw text of a row; it starts with a letter so that spreadsheets do not read it as a number."""
    return f"t{hashlib.blake2b(raw.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}"


def read_corrections(path: Path) -> Corrections:
    """Read the decisions in a file that `senthy check` has written.

    Raises:
        SourceError: it cannot be read.
        DataError: it has other columns, or an invalid row number.
    """
    source = open_source(str(path), Data(), offline=True)
    missing = [name for name in _NEEDED if name not in source.columns]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}, so it does not contain corrections",
            hint="Fill in the column `correction` of the file that `senthy check` has written, and keep the others.",
        )
    found: list[Decision] = []
    undecided = 0
    for batch in source.batches(_NEEDED):
        for values in zip(*(batch.columns[name] for name in _NEEDED), strict=True):
            row, label, correction, part, name = ((value or "").strip() for value in values)
            if correction:
                found.append(Decision(_number(row, path), part, name, label, correction))
            else:
                undecided += 1
    return Corrections(path, tuple(dict.fromkeys(found)), undecided)


def _number(row: str, path: Path) -> int:
    try:
        return int(float(row))
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: {row!r} is not a row number", hint="Leave the column `row` as it is.") from error


@dataclass(frozen=True)
class _Found:
    """A decision and its row: the raw text, the text, and its place among all rows."""

    decision: Decision
    raw: str
    text: str
    place: int


class Applied:
    """Applies corrections to the rows of one or several sources, and keeps the original labels.

    Args:
        parts: the split code of each source, or [None] for a source that is split by hash.

    Raises:
        DataError: an unknown split, or a row of a source has two different decisions.
    """

    def __init__(self, corrections: Corrections, parts: Sequence[int | None]) -> None:
        self._path = corrections.path
        #: Decisions of each kind; copies of corrected rows are not counted.
        self._kept = self._changed = self._dropped = 0
        self._wanted: list[dict[int, Decision]] = [{} for _ in parts]
        self._found: list[_Found] = []
        #: Original labels of the rows whose label has changed, by place.
        self._labels: dict[int, int] = {}
        self._gone: list[tuple[_Found, int]] = []
        for decision in corrections.decisions:
            first = self._wanted[self._part_of(decision, parts)].setdefault(decision.row, decision)
            if first._replace(split=decision.split) != decision:  # two splits, but one source
                raise DataError(
                    f"{self._path} has two different corrections of row {decision.row} ({first.split}: "
                    f"{first.correction}, {decision.split}: {decision.correction})",
                    hint="Remove one of them.",
                )

    def _part_of(self, decision: Decision, parts: Sequence[int | None]) -> int:
        """The number of a row's source. Raises DataError for an unknown split."""
        if decision.split not in split.SPLITS:
            raise DataError(
                f"{self._path}: {decision.split!r} is not a split", hint="Leave the column `split` as it is."
            )
        code = split.SPLITS.index(decision.split)
        # Validation rows without a source of their own are drawn from training rows.
        return 0 if list(parts) == [None] else parts.index(code if code in parts else split.TRAIN)

    def find(
        self, part: int, rows: Sequence[int], raws: Sequence[str | None], texts: Sequence[str], *, first: int
    ) -> None:
        """Find the corrected rows in a batch, for `apply`; ``first`` is the place of its first row among all rows."""
        wanted = self._wanted[part]
        for at in np.flatnonzero(np.isin(np.asarray(rows), list(wanted))).tolist():
            decision = wanted.pop(int(rows[at]))
            self._found.append(_Found(decision, raws[at] or texts[at], texts[at], first + at))

    def apply(self, rows: Rows, labels: Sequence[str], *, copies: bool) -> None:
        """Change ``rows.labels`` and ``rows.reasons`` in place.

        Args:
            copies: rows with the same text and label as a corrected one are corrected too: otherwise, a copy would
                replace a row that was left out, and contradict one with a new label.

        Raises:
            DataError: rows have changed since, or the corrections are of other data; with ``copies``, copies of a row
                have different corrections.
            LabelError: a correction is no label of the data.
        """
        find = finder(labels)
        self._check_unchanged(rows, find)
        codes = [self._code(one.decision, find, labels) for one in self._found]
        before = rows.labels.copy()
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for at in np.flatnonzero(np.isin(rows.texts, rows.texts[[one.place for one in self._found]])).tolist():
            alike[int(rows.texts[at]), int(before[at])].append(at)
        decided: dict[tuple[int, int], tuple[int, int]] = {}
        for one, code in zip(self._found, codes, strict=True):
            same = int(rows.texts[one.place]), int(before[one.place])
            code = same[1] if code == _KEPT else code
            first, other = decided.setdefault(same, (code, one.decision.row))
            if copies and first != code:
                raise DataError(
                    f"{self._path} has different corrections of rows {other} and {one.decision.row}, which have the "
                    "same text and label",
                    hint="Give both the same correction, or keep copies apart with --set data.repeats=keep.",
                )
            self._change(rows, one, alike[same] if copies else [one.place], code=code, before=same[1])

    def _change(self, rows: Rows, one: _Found, places: list[int], *, code: int, before: int) -> None:
        if code == before:
            self._kept += 1
        elif code == _DROPPED:
            self._dropped += 1
            # A row may have been left out as the copy of another one.
            self._gone += [(one, before)] if (rows.labels[places] != code).any() else []
            rows.reasons[places] = CORRECTED
        else:
            self._changed += 1
            self._labels |= dict.fromkeys(places, before)
        rows.labels[places] = code

    def _code(self, decision: Decision, find: Callable[[str], int | None], labels: Sequence[str]) -> int:
        """A label's index, `_KEPT` or `_DROPPED`; a label named keep or drop takes precedence. Raises LabelError."""
        if (code := find(decision.correction)) is not None:
            return code
        if (word := decision.correction.casefold()) in (KEEP, DROP):
            return _KEPT if word == KEEP else _DROPPED
        raise LabelError(
            f"{self._path}: the correction of row {decision.row} is {decision.correction!r}, which is not a label of "
            "the data",
            hint=f"Enter {', '.join(labels)}, keep or drop; or nothing.",
        )

    def _check_unchanged(self, rows: Rows, find: Callable[[str], int | None]) -> None:
        """Raises DataError unless every corrected row is the same as when the file was written."""
        missing = [f"row {one.row} is missing" for part in self._wanted for one in part.values()]
        others = [f"row {one.decision.row} {wrong}" for one in self._found if (wrong := _difference(one, rows, find))]
        if not (changed := missing + others):
            return
        details = some(changed, 3)
        if len(others) == len(self._found):
            raise DataError(
                f"{self._path} contains corrections of other data: {details}",
                hint="Give the corrections that were made for this source, or leave out --corrections.",
            )
        raise DataError(
            f"{count(len(changed), 'corrected row')} of {self._path} changed since the file was written: {details}",
            hint="Empty `correction` in these rows, or restore the source; `senthy check` flags rows as they are now.",
        )

    def facts(self, rows: Rows, positions: npt.NDArray[np.int64], clean: Callable[[str], str]) -> dict[str, Any]:
        """What a database stores about corrections: counts, and the original labels of its rows, by position."""
        before = {int(positions[at]): old for at, old in self._labels.items() if positions[at]}
        tested = [
            [one.decision.row, old, clean(one.text), one.raw]
            for one, old in self._gone
            if rows.splits[one.place] == split.TEST
        ]
        return {
            "kept": self._kept,
            "changed": self._changed,
            "dropped": self._dropped,
            "original_labels": [[at, before[at]] for at in sorted(before)],
            "dropped_from_test": sorted(tested),
        }


_KEPT, _DROPPED = -2, -1


def _difference(one: _Found, rows: Rows, find: Callable[[str], int | None]) -> str:
    if row_id(one.raw) != one.decision.id:
        return "has another text"
    if rows.reasons[one.place] in (EMPTY, CLEANED_AWAY):
        return "is empty after cleaning"
    if (found := find(one.decision.label)) is None or found != int(rows.labels[one.place]):
        return f"does not have the label {one.decision.label!r}"
    return ""
