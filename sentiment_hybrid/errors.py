"""Every error that a user can meet, as one tree; each has a message (what is wrong) and a hint (what to do).

SenthyError                 exit code 1: it cannot be done
├── ConfigError             exit code 2: the YAML file, a --set or a flag is wrong (lists every problem at once)
├── UsageError              exit code 2: the command was called in a way that makes no sense
├── DataError               the texts cannot be used
│   ├── SourceError         a source cannot be read: missing, damaged, wrong encoding, not reachable
│   ├── ColumnError         no such text or label column, or a clash of column names
│   ├── LabelError          an unknown label, one class only, or labels that differ from a model's
│   └── DatabaseError       the prepared database is damaged, foreign, or of another version or split
│       └── LockedError     another program holds the prepared database
├── ModelError              a model directory is damaged, unsafe, newer than this program, or does not fit
├── EncoderError            an encoder cannot be had: not there, offline, changed since the model was trained
├── TrainingError           training cannot start, go on, or produced values that are not numbers
├── StudyError              a search cannot be stored, joined or gone on with, or none of its trials finished
└── OutputError             a result cannot be written: no permission, disk full, path in the way
"""

from __future__ import annotations


class SenthyError(Exception):
    """Base of all errors that are told to the user without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(SenthyError):
    """One or more settings are wrong; ``problems`` has a line for each."""

    exit_code = 2

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class UsageError(SenthyError):
    """The options given contradict each other or lack something."""

    exit_code = 2


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
    """Another program holds the prepared database."""


class ModelError(SenthyError):
    """A model directory cannot be used."""


class EncoderError(SenthyError):
    """An encoder cannot be had or is not the one that a model was trained on."""


class TrainingError(SenthyError):
    """Training cannot start or go on."""


class StudyError(SenthyError):
    """A search cannot be stored, joined or gone on with, or came to nothing."""


class OutputError(SenthyError):
    """A result cannot be written."""
