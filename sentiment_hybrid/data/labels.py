"""What label values mean: when two labels are the same, and the usual meaning of names and numbers."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.errors import LabelError, some

_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,14})(?:\.0*)?(?:[eE][+]?0+)?")
_ZERO_WIDTH = re.compile("[\u200b-\u200f\u2060\ufeff]")
_NAMES = {"neg": "negative", "negative": "negative", "neu": "neutral", "neutral": "neutral", "pos": "positive",
          "positive": "positive"}  # fmt: skip
#: How programs write a missing value.
_MISSING = {"nan", "none", "null", "na", "n/a", "<na>", "nat", "?", "-", "undefined"}
_ORDER = ("negative", "neutral", "positive")
#: Sets of integers with a known meaning; supersets come before subsets.
_SCHEMES: dict[frozenset[int], tuple[str, ...]] = {
    frozenset({0, 2, 4}): _ORDER,
    frozenset({0, 1, 2}): _ORDER,
    frozenset({-1, 0, 1}): _ORDER,
    frozenset({0, 4}): ("negative", "positive"),
    frozenset({-1, 1}): ("negative", "positive"),
    frozenset({0, 1}): ("negative", "positive"),
}


# --- identity --------------------------------------------------------------------------------------------------------


def canonical(value: str) -> str:
    """What identifies a label: trimmed, NFC, no zero-width characters, ``4.0`` as ``4``; ``01`` and ``1_0`` stay."""
    if not value.isascii():
        value = unicodedata.normalize("NFC", _ZERO_WIDTH.sub("", value))
    value = value.strip()
    number = _whole(value)
    return value if number is None else str(number)


def _whole(value: str) -> int | None:
    """The whole number that a value such as 4, -1 or 4.0 stands for; None for other values, such as 01 and 1_0."""
    return int(float(value)) if _WHOLE.fullmatch(value) else None


def finder(labels: Iterable[str]) -> Callable[[str], int | None]:
    """A function that finds the index of a label by name: exactly, else ignoring case if that is unambiguous."""
    exact: dict[str, int] = {}
    for index, label in enumerate(labels):
        exact.setdefault(canonical(label), index)
    alike = Counter(name.casefold() for name in exact)
    folded = {name.casefold(): index for name, index in exact.items() if alike[name.casefold()] == 1}

    def find(name: str) -> int | None:
        name = canonical(name)
        return exact.get(name, folded.get(name.casefold()))

    return find


def case_variants(names: Iterable[str]) -> list[list[str]]:
    """Groups of labels that differ by case alone."""
    groups: dict[str, set[str]] = {}
    for name in map(canonical, names):
        groups.setdefault(name.casefold(), set()).add(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


# --- the values of a source ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelling:
    """The ordered labels, and the index of each value; a value that is not in ``codes`` is unknown."""

    labels: tuple[str, ...]
    codes: Mapping[str, int]

    @property
    def coding(self) -> dict[str, str]:
        """Value in canonical spelling -> label."""
        return {canonical(value): self.labels[code] for value, code in self.codes.items()}

    @property
    def merged(self) -> str:
        """A note about values that differ by case alone and were merged into one label; empty if there are none."""
        groups = [
            f"{' and '.join(map(repr, group))} as {self.labels[found.pop()]!r}"
            for group in case_variants(self.codes)
            if len(found := {code for value, code in self.codes.items() if canonical(value) in group}) == 1
        ]
        return f"labels that differ by case alone are read as one: {'; '.join(groups)}" if groups else ""

    @property
    def missing(self) -> str:
        """A note about classes that are called as missing values are; empty if there are none."""
        if not (found := [label for label in self.labels if label.casefold() in _MISSING]):
            return ""
        others = " ".join(
            f"--label-map {shlex.quote(f'{label}={label}')}" for label in self.labels if label not in found
        )
        return (
            f"{' and '.join(map(repr, found))} in the label column {'is a class' if len(found) == 1 else 'are classes'}"
            f"; to leave such rows out, add --set data.unknown_labels=drop {others}"
        )


class LabelValues:
    """The distinct values of one source's label column, each with the row where it was first seen.

    ``place`` describes the location of a row in that source; ``most`` is how many values a label column may have.
    """

    def __init__(
        self, source: str, column: str, *, place: Callable[[int], str] = "row {}".format, most: int = 50
    ) -> None:
        self.source = source
        self.column = column
        self.place = place
        self.most = most
        self.first_rows: dict[str, int] = {}

    @property
    def items(self) -> dict[str, str]:
        """Each value that is not empty, and what identifies it."""
        return {value: item for value in self.first_rows if (item := canonical(value))}

    @property
    def shown(self) -> str:
        """What the column contains, for messages."""
        return some(sorted({repr(item[:40]) for item in self.items.values()})) or "nothing"

    def unclear(self, problem: str) -> LabelError:
        """The error for a column whose values may mean several things."""
        return LabelError(
            f"{self.source}: column {self.column!r} contains {self.shown}, {problem}",
            hint="Say what each value means with --label-map VALUE=LABEL (data.label_map).",
        )

    def add(self, value: str, row: int) -> None:
        """Record a new value. Raises LabelError if there are too many for a label column."""
        self.first_rows[value] = row
        if len(self.first_rows) > self.most:
            shown = ", ".join(repr(item[:40]) for item in list(self.first_rows)[:5])
            raise LabelError(
                f"{self.source}: column {self.column!r} is probably not a label column: it has more than {self.most} "
                f"different values, such as {shown}",
                hint="Choose another column with --label-column (data.label_column), or, if these are the classes, "
                f"allow more with --set data.max_labels={20 * self.most}.",
            )


def resolve(sources: Sequence[LabelValues], data: Data) -> tuple[Labelling, ...]:
    """Map the values of each source to labels, which are the same for all sources.

    All sources are interpreted together first; if that leaves unknown values, each source is interpreted by itself
    (a training file may use 0, 1, 2 and the official test negative, neutral, positive).

    Raises:
        LabelError: a value is unknown (unless ``data.unknown_labels`` is drop), there is only one class, or labels
            differ by case alone (unless ``data.label_case`` is merge).
    """
    labelling = _labelling({value: item for one in reversed(sources) for value, item in one.items.items()}, data)
    if data.label_map is None and (alike := case_variants(labelling.labels)):
        raise _differ_by_case(alike[0], sources)
    if all(_is_complete(labelling, values) for values in sources):
        return (labelling,) * len(sources)
    apart = tuple(_labelling(values.items, data) for values in sources)
    agree = len(sources) > 1 and len({item.labels for item in apart}) == 1
    if agree and (data.unknown_labels == "drop" or all(map(_is_complete, apart, sources))):
        return apart
    if data.unknown_labels == "error":
        raise _unresolved(sources, labelling)
    if len(labelling.labels) < 2:
        raise _one_class(sources[0])
    return (labelling,) * len(sources)


def labelling_of(
    values: LabelValues, data: Data, labels: Sequence[str], *, coding: Mapping[str, str] | None = None
) -> Labelling:
    """The values of a source as labels of a model.

    A value is what it meant in the model's training (``coding``), unless ``data.label_map`` has values of this source;
    else the label of the same spelling, else what the map says, else the usual meaning of names and numbers. Numbers
    that a map omits are unknown. All values are interpreted together: 1 next to 0 is positive, but 1 next to 0 and 2 is
    neutral. A single class is accepted if all schemes with these labels agree on it.

    Raises:
        LabelError: a value is none of the labels, unless ``data.unknown_labels`` is drop; shows both lists. Numbers
            seem to have another meaning than in training. Values differ by case alone, unless ``data.label_case`` is
            merge, or the model or the map knows them.
    """
    labelling = Labelling(tuple(labels), _codes(values, data, labels, coding or {}))
    strangers = [value for value in values.first_rows if value not in labelling.codes]
    if strangers and data.unknown_labels == "error":
        raise _unknown(
            [(value, values) for value in strangers],
            f"it is not one of the labels of the model: {', '.join(labels)}; the column contains {values.shown}",
        )
    if data.label_map is None:
        _check_certain(strangers, values, labels)
    known = {*map(canonical, labels), *(coding or {}), *map(canonical, data.label_map or {})}
    for alike in case_variants(labelling.codes):
        if data.label_case == "error" and alike[0].casefold() not in _NAMES and not known.issuperset(alike):
            raise _differ_by_case(alike, [values])
    return labelling


def all_mean(values: LabelValues, data: Data, labels: Sequence[str], coding: Mapping[str, str] | None) -> bool:
    """Whether every value of a source stands for one of these labels, and every label occurs."""
    try:
        codes = labelling_of(values, data, labels, coding=coding).codes
    except LabelError:
        return False
    return set(codes.values()) == set(range(len(labels))) and all(
        value in codes for value in values.first_rows if canonical(value)
    )


def _codes(values: LabelValues, data: Data, labels: Sequence[str], coding: Mapping[str, str]) -> dict[str, int]:
    items, find = values.items, finder(labels)
    mapped = {} if data.label_map is None else _by_map(items.values(), data.label_map)[1]
    in_training, meanings = finder(coding), list(coding.values())
    trained = {item: meanings[at] for item in items.values() if not mapped and (at := in_training(item)) is not None}
    others = {item for item in items.values() if item not in trained and find(item) is None}
    meaning = mapped or trained | _usually_beside(others, trained, values, coding, labels)
    codes = {}
    for value, item in items.items():
        place = None if item in trained else find(item)
        if place is None and item in meaning:
            place = find(meaning[item])
        if place is not None:
            codes[value] = place
    return codes


def _usually_beside(
    others: Collection[str],
    trained: Mapping[str, str],
    values: LabelValues,
    coding: Mapping[str, str],
    labels: Sequence[str],
) -> dict[str, str]:
    """The usual meaning of values beside those that were trained on. Raises LabelError if it contradicts these."""
    guess = _usually({*others, *trained}, {label.casefold() for label in labels})
    if any(_whole(item) is not None for item in others):
        for item, label in trained.items():
            if _whole(item) is not None and guess.get(item, label).casefold() != label.casefold():
                raise values.unclear(f"whose usual meaning is not that of the model's training, {described(coding)}")
    return {item: guess[item] for item in others if item in guess}


def _check_certain(strangers: Iterable[str], values: LabelValues, labels: Sequence[str]) -> None:
    """Raises LabelError for a number with several usual meanings: its rows are no rows of other labels, to be dropped.

    0 and 2 are negative and positive next to 1, but negative and neutral next to 4.
    """
    possible = _by_schemes(_numbers(values.items.values()), {label.casefold() for label in labels})
    for item in map(canonical, strangers):
        if len(means := possible.get(item, [])) > 1:
            raise values.unclear(f"and {item} may stand for {' or '.join(means)}")


def _usually(items: Collection[str], labels: Collection[str]) -> dict[str, str]:
    """The usual meaning of names, and of numbers given a set of labels."""
    names = {item: _NAMES[item.casefold()] for item in items if item.casefold() in _NAMES}
    numbers = _numbers(items)
    usual_labels, usual = _by_numbers(numbers)
    if set(usual_labels) & set(labels):
        return names | usual
    return names | {item: means[0] for item, means in _by_schemes(numbers, labels).items() if len(means) == 1}


def _numbers(items: Iterable[str]) -> dict[str, int]:
    return {item: number for item in items if (number := _whole(item)) is not None}


def _by_schemes(numbers: Mapping[str, int], labels: Collection[str]) -> dict[str, list[str]]:
    """What each number means in the schemes that have all of them and exactly these labels."""
    fitting = [
        dict(zip(sorted(scheme), scheme_labels, strict=True))
        for scheme, scheme_labels in _SCHEMES.items()
        if scheme >= set(numbers.values()) and set(scheme_labels) == set(labels)
    ]
    return {item: sorted({meaning[number] for meaning in fitting}) for item, number in numbers.items()}


def _is_complete(labelling: Labelling, values: LabelValues) -> bool:
    return len(labelling.labels) >= 2 and all(value in labelling.codes for value in values.first_rows)


# --- the usual meaning -----------------------------------------------------------------------------------------------

#: Labels in their order, and what each known value means.
_Meaning = tuple[tuple[str, ...], dict[str, str]]


def _labelling(values: Mapping[str, str], data: Data) -> Labelling:
    labels, meaning = _meaning({*values.values()}, data)
    return Labelling(labels, {value: labels.index(meaning[item]) for value, item in values.items() if item in meaning})


def _meaning(items: Collection[str], data: Data) -> _Meaning:
    if data.label_map is not None:
        return _by_map(items, data.label_map)
    named = {item: _NAMES[item.casefold()] for item in items if item.casefold() in _NAMES}
    if len(set(named.values())) >= 2:
        return tuple(name for name in _ORDER if name in named.values()), named
    numbers = _numbers(items)
    if numbers and (len(numbers) >= 2 or len(numbers) == len(items)):
        return _by_numbers(numbers)
    if len(items) < 2 or numbers:
        return (), {}
    # Capitals sort first, so that the spelling with the fewest of them names a merged label.
    merged = {name: group[-1] for group in case_variants(items) for name in group if data.label_case == "merge"}
    meaning = {name: merged.get(name, name) for name in items}
    return tuple(sorted(set(meaning.values()))), meaning


def _by_map(items: Iterable[str], label_map: Mapping[str, str]) -> _Meaning:
    find, meanings = finder(label_map), list(map(canonical, label_map.values()))
    meaning = {item: meanings[place] for item in items if (place := find(item)) is not None}
    return tuple(dict.fromkeys(meanings)), meaning


def _by_numbers(numbers: Mapping[str, int]) -> _Meaning:
    present = set(numbers.values())
    consecutive = len(present) >= 2 and max(present) - min(present) + 1 == len(present)
    if consecutive and frozenset(present) not in _SCHEMES and min(present) >= 0:
        return tuple(map(str, sorted(present))), {item: item for item in numbers}
    for scheme, labels in _SCHEMES.items():
        if scheme <= present:
            meaning = dict(zip(sorted(scheme), labels, strict=True))
            return labels, {item: meaning[number] for item, number in numbers.items() if number in scheme}
    return (), {}


# --- errors ----------------------------------------------------------------------------------------------------------


def _unknown(strangers: Sequence[tuple[str, LabelValues]], known: str) -> LabelError:
    """The error for unknown values, which names the first."""
    value, source = strangers[0]
    more = f" (and {len(strangers) - 1} more unknown values)" if len(strangers) > 1 else ""
    return LabelError(
        f"{source.source}, {source.place(source.first_rows[value])}: "
        f"{f'unknown label {value[:60]!r}' if canonical(value) else 'empty label'}{more} in column {source.column!r}; "
        f"{known}",
        hint="Map values with --label-map VALUE=LABEL (data.label_map), or drop such rows with "
        "--set data.unknown_labels=drop.",
    )


def described(coding: Mapping[str, str]) -> str:
    """``0 = negative, 1 = positive``: values that are spelled otherwise than their labels."""
    return some([f"{value} = {label}" for value, label in sorted(coding.items()) if value != label])


def _differ_by_case(alike: Sequence[str], sources: Sequence[LabelValues]) -> LabelError:
    rows = [
        f"{name!r} ({item.source}, {item.place(row)})"
        for name in alike
        for item, row in [
            next((s, row) for s in sources for value, row in s.first_rows.items() if canonical(value) == name)
        ]
    ]
    example = " ".join(f"--label-map {shlex.quote(f'{name}={name}')}" for name in alike)
    return LabelError(
        f"labels in column {sources[0].column!r} differ by case alone: {', '.join(rows)}",
        hint=f"Make them one label with --set data.label_case=merge, or map every label, such as {example}.",
    )


def _unresolved(sources: Sequence[LabelValues], labelling: Labelling) -> LabelError:
    """Why the values of the sources have no labels."""
    given = sorted({item for values in sources for item in values.items.values()})
    unknown = [(value, item) for item in sources for value in item.first_rows if value not in labelling.codes]
    if len(given) == 1:
        return _one_class(sources[0])
    if not unknown or not labelling.labels:
        return _no_scheme(given, sources[0])
    return _unknown(unknown, f"the labels are {', '.join(labelling.labels)}")


def _one_class(source: LabelValues) -> LabelError:
    return LabelError(
        f"{source.source}: only one class: column {source.column!r} contains {source.shown}, but two or more are "
        "required",
        hint="Is it the right column (--label-column), and does the file contain all classes?",
    )


def _no_scheme(values: Sequence[str], source: LabelValues) -> LabelError:
    shown = some([repr(value[:40]) for value in values])
    ends = zip((values[0], values[-1]) if values else ("0", "2"), ("negative", "positive"), strict=True)
    example = " ".join(f"--label-map {shlex.quote(f'{value[:40]}={label}')}" for value, label in ends)
    return LabelError(
        f"{source.source}: the meaning of the labels {shown} in column {source.column!r} is unknown",
        hint=f"Map each of them with --label-map VALUE=LABEL, e.g. {example}.",
    )
