"""Rows of a file or a pipe, labelled by a Predictor and written in order; a stopped run over a file can be resumed."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sentiment_hybrid import __version__, console
from sentiment_hybrid.console import note, progress
from sentiment_hybrid.data.columns import find_text, text_note
from sentiment_hybrid.data.parts import open_parts
from sentiment_hybrid.data.review import TASKS, ReviewRows
from sentiment_hybrid.data.sources import Batch, Limit, LiveStream, Source, kind_of, open_source, open_stream, texts_of
from sentiment_hybrid.data.writers import Quoting, Style, kind_of_output, open_writer, without_formula, without_formulas
from sentiment_hybrid.engine.inference.answers import UNSURE
from sentiment_hybrid.engine.inference.predictor import PREDICTION_COLUMN
from sentiment_hybrid.engine.insight.spread import CANDIDATES, choose
from sentiment_hybrid.engine.prefetch import one_ahead
from sentiment_hybrid.errors import ColumnError, SourceError, UsageError, count

if TYPE_CHECKING:
    import numpy as np

    from sentiment_hybrid.commands.predict import Request
    from sentiment_hybrid.engine.inference.predictor import Predictor

#: Settings of ``data`` that affect the rows read.
READING = ("table", "encoding", "delimiter", "quoting", "bad_rows", "max_text_bytes")
#: The column that --explain adds.
_EXPLANATION = "explanation"
#: Digits written for a probability; further digits are rounding noise.
_DIGITS = 6
#: Rows read at a time; several of these batches are labelled together.
_READ = 1024
#: Seconds that a text from a pipe waits for others, and the size of the first groups of such texts.
_PATIENCE, _FEW = 0.05, 256
#: Rows of the first group, so that a run that is stopped early can be resumed too.
_FIRST = 128
#: Maximum number of characters labelled together, since texts may be long.
_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Incoming:
    """The rows of an input: name, format, columns and, for parquet, Arrow types.

    ``batches`` are lists of batches that are read together; those of a pipe are labelled at once (``live``), and an
    empty list means that the next one may take a while. ``stamp`` changes with the content of a file.
    """

    name: str
    kind: str
    columns: list[str]
    batches: Iterator[list[Batch]]
    types: Mapping[str, Any] = field(default_factory=dict)
    quoting: Quoting = "auto"
    numbers: Callable[[Sequence[str]], Collection[str]] = lambda columns: ()
    limit: Limit | None = None
    live: bool = False
    stamp: tuple[int | str, ...] = ()
    total: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class _Job:
    """What is labelled, by which model, and the output: format, all columns, the added ones, and how it is written."""

    request: Request
    predictor: Predictor
    incoming: Incoming
    abstain_below: float | None
    text_column: str
    kind: str
    columns: list[str]
    added: list[str]
    style: Style
    safe: bool


@dataclass(frozen=True)
class _Group:
    """Rows that are labelled together, as read, and their texts in order."""

    batches: list[Batch]
    texts: list[str | None]


# --- reading ---------------------------------------------------------------------------------------------------------


def open_rows(stack: contextlib.ExitStack, request: Request) -> Incoming:
    """The rows of the arguments, of a file, or of standard input."""
    if texts := request.given:
        batch = Batch(range(1, len(texts) + 1), {"text": list(texts)})
        return Incoming("the arguments", "lines", ["text"], iter([[batch]]))
    path, data, file_format = request.source, request.data, request.file_format
    if path is None:
        return _piped(stack, request)
    if file_format is not None:
        source = open_stream(_opened(stack, path), data, kind=file_format, name=str(path))
        return replace(_streamed(source, _batches(stack, source)), stamp=_stamp(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path} is a pipe, so its format cannot be detected", hint="Set --format.")
    found = "csv" if str(path) == "sample" else kind_of(path)
    source = open_source(str(path), data, offline=True)
    batches = ([batch] for batch in _batches(stack, source))
    return Incoming(
        source.name, found, list(source.columns), batches, source.types, source.quoting, source.numbers,
        source.limit, stamp=_stamp(path), total=lambda: source.total,
    )  # fmt: skip


def _stamp(path: Path) -> tuple[int | str, ...]:
    """Identifies the content of a file: path, size and time, and those of an SQLite log beside it."""
    places = [place for place in (path, path.with_name(f"{path.name}-wal")) if place.is_file()]
    facts = [place.stat() for place in places]
    return (str(path.resolve()), *(number for one in facts for number in (one.st_size, one.st_mtime_ns)))


def _piped(stack: contextlib.ExitStack, request: Request) -> Incoming:
    """The rows of standard input; if they go to standard output, they are labelled as they arrive."""
    if sys.stdin is None:
        raise UsageError("standard input is not available", hint="Use --input FILE.")
    if request.output is not None:
        source = open_stream(sys.stdin.buffer, request.data, kind=request.file_format)
        return _streamed(source, _batches(stack, source))
    pipe = LiveStream(sys.stdin.buffer)
    source = open_stream(pipe, request.data, kind=request.file_format)
    incoming = _streamed(source, _batches(stack, source, size=1))
    return replace(incoming, batches=_as_they_come(incoming.batches, pipe.ready), live=True)


def _streamed(source: Source, batches: Iterator[Batch]) -> Incoming:
    """Rows that can be read only once: the columns come from the first batch."""
    first = list(itertools.islice(batches, 1))
    columns = list(first[0].columns) if first else list(source.columns)
    every = ([batch] for batch in itertools.chain(first, batches))
    return Incoming(
        source.name, source.kind, columns, every, quoting=source.quoting, limit=source.limit,
        total=lambda: source.total,
    )  # fmt: skip


def _opened(stack: contextlib.ExitStack, path: Path) -> BinaryIO:
    try:
        file = stack.enter_context(path.open("rb"))
        if file.peek(2)[:2] == b"\x1f\x8b":
            return stack.enter_context(gzip.open(file))  # type: ignore[return-value]
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    return file


def _batches(stack: contextlib.ExitStack, source: Source, *, size: int | None = None) -> Iterator[Batch]:
    """Whole rows in batches; closed together with the stack."""
    batches = source.batches(native=True, size=size or _READ)
    stack.enter_context(contextlib.closing(batches))  # type: ignore[type-var]
    return batches


def _as_they_come(batches: Iterator[list[Batch]], ready: Callable[[float], bool]) -> Iterator[list[Batch]]:
    """Batches that arrive within `_PATIENCE`, together; small groups at first, so that the first answers come soon.

    An empty list means that no further row has arrived yet.
    """
    most = _FEW
    waiting: list[Batch] = []
    deadline = 0.0
    while True:
        if not ready(0.0):
            yield []
            if waiting and not ready(max(0.0, deadline - time.monotonic())):
                yield waiting
                waiting = []
                continue
        if (batch := next(batches, None)) is None:
            break
        deadline = deadline if waiting else time.monotonic() + _PATIENCE
        waiting += batch
        if len(waiting) >= most or time.monotonic() >= deadline:
            yield waiting
            waiting, most = [], min(2 * most, _READ)
    if waiting:
        yield waiting


# --- labelling and writing -------------------------------------------------------------------------------------------


def label_rows(
    stack: contextlib.ExitStack,
    request: Request,
    predictor: Predictor,
    incoming: Incoming,
    abstain_below: float | None,
    *,
    advance: Callable[[int], object] = lambda rows: None,
) -> tuple[int, int]:
    """Stream the rows through the model; returns the numbers of rows written and of unreadable rows skipped.

    ``advance`` is called with the number of rows that have been written since. A group is cleaned and tokenised in a
    thread while the one before it is computed and written.
    """
    job = _planned(request, predictor, incoming, abstain_below)
    most = min(predictor.chunk, _READ) if request.explain else predictor.chunk
    groups = _groups(incoming, job.text_column, job.added, most=most)
    counts: Counter[str] = Counter()
    shared = request.output is None and console.is_terminal(sys.stdout)  # by the rows and the progress
    bar = stack.enter_context(progress("predicting", incoming.total, unit="texts", shown=not (shared or request.part)))
    write = _parts(stack, job, counts) or _whole(stack, job)
    if skip := counts.pop("groups", 0):
        groups = itertools.islice(groups, skip, None)
        bar.skip(counts["rows"])
        advance(counts["rows"])
    review = _review_rows(request, predictor, abstain_below)
    prepared = one_ahead(lambda group: (group, predictor.prepare(group.texts)), groups)
    for group, texts in stack.enter_context(contextlib.closing(prepared)):
        probabilities = predictor.compute(texts, progress=bar.advance)
        counts["rows"] += len(group.texts)
        advance(len(group.texts))
        counts["skipped"] += sum(sum(batch.skipped.values()) for batch in group.batches)
        write(group, probabilities)
        if request.review is not None:
            labels, scores, *_ = predictor.columns_of(probabilities).values()
            review.add(group.texts, labels.tolist(), scores.tolist())
        bar.update(completed=counts["rows"])
    if request.review is not None:
        written = review.write(request.review, safe_csv=request.safe_csv)
        then = "import them into Label Studio" if request.review.suffix.lower() == TASKS else "fill in the column label"
        note(f"{request.review}: {count(written, 'row')} for people; {then}")
    return counts["rows"], counts["skipped"]


def _review_rows(request: Request, predictor: Predictor, abstain_below: float | None) -> ReviewRows:
    seed = request.config.project.seed
    if request.spread:
        predictor.check_states()

    def spread(texts: list[str], rows: int) -> list[int]:
        places: list[int] = choose(predictor.states(texts), predictor.predict_proba(texts), rows, seed=seed).tolist()
        return places

    return ReviewRows(
        request.review_rows,
        -(-request.review_rows // 4),
        sure_from=abstain_below,
        seed=seed,
        spread=spread if request.spread else None,
        candidates=CANDIDATES if request.spread else 1,
        model=predictor.info.name or predictor.info.run_id or predictor.info.display_name,
    )


def columns_of(incoming: Incoming) -> dict[str, Any]:
    """What the files of one job have in common: columns, and the types of parquet; of JSON objects, neither."""
    if incoming.kind == "jsonl":
        return {"columns": [], "types": {}}
    return {"columns": list(incoming.columns), "types": {name: str(kind) for name, kind in incoming.types.items()}}


def schema_of(request: Request, predictor: Predictor, incoming: Incoming) -> dict[str, Any]:
    """`columns_of`, the text column, and the prefix of the added columns. Raises ColumnError."""
    column, added = _text_column(request, predictor, incoming), added_columns(request, predictor, incoming)
    return {**columns_of(incoming), "text_column": column, "prefix": added[0].removesuffix(PREDICTION_COLUMN)}


def added_columns(request: Request, predictor: Predictor, incoming: Incoming) -> list[str]:
    """The names of the added columns. Raises ColumnError."""
    more = (_EXPLANATION,) if request.explain else ()
    added = predictor.columns_beside(incoming.columns, prefix=request.prefix, more=more)
    if request.prefix is None and added != [*predictor.added_columns, *more]:
        note(
            f"{incoming.name} already has columns with these names, so the added ones are {', '.join(added)} (--prefix)"
        )
    return added


def _planned(request: Request, predictor: Predictor, incoming: Incoming, abstain_below: float | None) -> _Job:
    """A job whose output is like the input, as far as the format allows."""
    output, column = request.output, _text_column(request, predictor, incoming)
    added = added_columns(request, predictor, incoming)
    kind = kind_of_output(output) if output is not None else "jsonl" if request.as_json else incoming.kind
    if output is None and kind not in ("csv", "tsv", "jsonl"):
        kind = "csv"
    others = [name for name in incoming.columns if name != column]
    safe = request.safe_csv and kind in ("csv", "tsv")
    columns = [*incoming.columns, *added]
    style = Style(
        _types(incoming, added) if kind == "parquet" else {},
        # How quotes are read is said of the input: any output but a tsv of a tsv quotes the values that need it.
        incoming.quoting if incoming.kind == kind == "tsv" else "auto",
        incoming.numbers(others) if kind == "jsonl" else (),
    )
    shown = [without_formula(name) for name in columns] if safe else columns
    return _Job(request, predictor, incoming, abstain_below, column, kind, shown, added, style, safe)


def _whole(stack: contextlib.ExitStack, job: _Job) -> Callable[[_Group, np.ndarray], object]:
    """A function that writes groups to standard output, or to a file that cannot be resumed."""
    writer = stack.enter_context(open_writer(job.request.output, job.columns, kind=job.kind, style=job.style))

    def write(group: _Group, probabilities: np.ndarray) -> None:
        for rows in _rows(job, group, probabilities):
            writer.write(rows)
        if job.incoming.live:
            sys.stdout.flush()

    return write


def _parts(
    stack: contextlib.ExitStack, job: _Job, counts: Counter[str]
) -> Callable[[_Group, np.ndarray], object] | None:
    """A function that writes groups from a file to a file, resumably; None for other inputs and outputs.

    ``counts`` is set to that of a resumed run, with the number of its ``groups``.
    """
    request, predictor, incoming = job.request, job.predictor, job.incoming
    if request.output is None or not incoming.stamp or job.kind == "sqlite":
        return None
    parts = stack.enter_context(open_parts(request.output, job.columns, job.style))
    options = {name: getattr(job, name) for name in ("columns", "safe", "text_column", "abstain_below")}
    options |= {"format": incoming.kind, "first_group": _FIRST}  # a part is one group
    options |= request.data.model_dump(mode="json", include={*READING})
    key = {"input": list(incoming.stamp), "model": predictor.identity, "options": options, "version": __version__}
    parts.find(key, resume=request.resume, strict=not request.part, done="labelled")
    counts.update(parts.facts, groups=parts.done)
    predictor.empty, predictor.truncated = (counts.pop(name, 0) for name in ("empty", "truncated"))

    def write(group: _Group, probabilities: np.ndarray) -> None:
        facts = {"empty": predictor.empty, "truncated": predictor.truncated}
        parts.write(_rows(job, group, probabilities), {**counts, **facts})

    return write


def _groups(incoming: Incoming, column: str, added: Sequence[str], *, most: int) -> Iterator[_Group | None]:
    """Batches joined or cut into groups of ``most`` rows, or enough characters; None if more may take a while."""
    batches: list[Batch] = []
    texts: list[str | None] = []
    size, fitting = 0, most if incoming.live else min(most, _FIRST)
    for some in incoming.batches:
        for batch in itertools.chain.from_iterable(_pieces(batch, fitting) for batch in some):
            if clash := [name for name in added if name in batch.columns]:
                raise ColumnError(
                    f"{incoming.name}, row {batch.rows[0]} or later: a key {clash[0]!r}, which a prediction adds",
                    hint="Choose another name, e.g. --prefix model_.",
                )
            new = texts_of(batch, column, source=incoming.name, limit=incoming.limit)
            length = sum(len(text or "") for text in new)
            if texts and (len(texts) + len(new) > fitting or size + length > _CHARACTERS):
                yield _Group(_joined(batches), texts)
                batches, texts, size, fitting = [], [], 0, most
            batches.append(batch)
            texts += new
            size += length
        if incoming.live:
            yield _Group(_joined(batches), texts) if batches else None
            batches, texts, size = [], [], 0
    if batches:
        yield _Group(_joined(batches), texts)


def _pieces(batch: Batch, most: int) -> Iterator[Batch]:
    """A batch in pieces of at most ``most`` rows; the first one counts what was skipped."""
    if len(batch) <= most:
        yield batch
        return
    for start in range(0, len(batch), most):
        part = slice(start, start + most)
        columns = {name: values[part] for name, values in batch.columns.items()}
        yield replace(batch, rows=batch.rows[part], columns=columns, skipped={} if start else batch.skipped)


def _joined(batches: list[Batch]) -> list[Batch]:
    """One batch if all have the same columns, which is faster to write; JSON objects may differ."""
    names = list(batches[0].columns)
    if len(batches) == 1 or any(list(batch.columns) != names for batch in batches):
        return batches
    columns = {name: list(itertools.chain.from_iterable(batch.columns[name] for batch in batches)) for name in names}
    skipped: Counter[str] = Counter()
    for batch in batches:
        skipped.update(batch.skipped)
    return [Batch(list(itertools.chain.from_iterable(batch.rows for batch in batches)), columns, dict(skipped))]


def _rows(job: _Job, group: _Group, probabilities: np.ndarray) -> Iterator[Mapping[str, Any]]:
    answers = answers_of(job.request, job.predictor, group.texts, probabilities, job.added, job.abstain_below)
    start = 0
    for batch in group.batches:
        end = start + len(batch)
        if len(batch):
            rows = batch.columns | {name: values[start:end] for name, values in answers.items()}
            yield without_formulas(rows) if job.safe else rows
        start = end


def answers_of(
    request: Request,
    predictor: Predictor,
    texts: Sequence[str | None],
    probabilities: np.ndarray,
    added: Sequence[str],
    abstain_below: float | None,
) -> dict[str, list[Any]]:
    """The added columns of some texts; with ``--explain``, the last one is the explanation."""
    names = list(added)
    explanation = names.pop() if request.explain else None
    answers = {name: _plain(values) for name, values in predictor.columns_of(probabilities, names).items()}
    if explanation is not None:
        labels = answers[names[0]]
        answers[explanation] = [one.cells() if one.label else None for one in predictor.explain(texts, label=labels)]
    if abstain_below is not None:
        label, score = names[:2]
        pairs = zip(answers[label], answers[score], strict=True)
        answers[label] = [UNSURE if value is not None and value < abstain_below else name for name, value in pairs]
    return answers


def _text_column(request: Request, predictor: Predictor, incoming: Incoming) -> str:
    wanted, trained_on = request.text_column, predictor.info.text_column
    if not incoming.columns:
        return wanted or "text"  # no rows at all, which is not an error
    if wanted is None and request.config.data.text_column in incoming.columns:
        wanted = request.config.data.text_column
    column = find_text(incoming.columns, wanted, source=incoming.name, trained_on=trained_on)
    if line := text_note(incoming.columns, column, trained_on, source=incoming.name):
        note(line)
    return column


def types_of(incoming: Incoming) -> dict[str, Any]:
    """Arrow types of the columns of an input: its own if it has types; of lines and tables of text, string."""
    import pyarrow

    if incoming.kind in ("csv", "tsv", "lines"):
        return dict.fromkeys(incoming.columns, pyarrow.string())
    return dict(incoming.types)


def _types(incoming: Incoming, added: Sequence[str]) -> dict[str, Any]:
    import pyarrow

    # An explanation has no type: the writer makes it JSON.
    label, *figures = [name for name in added if not name.endswith(_EXPLANATION)]
    return types_of(incoming) | {label: pyarrow.string()} | dict.fromkeys(figures, pyarrow.float64())


def _plain(values: np.ndarray) -> list[Any]:
    """Labels unchanged, probabilities rounded, NaN as null."""
    if values.dtype == object:
        return list(values)
    return [None if value != value else round(value, _DIGITS) for value in values.astype(float).tolist()]
