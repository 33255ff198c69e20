"""The exception hierarchy; every error has a message (what is wrong) and a hint (how to fix it)."""

from __future__ import annotations

from collections.abc import Sequence


class SenthyError(Exception):
    """Base of all errors that are shown to the user without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.problems = problems
        self.hint = hint


class ConfigError(SenthyError):
    """One or more settings are invalid; ``problems`` has one line for each."""

    exit_code = 2


class UsageError(SenthyError):
    """The options contradict each other or are incomplete."""

    exit_code = 2


class ShardError(SenthyError):
    """Some of many files could not be used, or are not done; ``problems`` has one line for each."""


class DataError(SenthyError):
    """The texts cannot be used."""


class SourceError(DataError):
    """A source cannot be read."""


class ColumnError(DataError):
    """A column is missing, ambiguous, or clashes with one that would be added."""


class LabelError(DataError):
    """A label is unknown, or the set of labels is unusable."""


class DatabaseError(DataError):
    """The prepared database cannot be used."""


class LockedError(DatabaseError):
    """Another program has locked the prepared database."""


class ModelError(SenthyError):
    """A model directory cannot be used."""


class EncoderError(SenthyError):
    """An encoder is unavailable, or is not the one that a model was trained on."""


class TrainingError(SenthyError):
    """Training cannot start or continue."""


class StudyError(SenthyError):
    """A search cannot be stored, joined or continued, or no trial finished."""


class OutputError(SenthyError):
    """A result cannot be written."""


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 text`` or ``1,204 texts``, for messages."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def some(words: Sequence[str], most: int = 12) -> str:
    """``a, b and 3 more``, for messages."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def promised_by(rows: int, fresh: bool | None) -> str:
    """Which validation rows promise an accuracy, for messages; ``fresh`` as of `triage.Calibration`."""
    what = count(rows, "validation row")
    if fresh:
        return f"{what} without a part in the model"
    part = "also selected the epoch and calibrated the model"
    if fresh is None:
        part = "may also have selected the epoch or calibrated the model"
    return f"{what} that {part}, so the promise may be somewhat too good"
