"""Finds the text and label columns of a source by name."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.errors import ColumnError, some

TEXT_NAMES = (
    "text", "tweet", "tweet_text", "tweettext", "sentence", "review", "review_text", "reviewtext", "content", "comment",
    "message", "body", "post", "phrase", "utterance", "document", "sentimenttext",
)  # fmt: skip
CLEAN_NAMES = ("text_clean", "clean_text", "cleaned_text", "text_cleaned", "cleantext", "tweet_clean", "clean_tweet")
LABEL_NAMES = (
    "label", "labels", "sentiment", "target", "polarity", "class", "airline_sentiment", "sentiment_label", "category",
    "label_text", "rating", "stars", "emotion",
)  # fmt: skip

#: A plausible column name, unlike a text or several fields.
A_NAME = re.compile(r"[^\W\d]\w*(?:[ .-]\w+)?")
_CLEAN_SUFFIX = re.compile(r"[_ ]?clean(?:ed)?$|^clean(?:ed)?[_ ]?")


@dataclass(frozen=True)
class Columns:
    """Names of the chosen columns, as spelled in the source."""

    text: str
    label: str
    raw: str


def choose(columns: Sequence[str], data: Data, *, source: str, trained_on: str | None = None) -> Columns:
    """The text, label and raw-text columns of a source; ``trained_on`` is the text column of a model.

    Raises:
        ColumnError: a column is missing or ambiguous; lists the columns found and suggests the nearest.
    """
    text = find_text(columns, data.text_column, source=source, trained_on=trained_on)
    if data.label_column is not None:
        label = named(columns, data.label_column, option=_option("label_column"), source=source)
    else:
        label = _detect(columns, LABEL_NAMES, (), what="label", source=source)
    if text == label:
        raise ColumnError(f"{source}: the text and the label cannot be the same column, {text!r}")
    if data.raw_text_column is not None:
        raw = named(columns, data.raw_text_column, option=_option("raw_text_column"), source=source)
    else:
        raw = _raw_beside(columns, text)
    return Columns(text=text, label=label, raw=raw)


def find_text(columns: Sequence[str], wanted: str | None, *, source: str, trained_on: str | None = None) -> str:
    """The text column: the one given, else the one that a model was trained on, else one with a known name, else the
    only one. Raises ColumnError.

    The only column is taken if the header looks like a name, not like a text or like fields with another delimiter.
    """
    if wanted is not None:
        return named(columns, wanted, option=_option("text_column"), source=source)
    if trained_on is not None and (same := [name for name in columns if _plain(name) == _plain(trained_on)]):
        return same[0]
    if len(columns) == 1 and A_NAME.fullmatch(columns[0]):
        return columns[0]
    return _detect(columns, TEXT_NAMES, CLEAN_NAMES, what="text", source=source)


def text_note(columns: Sequence[str], chosen: str, trained_on: str | None, *, source: str) -> str:
    """What to report of the text column that was chosen for a model; empty if there is no doubt about it."""
    if trained_on is None:
        return ""
    others = {_plain(name) for name in columns if name != chosen and _plain(name) in TEXT_NAMES + CLEAN_NAMES}
    if _plain(chosen) == _plain(trained_on):
        return f"{source}: column {chosen!r} is read, as in the model's training" if others else ""
    if _plain(trained_on) in others or (_plain(chosen) in CLEAN_NAMES) != (_plain(trained_on) in CLEAN_NAMES):
        return f"{source}: column {chosen!r} is read, but the model was trained on {trained_on!r}"
    return ""


def _option(setting: str) -> str:
    """How to set a column: the option if there is one, else the setting."""
    option = f"--{setting.replace('_', '-')}"
    return f"{option} (data.{setting})" if setting in ("text_column", "label_column") else f"--set data.{setting}=NAME"


def named(columns: Sequence[str], wanted: str, *, option: str, source: str) -> str:
    """The column that is called so, but for case and spaces. Raises ColumnError, with ``option`` in the hint."""
    if wanted in columns:
        return wanted
    same = [name for name in columns if _plain(name) == _plain(wanted)]
    if len(same) == 1:
        return same[0]
    raise ColumnError(
        f"{source} has no column {wanted!r}; its columns are {listed(columns)}",
        hint=_nearest(columns, [wanted]) or f"Name one of them with {option}.",
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
                f"{source} has several possible {what} columns: {listed(found)}",
                hint=f"Choose one with --{what}-column (data.{what}_column).",
            )
    raise ColumnError(
        f"{source} has no known {what} column; its columns are {listed(columns)}",
        hint=other_delimiter(columns)
        or _nearest(columns, names, option=f"--{what}-column")
        or f"Set --{what}-column (data.{what}_column). The first line must be a header with column names.",
    )


def other_delimiter(columns: Sequence[str]) -> str:
    """A hint for a header whose only name looks like several with another delimiter between them; else empty."""
    marks = [*";\t|,", *re.findall(r"[^\w \"',().-]", columns[0])] if len(columns) == 1 else []
    for mark in dict.fromkeys(marks):
        names = [_plain(name) for name in columns[0].split(mark)]
        known = {*names} & {*TEXT_NAMES, *CLEAN_NAMES, *LABEL_NAMES} and all(map(A_NAME.fullmatch, names))
        if len(names) > 1 and (mark in ";\t|" or known):
            shown = r"$'\t'" if mark == "\t" else shlex.quote(mark)
            return f"Is {mark!r} the delimiter? Then add --delimiter {shown}"
    return ""


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


def listed(columns: Sequence[str]) -> str:
    """The names, for messages; of many, the first twenty."""
    return some(list(map(repr, columns)), 20) or "no columns"


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
