"""Finds the text and label columns and maps values to labels; unexpected values are errors with their row."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.errors import ColumnError, LabelError

TEXT_NAMES = (
    "text", "tweet", "tweet_text", "tweettext", "sentence", "review", "review_text", "reviewtext", "content", "comment",
    "message", "body", "post", "phrase", "utterance", "document", "sentimenttext",
)  # fmt: skip
CLEAN_NAMES = ("text_clean", "clean_text", "cleaned_text", "text_cleaned", "cleantext", "tweet_clean", "clean_tweet")
LABEL_NAMES = (
    "label", "labels", "sentiment", "target", "polarity", "class", "airline_sentiment", "sentiment_label", "category",
    "label_text", "rating", "stars", "emotion",
)  # fmt: skip
MOST_LABELS = 50

#: What a column may be called; a text or several fields look otherwise.
A_NAME = re.compile(r"[^\W\d]\w*(?:[ .-]\w+)?")
_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,14})(?:\.0*)?(?:[eE][+]?0+)?")
_CLEAN_SUFFIX = re.compile(r"[_ ]?clean(?:ed)?$|^clean(?:ed)?[_ ]?")
_NAMES = {"neg": "negative", "negative": "negative", "neu": "neutral", "neutral": "neutral", "pos": "positive",
          "positive": "positive"}  # fmt: skip
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


@dataclass(frozen=True)
class Columns:
    """Names of the chosen columns, as spelled in the source."""

    text: str
    label: str
    raw: str


def choose(columns: Sequence[str], data: Data, *, source: str) -> Columns:
    """The text, label and raw-text columns of a source.

    Raises:
        ColumnError: a column is missing or ambiguous; lists the columns found and suggests the nearest.
    """
    text = find_text(columns, data.text_column, source=source)
    if data.label_column is not None:
        label = _named(columns, data.label_column, setting="label_column", source=source)
    else:
        label = _detect(columns, LABEL_NAMES, (), what="label", source=source)
    if text == label:
        raise ColumnError(f"{source}: the text and the label cannot be the same column, {text!r}")
    if data.raw_text_column is not None:
        raw = _named(columns, data.raw_text_column, setting="raw_text_column", source=source)
    else:
        raw = _raw_beside(columns, text)
    return Columns(text=text, label=label, raw=raw)


def find_text(columns: Sequence[str], wanted: str | None, *, source: str) -> str:
    """The text column: the one given, else one with a known name, else the only one. Raises ColumnError.

    The only column is taken if the header looks like a name, not like a text or like fields with another delimiter.
    """
    if wanted is not None:
        return _named(columns, wanted, setting="text_column", source=source)
    if len(columns) == 1 and A_NAME.fullmatch(columns[0]):
        return columns[0]
    return _detect(columns, TEXT_NAMES, CLEAN_NAMES, what="text", source=source)


def _option(setting: str) -> str:
    """What names a column: an option where there is one."""
    option = f"--{setting.replace('_', '-')}"
    return f"{option} (data.{setting})" if setting in ("text_column", "label_column") else f"--set data.{setting}=NAME"


def _named(columns: Sequence[str], wanted: str, *, setting: str, source: str) -> str:
    if wanted in columns:
        return wanted
    same = [name for name in columns if _plain(name) == _plain(wanted)]
    if len(same) == 1:
        return same[0]
    raise ColumnError(
        f"{source} has no column {wanted!r}; its columns are {_listed(columns)}",
        hint=_nearest(columns, [wanted]) or f"Name one of them with {_option(setting)}.",
    )


def _detect(
    columns: Sequence[str], names: Sequence[str], second_choice: Sequence[str], *, what: str, source: str
) -> str:
    for known in (names, second_choice):
        found = [name for name in columns if _plain(name) in known]
        first = [name for name in found if _plain(name) == names[0]]
        if len(first) == 1:
            return first[0]
        if len(found) == 1:
            return found[0]
        if found:
            raise ColumnError(
                f"{source} has several possible {what} columns: {_listed(found)}",
                hint=f"Choose one with --{what}-column (data.{what}_column).",
            )
    raise ColumnError(
        f"{source} has no known {what} column; its columns are {_listed(columns)}",
        hint=_other_separator(columns)
        or _nearest(columns, names, option=f"--{what}-column")
        or f"Set --{what}-column (data.{what}_column). The first line must be a header with column names.",
    )


def _other_separator(columns: Sequence[str]) -> str:
    """A hint for a header with another delimiter; spreadsheets write semicolons in some countries."""
    found = [mark for mark in ";\t|" if mark in columns[0]] if len(columns) == 1 else []
    return f"The delimiter seems to be {found[0]!r}: give it with --delimiter." if found else ""


def _raw_beside(columns: Sequence[str], text: str) -> str:
    """The column that a cleaned column was made from, so that both give the same split."""
    plain = _plain(text)
    stem = _CLEAN_SUFFIX.sub("", plain)
    if stem == plain:
        return text
    raw = [name for name in columns if _plain(name) == stem] or [name for name in columns if _plain(name) in TEXT_NAMES]
    return raw[0] if raw else text


def _plain(name: str) -> str:
    return name.strip().casefold()


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in columns[:20])
    return shown + (f" and {len(columns) - 20} more" if len(columns) > 20 else "") if columns else "no columns"


def _nearest(columns: Sequence[str], wanted: Sequence[str], *, option: str = "") -> str:
    # `tweet_id` is similar to `tweet`, but holds numbers.
    plain = {_plain(name): name for name in columns if not _plain(name).endswith("id")}
    for name in wanted:
        near = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.7)
        if near:
            return f"Did you mean {plain[near[0]]!r}?" + (
                f" Then use {option} {shlex.quote(plain[near[0]])}." if option else ""
            )
    return ""


@dataclass(frozen=True)
class Labelling:
    """The ordered labels, and the index of each value; a value that is not in ``codes`` is unknown."""

    labels: tuple[str, ...]
    codes: Mapping[str, int]


class LabelValues:
    """The distinct values of one source's label column, each with the row where it was first seen.

    ``place`` describes the location of a row in that source.
    """

    def __init__(self, source: str, column: str, *, place: Callable[[int], str] = "row {}".format) -> None:
        self.source = source
        self.column = column
        self.place = place
        self.first_rows: dict[str, int] = {}

    def add(self, value: str, row: int) -> None:
        """Record a new value. Raises LabelError if there are too many for a label column."""
        self.first_rows[value] = row
        if len(self.first_rows) > MOST_LABELS:
            some = ", ".join(repr(item[:40]) for item in list(self.first_rows)[:5])
            raise LabelError(
                f"{self.source}: column {self.column!r} is probably not a label column: it has more than {MOST_LABELS} "
                f"different values, such as {some}",
                hint="Choose another column with --label-column (data.label_column).",
            )


def resolve(sources: Sequence[LabelValues], data: Data) -> tuple[Labelling, ...]:
    """Map the values of each source to labels, which are the same for all sources.

    All sources are interpreted together first; if that leaves unknown values, each source is interpreted by itself
    (a training file may use 0, 1, 2 and the official test negative, neutral, positive).

    Raises:
        LabelError: a value is unknown (unless ``data.unknown_labels`` is drop), or there is only one class.
    """
    union = {value: row for values in reversed(sources) for value, row in values.first_rows.items()}
    labelling = _read_values(union, data)
    if _complete(labelling, union):
        return (labelling,) * len(sources)
    apart = tuple(_read_values(values.first_rows, data) for values in sources)
    if len(sources) > 1 and len({item.labels for item in apart}) == 1:
        complete = all(_complete(item, values.first_rows) for item, values in zip(apart, sources, strict=True))
        if complete or data.unknown_labels == "drop":
            return apart
    if data.unknown_labels == "error":
        _raise_unknown(sources, labelling)
    if len(labelling.labels) < 2:
        raise _one_class(list(union), sources[0])
    return (labelling,) * len(sources)


def codes_of(
    values: Iterable[str], labels: Sequence[str], label_map: Mapping[str, str] | None = None
) -> dict[str, int]:
    """The index in the given ``labels`` of each value that stands for one of them.

    A value is matched with the label of the same spelling, else by the map, else by the usual meaning of names and
    numbers. Numbers that a map omits are unknown. All values are interpreted together: 1 next to 0 is positive, but
    1 next to 0 and 2 is neutral. A single class is accepted if all schemes with these labels agree on it.
    """
    places = {label.casefold(): index for index, label in enumerate(labels)}
    plain = {value: canonical(value) for value in values if value.strip()}
    mapped = _by_map(plain, label_map) if label_map is not None else Labelling((), {})
    meaning = {value: mapped.labels[code] for value, code in mapped.codes.items()}
    if not meaning:
        numbers = {item: number for item in plain.values() if (number := _whole(item)) is not None}
        usual = {item: _NAMES[item.casefold()] for item in plain.values() if item.casefold() in _NAMES}
        usual |= _meaning_among(numbers, places)
        meaning = {value: usual[item] for value, item in plain.items() if item in usual}
    meaning |= {value: item for value, item in plain.items() if item.casefold() in places}
    return {value: places[label.casefold()] for value, label in meaning.items() if label.casefold() in places}


def codes_in(values: LabelValues, data: Data, labels: Sequence[str]) -> dict[str, int]:
    """``codes_of`` the values of a source, with ``data.label_map``.

    Raises:
        LabelError: a value is none of the labels, unless ``data.unknown_labels`` is drop; shows both lists.
    """
    codes = codes_of(values.first_rows, labels, data.label_map)
    strangers = [value for value in values.first_rows if value not in codes]
    if strangers and data.unknown_labels == "error":
        row, shown = values.first_rows[strangers[0]], strangers[0][:60]
        what = f"the label {shown!r}" if shown.strip() else "an empty label"
        more = f" (and {len(strangers) - 1} more unknown values)" if len(strangers) > 1 else ""
        raise LabelError(
            f"{values.source}, {values.place(row)}: {what} in column {values.column!r}{more} is not one of the labels "
            "of the model: "
            f"{', '.join(labels)}; the column contains {_some(values.first_rows)}",
            hint="Map values with --label-map VALUE=LABEL (data.label_map), or drop such rows with "
            "--set data.unknown_labels=drop.",
        )
    return codes


def all_mean(values: LabelValues, data: Data, labels: Sequence[str]) -> bool:
    """Whether every value of a source stands for one of these labels, and every label occurs."""
    codes = codes_of(values.first_rows, labels, data.label_map)
    return set(codes.values()) == set(range(len(labels))) and all(
        value in codes for value in values.first_rows if value.strip()
    )


def _some(values: Iterable[str]) -> str:
    given = sorted({canonical(value)[:40] for value in values} - {""})
    return ", ".join(given[:12]) + (f" and {len(given) - 12} more" if len(given) > 12 else "")


def _meaning_among(numbers: Mapping[str, int], places: Collection[str]) -> dict[str, str]:
    """The meaning of numbers, given a set of labels."""
    usual = _by_numbers({item: item for item in numbers}, numbers)
    if set(usual.labels) & set(places):
        return {item: usual.labels[code] for item, code in usual.codes.items()}
    fitting = [
        dict(zip(sorted(scheme), labels, strict=True))
        for scheme, labels in _SCHEMES.items()
        if scheme >= set(numbers.values()) and set(labels) == set(places)
    ]
    read = {item: {meaning[number] for meaning in fitting} for item, number in numbers.items()}
    return {item: next(iter(means)) for item, means in read.items() if len(means) == 1}


def _complete(labelling: Labelling, values: Mapping[str, int]) -> bool:
    return len(labelling.labels) >= 2 and all(value in labelling.codes for value in values)


def _raise_unknown(sources: Sequence[LabelValues], labelling: Labelling) -> None:
    unknown = [
        (row, value, item) for item in sources for value, row in item.first_rows.items() if value not in labelling.codes
    ]
    given = {canonical(value) for item in sources for value in item.first_rows} - {""}
    if len(given) == 1:
        raise _one_class(list(given), sources[0])
    if not unknown or not labelling.labels:
        raise _no_scheme(sorted(given), sources[0])
    row, value, item = unknown[0]
    what = f"unknown label {value[:60]!r}" if value.strip() else "empty label"
    more = f" (and {len(unknown) - 1} more unknown values)" if len(unknown) > 1 else ""
    raise LabelError(
        f"{item.source}, {item.place(row)}: {what} in column {item.column!r}{more}; "
        f"the labels are {', '.join(labelling.labels)}",
        hint="Drop such rows with --set data.unknown_labels=drop, or map the values with --label-map VALUE=LABEL "
        "(data.label_map).",
    )


def _one_class(values: Sequence[str], source: LabelValues) -> LabelError:
    shown = ", ".join(repr(value[:40]) for value in values) or "nothing"
    return LabelError(
        f"{source.source}: only one class: column {source.column!r} contains {shown}, but two or more are required",
        hint="Is it the right column (--label-column), and does the file contain all classes?",
    )


def _no_scheme(values: Sequence[str], source: LabelValues) -> LabelError:
    shown = ", ".join(repr(value[:40]) for value in values[:12])
    ends = zip((values[0], values[-1]) if values else ("0", "2"), ("negative", "positive"), strict=True)
    example = " ".join(f"--label-map {shlex.quote(f'{value[:40]}={label}')}" for value, label in ends)
    return LabelError(
        f"{source.source}: the meaning of the labels {shown} in column {source.column!r} is unknown",
        hint=f"Map each of them with --label-map VALUE=LABEL, e.g. {example}.",
    )


def canonical(value: str) -> str:
    """A value in canonical spelling: trimmed, and ``4.0`` becomes ``4``."""
    value = value.strip()
    number = _whole(value)
    return value if number is None else str(number)


def _whole(value: str) -> int | None:
    """A whole number as people and programs write it, such as 4, -1 or 4.0; names such as 01 and 1_0 are none."""
    return int(float(value)) if _WHOLE.fullmatch(value) else None


def _read_values(first_rows: Mapping[str, int], data: Data) -> Labelling:
    values = {value: canonical(value) for value in first_rows if value.strip()}
    if data.label_map is not None:
        return _by_map(values, data.label_map)
    distinct = set(values.values())
    named = {item: _NAMES[item.casefold()] for item in distinct if item.casefold() in _NAMES}
    if len(set(named.values())) >= 2:
        return _labelling(values, named, tuple(name for name in _ORDER if name in named.values()))
    numbers = {item: number for item in distinct if (number := _whole(item)) is not None}
    if numbers and (len(numbers) >= 2 or len(numbers) == len(distinct)):
        return _by_numbers(values, numbers)
    if len(distinct) < 2 or numbers:
        return Labelling((), {})
    labels = tuple(sorted(distinct))
    return _labelling(values, {label: label for label in labels}, labels)


def _by_map(values: Mapping[str, str], label_map: Mapping[str, str]) -> Labelling:
    labels = tuple(dict.fromkeys(label_map.values()))
    meaning = {canonical(value).casefold(): label for value, label in label_map.items()}
    exact = {value.strip(): label for value, label in label_map.items()}
    codes = {}
    for value, plain in values.items():
        label = exact.get(value.strip(), meaning.get(plain.casefold()))
        if label is not None:
            codes[value] = labels.index(label)
    return Labelling(labels, codes)


def _by_numbers(values: Mapping[str, str], numbers: Mapping[str, int]) -> Labelling:
    present = set(numbers.values())
    consecutive = len(present) >= 2 and max(present) - min(present) + 1 == len(present)
    if consecutive and frozenset(present) not in _SCHEMES and min(present) >= 0:
        ordered = tuple(str(number) for number in sorted(present))
        return _labelling(values, {item: item for item in numbers}, ordered)
    for scheme, labels in _SCHEMES.items():
        if scheme <= present:
            meaning = dict(zip(sorted(scheme), labels, strict=True))
            known = {item: meaning[number] for item, number in numbers.items() if number in scheme}
            return _labelling(values, known, labels)
    return Labelling((), {})


def _labelling(values: Mapping[str, str], meaning: Mapping[str, str], labels: tuple[str, ...]) -> Labelling:
    codes = {value: labels.index(meaning[plain]) for value, plain in values.items() if plain in meaning}
    return Labelling(labels, codes)
