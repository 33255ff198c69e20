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
_SHOWN = 3  # rows in a message


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
        DataError: it has other columns, an invalid row number, or two decisions about one row.
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
class _Found:
    """A decision and its row: the raw text, the text, and its place among the rows with a text; None without one."""

    decision: Decision
    raw: str
    text: str
    place: int | None


@dataclass
class Applied:
    """Applies corrections to the rows of one or several sources, and keeps the original labels.

    Args:
        parts: the split code of each source, or [None] for a source that is split by hash.

    Raises:
        DataError: an unknown split, or a row of a source has two different decisions.
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
    _found: list[_Found] = field(default_factory=list)
    #: Original labels of the rows whose label has changed, by place among the rows with a text.
    _labels: dict[int, int] = field(default_factory=dict)
    _gone: list[tuple[_Found, int]] = field(default_factory=list)

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
        """The number of a row's source. Raises DataError for an unknown split."""
        if decision.split not in split.SPLITS:
            raise DataError(
                f"{self.corrections.path}: {decision.split!r} is not a split", hint="Leave the column `split` as it is."
            )
        code = split.SPLITS.index(decision.split)
        if self.parts == [None]:
            return 0
        # Validation rows without a source of their own are drawn from training rows.
        return self.parts.index(code if code in self.parts else split.TRAIN)

    def find(
        self,
        part: int,
        rows: Sequence[int],
        text_of: Callable[[int], tuple[str, str]],
        kept: npt.NDArray[np.bool_],
        first: int,
    ) -> None:
        """Find the corrected rows in a batch, for `apply`.

        Args:
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
            self._found.append(_Found(wanted.pop(int(rows[at])), raw, text, int(numbers[at]) if kept[at] else None))

    def apply(self, rows: Rows, labels: Sequence[str], *, copies: bool) -> None:
        """Change ``rows.labels`` in place; -1 leaves a row out.

        Args:
            copies: rows with the same text and label as a corrected one are corrected too: otherwise, a copy would
                replace a row that was left out, and contradict one with a new label.

        Raises:
            DataError: rows have changed since, or the corrections are of other data; with ``copies``, copies of a row
                have different corrections.
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
        for one in self._found:
            code = _code(one.decision.correction, find)
            assert one.place is not None
            assert code is not None
            # A row may have been corrected as the copy of another one.
            before = int(labels_before[one.place])
            if code in (_KEPT, before):
                self.kept += 1
                continue
            places = [one.place] if twins is None else twins.of(one.place)
            self._change(rows, one, places, code=code, before=before)

    def _change(self, rows: Rows, one: _Found, places: list[int], *, code: int, before: int) -> None:
        new = [at for at in places if rows.labels[at] != code]
        rows.labels[places] = code
        if code == _DROPPED:
            self.dropped += 1
            self.left_out += len(new)
            self._gone += [(one, before)] if new else []
        else:
            self.changed += 1
            self._labels |= dict.fromkeys(places, before)

    def _check_copies(self, rows: Rows, find: Callable[[str], int | None]) -> None:
        """Raises DataError if rows with the same text and label have different decisions."""
        firsts: dict[tuple[int, int], tuple[int | None, int]] = {}
        for one in self._found:
            label, code = int(rows.labels[one.place]), _code(one.decision.correction, find)
            code, row = label if code == _KEPT else code, one.decision.row
            first, other = firsts.setdefault((int(rows.texts[one.place]), label), (code, row))
            if first != code:
                raise DataError(
                    f"{self.corrections.path} has different corrections of rows {other} and {row}, which have the same "
                    "text and label",
                    hint="Give both the same correction, or keep copies apart with --set data.repeats=keep.",
                )

    def _check(self, rows: Rows, find: Callable[[str], int | None]) -> None:
        """Raises DataError unless every corrected row is the same as when the file was written."""
        changed = [f"row {one.row} is missing" for part in self._wanted for one in part.values()]
        same = 0
        for one in self._found:
            wrong = _difference(one, rows, find)
            same += not wrong
            changed += [f"row {one.decision.row} {wrong}"] if wrong else []
        if not changed:
            return
        path = self.corrections.path
        more = f"; and {len(changed) - _SHOWN:,} more" if len(changed) > _SHOWN else ""
        details = "; ".join(changed[:_SHOWN]) + more
        if not same:
            raise DataError(
                f"{path} contains corrections of other data: {details}",
                hint="Give the corrections that were made for this source, or leave out --corrections.",
            )
        raise DataError(
            f"{count(len(changed), 'corrected row')} of {path} changed since the file was written: {details}",
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
            "kept": self.kept,
            "changed": self.changed,
            "dropped": self.dropped,
            "original_labels": [[at, before[at]] for at in sorted(before)],
            "dropped_from_test": sorted(tested),
        }


_KEPT, _DROPPED = -2, -1


def _code(correction: str, find: Callable[[str], int | None]) -> int | None:
    """A label's index, `_KEPT`, `_DROPPED`, or None; a label named keep or drop takes precedence."""
    code = find(correction)
    return {KEEP: _KEPT, DROP: _DROPPED}.get(correction.casefold()) if code is None else code


def _difference(one: _Found, rows: Rows, find: Callable[[str], int | None]) -> str:
    if row_id(one.raw) != one.decision.id:
        return "has another text"
    if one.place is None:
        return "is empty after cleaning"
    if (found := find(one.decision.label)) is None or found != int(rows.labels[one.place]):
        return f"does not have the label {one.decision.label!r}"
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
