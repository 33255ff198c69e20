"""Sources of rows, streamed in batches; one module per format, registered here."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.console import progress
from sentiment_hybrid.data.kaggle import DEFAULT_HANDLE, download
from sentiment_hybrid.data.sources.base import MISSING, Batch, ExactTime, Limit, Source, opened, texts_of, value_text
from sentiment_hybrid.data.sources.dialect import (
    DELIMITER_NAMES,
    DELIMITERS,
    DIALECT_SAMPLE,
    ENCODING_SAMPLE,
    QUOTING_NAMES,
    check_western,
    detect_dialect,
    detect_encoding,
    refuse_foreign,
    table_kind,
    text_header,
)
from sentiment_hybrid.data.sources.formats import FORMATS, KNOWN, SUFFIXES, kind_by_suffix
from sentiment_hybrid.data.sources.live import LiveStream
from sentiment_hybrid.data.sources.several import SeveralFiles, check_one_kind, find_shards, is_several, rows_in
from sentiment_hybrid.errors import DataError, SourceError
from sentiment_hybrid.redaction import redact

__all__ = [
    "FORMATS",
    "MISSING",
    "SUFFIXES",
    "Batch",
    "ExactTime",
    "Limit",
    "LiveStream",
    "Source",
    "kind_by_suffix",
    "kind_of",
    "no_rows",
    "open_source",
    "open_stream",
    "read_with_progress",
    "rows_in",
    "texts_of",
    "value_text",
]


_log = logging.getLogger(__name__)


def no_rows(name: str) -> DataError:
    """The error of a source with a header alone."""
    return DataError(f"{name} has no rows", hint="A file needs rows below its header.")


def open_source(spec: str, data: Data, *, offline: bool = False) -> Source:
    """The source behind ``kaggle[:HANDLE]``, a file, a folder or a pattern of files, or ``sample``.

    Raises:
        SourceError: missing, a directory, unreadable, of an unknown kind, or Kaggle cannot be reached.
        ColumnError: a column name occurs twice.
    """
    source = _opened_source(spec, data, offline=offline)
    source.limit = Limit(data.max_text_bytes)
    return source


@contextlib.contextmanager
def read_with_progress(source: Source, columns: Sequence[str]) -> Iterator[Iterator[Batch]]:
    """The batches of a source, as its ``batches`` gives them, with progress until the block ends."""
    with progress(f"reading {source.name}", lambda: source.total) as bar:

        def batches() -> Iterator[Batch]:
            for batch in source.batches(columns):
                yield batch
                bar.advance(len(batch) + sum(batch.skipped.values()))

        yield batches()


def _opened_source(spec: str, data: Data, *, offline: bool) -> Source:
    if spec == "sample":
        return _open_file(paths.sample_csv(), Data(bad_rows=data.bad_rows), name="sample")
    if spec == "kaggle" or spec.startswith("kaggle:"):
        handle = spec.partition(":")[2] or DEFAULT_HANDLE
        path = download(handle, offline=offline)
        return _open_file(path, data, name=f"kaggle:{handle} ({path.name})")
    # As a path, a URL has one slash.
    if re.match(r"[a-z][a-z0-9+.-]+:/", spec) and not Path(spec).exists():
        raise SourceError(
            f"{redact(spec)} is a URL, and only senthy predict reads URLs", hint="Download the file, and name the copy."
        )
    if is_several(spec):
        found = find_shards(spec)
        check_one_kind(found)
        return SeveralFiles([_open_file(Path(one.place), data, name=one.name) for one in found.shards], name=spec)
    return _open_file(Path(spec).expanduser(), data)


def open_stream(
    stream: BinaryIO | LiveStream,
    data: Data,
    *,
    kind: Literal["csv", "tsv", "jsonl", "lines"] | None,
    name: str = "standard input",
) -> Source:
    """Rows from standard input or a pipe, readable once; its ``kind`` says as what they are read.

    Where ``kind`` is None, that is lines, or csv if the first line is the name of a column for texts alone. Raises
    SourceError where it is that of another table.
    """
    peekable = isinstance(stream, io.BufferedReader | LiveStream)
    buffered: Any = stream if peekable else io.BufferedReader(cast(Any, stream))
    head = buffered.peek(ENCODING_SAMPLE)
    if kind is None and (found := table_kind(head)):
        way = "Write one object per line (jq -c '.[]')." if found == "json" else f"Set --format {found}."
        raise SourceError(f"{name} looks like {found}, not like one text per line", hint=way)
    if kind is None and (header := text_header(head)):
        kind = "csv"
        _log.info("%s: the first line, %s, is the header of a csv (--format lines reads it as a text)", name, header)
    if isinstance(stream, LiveStream):
        buffered = io.BufferedReader(stream)
    source = _text_source(kind or "lines", Path(name), data, head=head, whole=False, stream=buffered)
    source.limit = Limit(data.max_text_bytes)
    source.kind = kind or "lines"
    return source


def _open_file(path: Path, data: Data, *, name: str | None = None) -> Source:
    kind = kind_of(path)
    if FORMATS[kind].text:
        with opened(path) as file:
            head = file.read(ENCODING_SAMPLE)
            if kind == "lines" and (found := table_kind(head)):
                raise SourceError(
                    f"{name or path.name} looks like {found}, not like one text per line",
                    hint=f"Give it the suffix .{found} (predict: --format lines labels its lines).",
                )
            return _text_source(kind, path, data, head=head, whole=not file.read(1), name=name)
    settings = {setting: getattr(data, setting) for setting in FORMATS[kind].settings}
    return _class(kind)(path, name=name, bad_rows=data.bad_rows, **settings)


def _text_source(kind: str, path: Path, data: Data, *, head: bytes, whole: bool, **options: Any) -> Source:
    """A source of text with the encoding and dialect that are set or detected; unusual ones are logged."""
    name = options.get("name") or path.name
    refuse_foreign(head, name)
    encoding = (
        data.encoding if data.encoding != "auto" else _encoding(head, name, whole=whole, live="stream" in options)
    )
    said = [] if encoding in ("utf-8", data.encoding) else [f"text in {encoding}"]
    if kind in DELIMITERS:
        sample = head[:DIALECT_SAMPLE].decode("utf-8-sig" if encoding == "utf-8" else encoding, "replace")
        dialect = detect_dialect(
            sample,
            kind=kind,
            whole=whole and len(head) <= DIALECT_SAMPLE,
            delimiter=data.delimiter,
            quoting=None if data.quoting == "auto" else data.quoting,
        )
        options["dialect"] = dialect
        if dialect.delimiter not in (DELIMITERS[kind][0], data.delimiter):
            said.append(f"fields separated by {DELIMITER_NAMES.get(dialect.delimiter, repr(dialect.delimiter))}")
        if dialect.quoting not in ("minimal" if kind == "csv" else "none", data.quoting):
            said.append(QUOTING_NAMES[dialect.quoting])
    if said:
        _log.info("%s: %s (--encoding, --delimiter, --quoting)", name, ", ".join(said))
    return _class(kind)(path, encoding=encoding, bad_rows=data.bad_rows, **options)


def _encoding(head: bytes, name: str, *, whole: bool, live: bool) -> str:
    """The detected encoding; the first bytes of a stream are too few to detect one of the single-byte encodings."""
    found = detect_encoding(head, whole=whole)
    if found not in ("cp1252", "latin-1"):
        return found
    if live:
        return "utf-8"
    check_western(head, name)
    return found


def _class(kind: str) -> Callable[..., Source]:
    module = importlib.import_module(f"sentiment_hybrid.data.sources.{FORMATS[kind].module}")
    return cast("Callable[..., Source]", getattr(module, FORMATS[kind].source))


def _instead_of(missing: Path) -> str:
    """What may be meant by the name of a file that does not exist."""
    folder = missing.parent
    if not folder.is_dir():
        return f"There is no directory {folder}."
    with contextlib.suppress(OSError):
        if near := difflib.get_close_matches(missing.name, [path.name for path in folder.iterdir()], n=1):
            return f"Did you mean {folder / near[0]}?"
    if missing.suffix:
        return f"It would be {missing.absolute()}."
    return "A source is a file, `sample`, or `kaggle:OWNER/NAME`."


def kind_of(path: Path) -> str:
    """The format of a file by its first bytes, else by its suffix. Raises SourceError."""
    if path.is_dir():
        raise SourceError(f"{path} is a directory, not a file", hint=f"Name one file: {KNOWN}.")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise SourceError(f"there is no file {path}", hint=_instead_of(path)) from error
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    for kind, item in FORMATS.items():
        if item.magic and head.startswith(item.magic):
            return kind
    found = kind_by_suffix(path)
    if found is None:
        raise SourceError(f"cannot tell what kind of file {path} is", hint=f"Known suffixes: {KNOWN}.")
    if found == "sqlite":
        raise SourceError(f"{path} is not an SQLite database", hint="It is damaged, or has the wrong suffix.")
    return found
