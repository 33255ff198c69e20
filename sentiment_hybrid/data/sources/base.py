"""Base classes of sources: columns, a fingerprint, and batches of checked values; reading of files and text."""

from __future__ import annotations

import codecs
import contextlib
import datetime
import gzip
import hashlib
import io
import itertools
import logging
import os
import stat
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, TypeVar, cast

from sentiment_hybrid.errors import ColumnError, SourceError, count

T = TypeVar("T")
_log = logging.getLogger(__name__)

BATCH_SIZE = 10_000
#: The columns of a file for people, which `predict --review` writes.
REVIEW_COLUMNS = ("text", "prediction", "score", "part", "label")
GZIP_MAGIC = b"\x1f\x8b"

BadRows = Literal["error", "skip"]

#: Longest line in bytes; a longer one is not a row of a table of texts.
LONGEST_LINE = 1 << 26
#: Bytes of text after which a batch of long rows ends.
BATCH_BYTES = 1 << 24


class Missing:
    """The type of MISSING."""

    def __repr__(self) -> str:
        return "MISSING"


#: The value of a key that a JSON object lacks and others have; only ``native`` batches contain it.
MISSING = Missing()


class ExactTime(datetime.time):
    """A time of day whose nanoseconds are no whole microseconds, which Python's own class would cut off."""

    nanoseconds: int

    @classmethod
    def of(cls, nanoseconds: int) -> datetime.time:
        """The time that is this long after midnight, of Python's own class if that suffices. Raises ValueError."""
        seconds, rest = divmod(nanoseconds, 10**9)
        kind = cls if rest % 1000 else datetime.time
        time = kind(seconds // 3600, seconds // 60 % 60, seconds % 60, rest // 1000)
        if isinstance(time, ExactTime):
            time.nanoseconds = nanoseconds
        return time

    def __str__(self) -> str:
        return f"{self:%H:%M:%S}.{self.nanoseconds % 10**9:09}"


@dataclass(frozen=True)
class Batch:
    """Consecutive rows: their numbers (1-based, counting data rows) and values by column; None is null."""

    rows: Sequence[int]
    columns: dict[str, list[Any]]
    skipped: dict[str, int] = field(default_factory=dict)
    #: The values are known to be valid texts without NUL.
    sound: bool = False

    def __len__(self) -> int:
        return len(self.rows)


class Limit:
    """Truncates and counts long texts: a model reads only the start of a text, so the rest would only use memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.cut = 0

    def __call__(self, texts: list[str | None]) -> list[str | None]:
        """The texts, truncated to ``size`` bytes of UTF-8; the same list if none is longer."""
        if not any(text is not None and 4 * len(text) > self.size for text in texts):
            return texts
        return [text if text is None else self._one(text) for text in texts]

    def _one(self, text: str) -> str:
        if 4 * len(text) <= self.size:
            return text
        start = text[: self.size].encode("utf-8", "surrogatepass")
        if len(start) <= self.size and len(text) <= self.size:
            return text
        self.cut += 1
        return start[: self.size].decode("utf-8", "ignore")


@dataclass
class Position:
    """How far a file of ``size`` bytes has been read: ``read`` of them, which unpack to ``unpacked`` bytes.

    ``used`` of these are ``rows`` rows; 0 means those that were given out.
    """

    size: int
    read: int = 0
    unpacked: int = 0
    used: int = 0
    rows: int = 0

    @property
    def share(self) -> float:
        """The fraction of the file that these rows take."""
        return self.used / max(self.unpacked, 1) * self.read / max(self.size, 1)


class UnusualError(Exception):
    """Something that a fast reader does not handle; all rows before it are correct."""


class NotTextError(ValueError):
    """A value that cannot be read as a text; the message says what it is."""


class Source(ABC):
    """A table of rows that can be read several times, unless it is a stream."""

    def __init__(self, name: str, *, bad_rows: BadRows = "error") -> None:
        self.name = name
        self.bad_rows = bad_rows
        #: The format of a stream.
        self.kind = ""
        #: Limit of texts; `open_source` sets it to data.max_text_bytes.
        self.limit = Limit(1_000_000)
        #: Rows in all, as far as that is known while they are read: a float is an estimate.
        self.total: float | None = None

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Column names in order, trimmed."""

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 over the name and the content."""

    @abstractmethod
    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        """Batches as read; values of any type."""

    def _every_column(self) -> Sequence[str]:
        return self.columns

    @property
    def size(self) -> int:
        """Bytes on the disk; 0 if unknown."""
        return 0

    @property
    def half_labelled(self) -> bool:
        """Whether people are still labelling the rows: those without a label are no errors."""
        return set(REVIEW_COLUMNS) <= set(self.columns)

    @property
    def types(self) -> dict[str, Any]:
        """Column -> Arrow type, if the format has types, so that rows can be written as they were read."""
        return {}

    @property
    def quoting(self) -> Literal["auto", "minimal", "none", "backslash"]:
        """How fields are quoted, so that rows can be written as they were read."""
        return "auto"

    def numbers(self, columns: Sequence[str]) -> Collection[str]:
        """The columns of texts in which every value is known to be a number or empty."""
        return ()

    def _estimated(self, given: int) -> float | None:
        """How many rows there are in all, judged by those that were given out so far."""
        return None

    def place(self, row: int) -> str:
        """A description of the location of a row."""
        return f"row {row}"

    def batches(
        self, columns: Sequence[str] | None = None, *, size: int = BATCH_SIZE, native: bool = False
    ) -> Iterator[Batch]:
        """Stream the rows.

        Args:
            columns: columns to read; None: all, also of a stream. Of jsonl, all are the keys of each batch's objects,
                so that a key that first occurs late is not lost.
            size: rows per batch at most.
            native: leave values of jsonl, parquet and SQLite as they are instead of making them texts.

        Raises:
            SourceError: unreadable, damaged, or a bad row (unless ``bad_rows`` is skip: then counted in ``skipped``).
        """
        wanted = list(columns if columns is not None else self._every_column())
        self.limit.cut = given = 0
        self.total = None
        for batch in self._tables(wanted, size):
            given += len(batch) + sum(batch.skipped.values())
            if not isinstance(self.total, int):
                self.total = self._estimated(given)
            yield batch if batch.sound else self._checked(batch, native)
        self.total = given
        if self.limit.cut:
            _log.warning(
                "%s: %s cut after %s bytes (data.max_text_bytes)",
                self.name, count(self.limit.cut, "text"), f"{self.limit.size:,}",
            )  # fmt: skip

    def _checked(self, batch: Batch, native: bool) -> Batch:
        """The batch with valid texts (unless ``native``); single values are checked only if the batch has a problem."""
        columns = dict(batch.columns)
        problems: dict[int, str] = {}
        for name, values in batch.columns.items():
            if not native and not set(map(type, values)) <= {str, type(None)}:
                columns[name], found = _as_texts(values, name)
                problems |= found
            if not _is_sound(_joined(columns[name])):
                problems |= {at: problem for at, value in enumerate(columns[name]) if (problem := unsound(value))}
        if not native:
            columns = {name: self.limit(values) for name, values in columns.items()}
        return self._without(problems, Batch(batch.rows, columns, batch.skipped))

    def _without(self, problems: dict[int, str], batch: Batch) -> Batch:
        """The batch without the rows at the given places. Raises SourceError for the first, unless they are skipped."""
        if not problems:
            return batch
        if self.bad_rows == "error":
            at = min(problems)
            raise self.bad_row(batch.rows[at], problems[at])
        skipped = Counter(batch.skipped)
        skipped.update(map(self._kind_of, problems.values()))
        keep = [at for at in range(len(batch)) if at not in problems]
        columns = {name: [values[at] for at in keep] for name, values in batch.columns.items()}
        return Batch([batch.rows[at] for at in keep], columns, dict(skipped))

    def _kind_of(self, problem: str) -> str:
        """As what a problem of a row is counted."""
        return problem.split(":")[0]

    def bad_row(self, row: int, problem: str) -> SourceError:
        """The error for an unusable row."""
        hint = "Skip such rows with --set data.bad_rows=skip."
        if problem.startswith("not text in"):
            hint = f"Name the file's encoding, e.g. --encoding cp1252, or: {hint}"
        elif problem.startswith("no JSON object: ["):
            hint = "Is it one JSON array? Then give it the suffix .json."
        return SourceError(f"{self.name}, {self.place(row)}: {problem}", hint=hint)


def texts_of(batch: Batch, column: str, *, source: str, limit: Limit | None = None) -> list[str | None]:
    """A column of a ``native`` batch as texts, cut at the limit; null where it is missing.

    Raises SourceError for what is no text.
    """
    texts, problems = _as_texts(batch.columns.get(column, [None] * len(batch)), column)
    for at, problem in problems.items():
        raise SourceError(f"{source}, row {batch.rows[at]}: {problem}")
    return texts if limit is None else limit(texts)


def _as_texts(values: Sequence[Any], column: str) -> tuple[list[str | None], dict[int, str]]:
    """Values as texts, and index -> problem of those that are not text."""
    texts: list[str | None] = []
    problems: dict[int, str] = {}
    for at, value in enumerate(values):
        try:
            texts.append(value if isinstance(value, str) else value_text(value))
        except NotTextError as error:
            texts.append(None)
            problems[at] = f"no text in column {column!r}: {error}"
    return texts, problems


def value_text(value: Any) -> str | None:
    """A value as text; None for null and NaN. Booleans become True and False, as in csv.

    Raises NotTextError for bytes that are not UTF-8, and for lists and objects.
    """
    if value is None or value is MISSING or value != value:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise NotTextError("bytes that are not UTF-8") from error
    if isinstance(value, dict | list | tuple | set):
        raise NotTextError(f"{'an object' if isinstance(value, dict) else 'a list'}: {str(value)[:60]}")
    return str(value)


def _joined(values: Sequence[Any]) -> str:
    try:
        return "".join(values)
    except TypeError:
        return "".join(value for value in values if isinstance(value, str))


def _is_sound(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unsound(value: Any) -> str:
    """What is wrong with a text: a NUL or an invalid character; empty if it is valid."""
    if not isinstance(value, str) or _is_sound(value):
        return ""
    if "\0" in value:
        return "NUL byte in a text: the file may be damaged, or UTF-16"
    code = next(ord(character) for character in value if "\ud800" <= character <= "\udfff")
    if 0xDC80 <= code <= 0xDCFF:
        return f"not text in the given encoding: byte 0x{code - 0xDC00:02X}"
    return f"not text: half a character, U+{code:04X}"


def without_repeats(names: list[str], source: str) -> list[str]:
    """The names of a header. Raises ColumnError for one that occurs twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ColumnError(f"{source}: column {repeated[0]!r} is duplicated in the header", hint="Rename one of them.")
    return names


def chosen(names: Sequence[str], wanted: str | None, *, kind: str, source: str) -> str:
    """The sheet or table that is wanted, else the only one. Raises SourceError."""
    if wanted is not None and wanted in names:
        return wanted
    if wanted is None and len(names) == 1:
        return names[0]
    shown = f"the {kind}s {', '.join(names)}" if names else f"no {kind}"
    problem = f"holds {shown}" if wanted is None else f"has no {kind} {wanted!r}; it has {shown}"
    raise SourceError(f"{source} {problem}", hint="Name one with --set data.table=NAME (predict: --table NAME).")


# --- files ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every failure to read a file into a SourceError."""
    try:
        yield
    except EOFError as error:
        raise SourceError(f"{path}: the gzip file is cut off", hint="Download or copy it again.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}: damaged gzip file ({error})", hint="Download or copy it again.") from error
    except UnicodeError as error:
        raise SourceError(
            f"{path}: not text in the given encoding ({error})", hint="Set it with --encoding."
        ) from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file open for reading, unpacked where it is compressed by gzip. Raises SourceError."""
    with reading(path), path.open("rb") as file:
        zipped = file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
        yield io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=file)), 1 << 20) if zipped else file


class _Bounded(io.RawIOBase):
    """A binary file with a limit on the length of lines, so that a small compressed file cannot exhaust the memory."""

    def __init__(self, binary: BinaryIO, name: str) -> None:
        self._binary: Any = binary
        self._name = name
        self._open_line = 0
        #: Bytes that were read.
        self.total = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.total

    def readinto(self, buffer: Any) -> int:
        """Read available bytes without waiting for a full buffer. Raises SourceError for a line that is too long."""
        size = self._binary.readinto1(buffer)
        self.total += size
        block = bytes(memoryview(buffer)[:size])
        last = max(block.rfind(b"\n"), block.rfind(b"\r"))
        self._open_line = self._open_line + size if last < 0 else size - last - 1
        if self._open_line > LONGEST_LINE:
            raise SourceError(
                f"{self._name} has a line of more than {LONGEST_LINE >> 20} MB, so it is no table of texts",
                hint="Is it another kind of file, or are its line breaks lost?",
            )
        return int(size)


class FileSource(Source):
    """Base of sources that are one file; gzip is recognised by its first bytes."""

    def __init__(self, path: Path, *, name: str | None = None, bad_rows: BadRows = "error") -> None:
        super().__init__(name or path.name, bad_rows=bad_rows)
        self.path = path
        self._stamp: tuple[int, ...] | None = None

    def _files(self) -> list[Path]:
        """The files on disk that hold the content."""
        return [self.path]

    @property
    def size(self) -> int:
        """Bytes of all files; 0 where they are gone."""
        with contextlib.suppress(OSError):
            return sum(path.stat().st_size for path in self._files())
        return 0

    def fingerprint(self) -> str:
        """sha256 of the file's name and content; the file must not change between this and reading it."""
        self._stamp = self._stamped()
        digest = hashlib.sha256(self.name.encode("utf-8", "surrogateescape") + b"\0")
        with reading(self.path):
            for path in self._files():
                with path.open("rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
        return digest.hexdigest()

    def batches(
        self, columns: Sequence[str] | None = None, *, size: int = BATCH_SIZE, native: bool = False
    ) -> Iterator[Batch]:
        """As for any source. Raises SourceError also if the file changes before its last row is read."""
        before = self._stamp or self._stamped()
        try:
            yield from super().batches(columns, size=size, native=native)
        except SourceError as error:
            # A file that is being written may be invalid: then only the change is reported.
            self._check_unchanged(before, error)
            raise
        self._check_unchanged(before)

    def _stamped(self) -> tuple[int, ...]:
        """Device, inode, size and time of the files; empty if it is not a regular file."""
        with reading(self.path):
            facts = [path.stat() for path in self._files()]
        if not stat.S_ISREG(facts[0].st_mode):
            return ()
        return tuple(number for one in facts for number in (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns))

    def _check_unchanged(self, before: tuple[int, ...], cause: SourceError | None = None) -> None:
        if self._stamped() != before:
            raise SourceError(
                f"{self.path} changed while it was read",
                hint="Wait until whatever writes to it is done, or copy it, and run the command again.",
            ) from cause


class TextSource(FileSource):
    """Base of sources that are lines of text, from a file or a stream."""

    #: As of ``open``: which line ends are translated to \\n.
    _newline: str | None = None

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        encoding: str = "utf-8",
        bad_rows: BadRows = "error",
        stream: BinaryIO | None = None,
    ) -> None:
        super().__init__(path, name=name, bad_rows=bad_rows)
        self.encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        self._stream = stream
        self._bytes: _Bounded | None = None
        self._position: Callable[[], Position | None] = lambda: None
        self._columns: list[str] | None = None

    def fingerprint(self) -> str:
        """As for any file. Raises SourceError for a stream, which can be read only once."""
        if self._stream is not None:
            raise SourceError(f"{self.name} can be read only once, so it has no fingerprint")
        return super().fingerprint()

    def _stamped(self) -> tuple[int, ...]:
        return super()._stamped() if self._stream is None else ()

    def _every_column(self) -> Sequence[str]:
        # The columns of a stream are known only once it is read: here, an empty list means all.
        return ()

    def _estimated(self, given: int) -> float | None:
        position = self._position()
        return (position.rows or given) / position.share if position and position.share else None

    @contextlib.contextmanager
    def _text(self) -> Iterator[TextIO]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(reading(self.path))
            binary = self._stream or stack.enter_context(opened(self.path))
            self._bytes = _Bounded(binary, self.name)
            buffered = io.BufferedReader(self._bytes, 1 << 18)
            self._position = partial(_position, binary, buffered)
            text = io.TextIOWrapper(buffered, encoding=self.encoding, errors="surrogateescape", newline=self._newline)
            stack.callback(text.close)
            yield text


def _position(file: BinaryIO, buffered: io.BufferedReader[Any]) -> Position | None:
    """Where the reader of an open file stands; None for what is no file on disk."""
    try:
        number = file.fileno()  # of the packed file, where there is one
        facts = os.fstat(number)
        if not stat.S_ISREG(facts.st_mode):
            return None
        unpacked = getattr(file, "raw", file).tell()
        return Position(facts.st_size, os.lseek(number, 0, os.SEEK_CUR), unpacked, buffered.tell())
    except (OSError, ValueError):
        return None


def some(items: Iterator[T], size: int, length: Callable[[T], int]) -> list[T]:
    """The next items: at most ``size``, and no more after their lengths have reached `BATCH_BYTES`."""
    taken: list[T] = []
    total, step = 0, 1
    while len(taken) < size and total < BATCH_BYTES:
        more = list(itertools.islice(items, min(step, size - len(taken))))
        if not more:
            break
        taken += more
        added = sum(map(length, more))
        total += added
        step = 64 if added < 1 << 16 else 1
    return taken
