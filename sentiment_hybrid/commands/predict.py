"""`senthy predict`: labels texts from arguments, a file or a pipe, and writes each row with its prediction."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from sentiment_hybrid import __version__, console, paths, tables
from sentiment_hybrid.console import note, progress, warn
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.prefetch import one_ahead
from sentiment_hybrid.errors import ColumnError, LabelError, ModelError, SourceError, UsageError, count
from sentiment_hybrid.files import recover
from sentiment_hybrid.heads import HEADS

if TYPE_CHECKING:
    import numpy as np

    from sentiment_hybrid.config.schema import Config, Data
    from sentiment_hybrid.data.sources import Batch, Limit, Source
    from sentiment_hybrid.data.writers import Quoting
    from sentiment_hybrid.engine.inference.explanations import Explanation
    from sentiment_hybrid.engine.inference.predictor import Backend, Prediction, Predictor

Format = Literal["lines", "csv", "tsv", "jsonl"]

STDIN = "-"
#: Settings of ``data`` that decide what is read.
_READING = ("table", "encoding", "delimiter", "quoting", "bad_rows", "max_text_bytes")
#: The column that --explain adds.
_EXPLANATION = "explanation"
#: Digits written for a probability; further digits are rounding noise.
_DIGITS = 6
#: Rows read at a time; several of these batches are labelled together.
_READ = 1024
#: Seconds that a text from a pipe waits for others, and how many texts are answered together at first.
_PATIENCE, _FEW = 0.05, 256
#: Maximum number of characters labelled together, since texts may be long.
_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Request:
    """What to label, with which model, and where to write it.

    Args:
        texts: the texts; ``-`` alone means standard input, as does an empty list if standard input is not a terminal.
        config: for its ``paths``, how files are read (``data.encoding``, ``quoting``, ``bad_rows``), and
            ``<model>.train.precision`` and ``token_budget``.
        model_dir: a model directory; otherwise the published model of ``head``, or the newest one of any head.
        input_file: csv, tsv, jsonl, parquet, lines (.txt), each also gzipped, SQLite, or ``-``.
        output_file: its suffix sets the format, and it appears once complete; None means stdout, in the input's format.
        as_json: write JSON Lines.
        file_format: format of a pipe (default: lines, or csv if the first line is the name of a text column), or of a
            file with an unknown suffix.
        text_column: the column to label; None means the configured one if it exists, else detected by name.
        table: table of an SQLite input.
        precision: auto, fp32, bf16, fp16 or int8; None means ``<model>.train.precision``.
        encoder: where the encoder of the model is, if not where the model says.
        backend: ``onnx`` runs an export: without ``model_dir``, that of ``head`` or the first one found.
        labels: choose among these labels of the model only, with renormalised probabilities; None means all.
        prefix: of the added columns; None means none, or ``senthy_`` if the input has one of their names.
        resume: continue a stopped run of the same request behind its last complete block.
        safe_csv: in csv and tsv, put a ' before values that a spreadsheet would compute as formulas.
        explain: add a column ``explanation``: the words of the text with their weights for its label.
    """

    texts: Sequence[str] = ()
    _: KW_ONLY
    config: Config
    model_dir: Path | None = None
    head: str | None = None
    input_file: Path | None = None
    output_file: Path | None = None
    as_json: bool = False
    file_format: Format | None = None
    text_column: str | None = None
    table: str | None = None
    precision: str | None = None
    device: str = "auto"
    offline: bool = False
    encoder: Path | str | None = None
    backend: Backend = "auto"
    labels: Sequence[str] | None = None
    prefix: str | None = None
    resume: bool = False
    safe_csv: bool = False
    explain: bool = False

    @property
    def given(self) -> list[str]:
        """The texts, if they are arguments."""
        return [] if list(self.texts) == [STDIN] else [_argument(text) for text in self.texts]

    @property
    def source(self) -> Path | None:
        """The file to read; None for arguments and standard input."""
        return None if self.input_file is None or str(self.input_file) == STDIN else self.input_file.expanduser()

    @property
    def data(self) -> Data:
        """How files are read."""
        data = self.config.data
        return data if self.table is None else data.model_copy(update={"table": self.table})


@dataclass(frozen=True)
class PredictResult:
    """Counts of what was labelled, and the output.

    ``texts`` and ``predictions`` are set for texts given as arguments whose predictions were not written, and so are
    ``explanations`` if they were wanted.
    """

    model_dir: Path
    labels: tuple[str, ...]
    rows: int
    empty: int
    truncated: int
    skipped: int
    seconds: float
    output: Path | None = None
    texts: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    explanations: tuple[Explanation, ...] = ()


@dataclass(frozen=True)
class _Incoming:
    """The rows of an input: name, format, columns and, for parquet, Arrow types.

    ``batches`` are lists of batches that are read together; those of a pipe are answered at once (``live``), and an
    empty one means that the next may take a while. ``stamp`` changes with the content of a file.
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
class _Layout:
    """How rows are written: format, all columns, those added, and what else the writer must know."""

    kind: str
    columns: list[str]
    added: list[str]
    types: Mapping[str, Any]
    quoting: Quoting
    numbers: Collection[str]
    safe: bool = False
    explained: bool = False

    @property
    def style(self) -> dict[str, Any]:
        """The arguments of a writer."""
        return {"types": self.types, "quoting": self.quoting, "numbers": self.numbers}


@dataclass(frozen=True)
class _Group:
    """Rows that are labelled together, as read, and their texts in order."""

    batches: list[Batch]
    texts: list[str | None]


def run(request: Request) -> PredictResult:
    """Label texts and write each row with ``prediction``, ``score`` and ``p_<label>`` added, in input order.

    Raises:
        UsageError: the options contradict each other, the model lacks one of ``labels``, or fewer than two are given.
        SourceError, ColumnError: the input cannot be read, has no text column, or has a column that would be added.
        ModelError, EncoderError: the model or its encoder cannot be loaded.
        OutputError: the output cannot be written, or another process is writing it.
        TrainingError: the device is unavailable, or does not support the precision.
    """
    started = time.perf_counter()
    _check_usage(request)
    _check_files(request)
    texts = request.given
    rows, skipped = len(texts), 0
    predictions: tuple[Prediction, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    if texts and request.output_file is None and not request.as_json:
        predictor, directory = _predictor(request)
        found = predictor.compute(predictor.prepare(texts))
        predictions = tuple(predictor.prediction(row) for row in found)
        explanations = tuple(predictor.explain(texts)) if request.explain else ()
    else:
        with contextlib.ExitStack() as stack:
            incoming = _of_texts(texts) if texts else _open(stack, request)
            predictor, directory = _predictor(request)
            rows, skipped = _label(stack, request, predictor, incoming)
    _report(predictor, skipped)
    counts = {"rows": rows, "empty": predictor.empty, "truncated": predictor.truncated, "skipped": skipped}
    return PredictResult(
        directory, predictor.labels, **counts, seconds=time.perf_counter() - started, output=request.output_file,
        texts=tuple(texts) if predictions else (), predictions=predictions, explanations=explanations,
    )  # fmt: skip


def _check_usage(request: Request) -> None:
    """Reject options that contradict each other before anything heavy is loaded."""
    texts, source = request.texts, request.input_file
    if isinstance(texts, str):
        raise UsageError("texts must be a list, not a single str", hint="Pass [text].")
    if texts and source is not None:
        raise UsageError("both texts and --input were given", hint="Use only one of them.")
    if request.given and (request.file_format or request.text_column or request.table):
        raise UsageError(
            "--format, --text-column and --table apply to a file or a pipe, but texts were given as arguments"
        )
    if not texts and source is None and _is_terminal(sys.stdin):
        raise UsageError("nothing to label", hint='Give texts ("what a day") or --input FILE, or use a pipe.')
    if request.table is not None and request.source is None:
        raise UsageError("--table applies to an SQLite --input, not to a pipe", hint="Leave out --table.")
    if request.resume and (request.source is None or request.output_file is None):
        raise UsageError("--resume needs --input FILE and --output FILE", hint="Name both, or leave out --resume.")


def _check_files(request: Request) -> None:
    """Reject files that do not suit the options, before anything heavy is loaded."""
    source, output = request.source, request.output_file
    if request.table is not None and source is not None:
        from sentiment_hybrid.data.sources import kind_of

        kind = request.file_format or ("csv" if str(source) == "sample" else kind_of(source))
        if kind != "sqlite":
            raise UsageError(f"--table applies to SQLite, but {source} is {kind}", hint="Leave out --table.")
    if output is None:
        return
    from sentiment_hybrid.data.writers import kind_of_output

    kind = kind_of_output(output)
    if request.as_json and kind != "jsonl":
        raise UsageError(f"--json and --output {output} contradict each other", hint="Name the output .jsonl.")
    if request.resume and kind == "sqlite":
        raise UsageError(
            "--resume does not work with an SQLite output", hint="Write .csv, .tsv, .jsonl (each also .gz) or .parquet."
        )
    if source is not None and _is_same(source, output):
        raise UsageError(f"--output is the same file as --input: {source}", hint="Choose another output file.")


def _is_terminal(stream: Any) -> bool:
    return stream is None or bool(stream.isatty())


def _is_same(first: Path, second: Path) -> bool:
    first, second = first.expanduser(), second.expanduser()
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))


def _argument(text: str) -> str:
    """An argument as valid text: bytes that are not UTF-8 arrive as surrogates, which cannot be written to a file."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# --- rows in ---------------------------------------------------------------------------------------------------------


def _of_texts(texts: list[str]) -> _Incoming:
    from sentiment_hybrid.data.sources import Batch

    batch = Batch(range(1, len(texts) + 1), {"text": list(texts)})
    return _Incoming("the arguments", "lines", ["text"], iter([[batch]]))


def _open(stack: contextlib.ExitStack, request: Request) -> _Incoming:
    """The rows of a file, or of standard input."""
    from sentiment_hybrid.data.sources import kind_of, open_source, open_stream

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
    return _Incoming(
        source.name, found, list(source.columns), batches, source.types, source.quoting, source.numbers,
        source.limit, stamp=_stamp(path), total=lambda: source.total,
    )  # fmt: skip


def _stamp(path: Path) -> tuple[int | str, ...]:
    """What changes when a file does: its path, size and time, and those of an SQLite log beside it."""
    places = [place for place in (path, path.with_name(f"{path.name}-wal")) if place.is_file()]
    facts = [place.stat() for place in places]
    return (str(path.resolve()), *(number for one in facts for number in (one.st_size, one.st_mtime_ns)))


def _piped(stack: contextlib.ExitStack, request: Request) -> _Incoming:
    """The rows of standard input; what goes to standard output is answered as it comes."""
    from sentiment_hybrid.data.sources import LiveStream, open_stream

    if sys.stdin is None:
        raise UsageError("standard input is not available", hint="Use --input FILE.")
    if request.output_file is not None:
        source = open_stream(sys.stdin.buffer, request.data, kind=request.file_format)
        return _streamed(source, _batches(stack, source))
    pipe = LiveStream(sys.stdin.buffer)
    source = open_stream(pipe, request.data, kind=request.file_format)
    incoming = _streamed(source, _batches(stack, source, size=1))
    return replace(incoming, batches=_as_they_come(incoming.batches, pipe.ready), live=True)


def _streamed(source: Source, batches: Iterator[Batch]) -> _Incoming:
    """Rows that can be read only once: the columns come from the first batch."""
    first = list(itertools.islice(batches, 1))
    columns = list(first[0].columns) if first else list(source.columns)
    every = ([batch] for batch in itertools.chain(first, batches))
    return _Incoming(
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
    from sentiment_hybrid.engine.inference.predictor import CHUNK

    batches = source.batches(native=True, size=min(CHUNK, size or _READ))
    stack.enter_context(contextlib.closing(batches))  # type: ignore[type-var]
    return batches


def _as_they_come(batches: Iterator[list[Batch]], ready: Callable[[float], bool]) -> Iterator[list[Batch]]:
    """Batches that have come within `_PATIENCE`, together; few at first, so that the first answers come soon.

    An empty list says that no further row is there yet.
    """
    from sentiment_hybrid.engine.inference.predictor import CHUNK

    most = min(_FEW, CHUNK)
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
            waiting, most = [], min(2 * most, CHUNK)
    if waiting:
        yield waiting


# --- the model -------------------------------------------------------------------------------------------------------


def _predictor(request: Request) -> tuple[Predictor, Path]:
    from sentiment_hybrid.engine.inference.onnx_runtime import is_export
    from sentiment_hybrid.engine.inference.predictor import Predictor

    config, head = request.config, request.head
    directory = _directory(request)
    known = read_info(directory).head
    if head is not None and known != head:
        raise ModelError(f"{directory} is a {known} model, not {head}", hint=f"Use --model {known}.")
    settings = config.model(known).train
    try:
        predictor = Predictor(
            directory,
            device=request.device,
            offline=request.offline,
            encoder=request.encoder,
            cache_dir=config.paths.cache_dir,
            token_budget=settings.token_budget,
            precision=request.precision or ("auto" if is_export(directory) else settings.precision),
            backend=request.backend,
            labels=request.labels,
            max_text_bytes=config.data.max_text_bytes,
        )
    except LabelError as error:
        raise UsageError(error.message, hint=error.hint) from error
    return predictor, directory


def _directory(request: Request) -> Path:
    """The directory of the model; says which it is, if that was not given."""
    from sentiment_hybrid.engine.inference.predictor import chosen_model

    models_dir = request.config.paths.models_dir
    if request.backend == "onnx" and request.model_dir is None:
        directory = _exported(models_dir, request.head)
        note(f"using {directory}")
        return directory
    return chosen_model(models_dir, request.model_dir, request.head)


def _exported(models_dir: Path, head: str | None) -> Path:
    """The export of a head, or of the first head that has one; float32 before int8. Raises ModelError."""
    heads = list(HEADS) if head is None else [head]
    places = [paths.exported_model(models_dir, name, kind) for name in heads for kind in (None, "int8")]
    for place in places:
        if recover(place).is_dir():
            return place
    raise ModelError(
        f"no exported model found: {models_dir} has no {' or '.join(place.name for place in places)}",
        hint="Create one with senthy export, or give its directory with --load-model-path.",
    )


# --- labelling -------------------------------------------------------------------------------------------------------


def _label(stack: contextlib.ExitStack, request: Request, predictor: Predictor, incoming: _Incoming) -> tuple[int, int]:
    """Stream the rows through the model; returns the numbers of rows written and of unreadable rows skipped.

    A group is cleaned and tokenised in a thread while the one before it is computed and written.
    """
    column = _text_column(incoming, request.text_column, request.data, predictor.info.text_column)
    layout = _layout(request, predictor, incoming, column)
    groups = _groups(incoming, column, layout.added, most=_READ if request.explain else None)
    counts: Counter[str] = Counter()
    shared = request.output_file is None and _is_terminal(sys.stdout)  # by the rows and the progress
    bar = stack.enter_context(progress("predicting", incoming.total, unit="texts", hidden=shared))
    write = _parts(stack, request, predictor, incoming, layout, counts)
    write = write or _whole(stack, request, predictor, incoming, layout)
    if skip := counts.pop("groups", 0):
        groups = itertools.islice(groups, skip, None)
        bar.skip(counts["rows"])
    prepared = one_ahead(lambda group: (group, predictor.prepare(group.texts)), groups)
    for group, texts in stack.enter_context(contextlib.closing(prepared)):
        probabilities = predictor.compute(texts, progress=bar.advance)
        counts["rows"] += len(group.texts)
        counts["skipped"] += sum(sum(batch.skipped.values()) for batch in group.batches)
        write(group, probabilities)
        bar.update(completed=counts["rows"])
    return counts["rows"], counts["skipped"]


def _layout(request: Request, predictor: Predictor, incoming: _Incoming, column: str) -> _Layout:
    """How rows are written: as they were read, as far as the format of the output allows."""
    from sentiment_hybrid.data.writers import kind_of_output, without_formula

    output, quoting = request.output_file, request.data.quoting
    more = (_EXPLANATION,) if request.explain else ()
    added = predictor.columns_beside(incoming.columns, prefix=request.prefix, more=more)
    if request.prefix is None and added != [*predictor.added_columns, *more]:
        note(f"{incoming.name} has columns of such names, so those added are {', '.join(added)} (--prefix)")
    kind = kind_of_output(output) if output is not None else "jsonl" if request.as_json else incoming.kind
    if output is None and kind not in ("csv", "tsv", "jsonl"):
        kind = "csv"
    others = [name for name in incoming.columns if name != column]
    safe = request.safe_csv and kind in ("csv", "tsv")
    columns = [*incoming.columns, *added]
    return _Layout(
        kind,
        [without_formula(name) for name in columns] if safe else columns,
        added,
        types=_types(incoming, added) if kind == "parquet" else {},
        quoting=incoming.quoting if quoting == "auto" and incoming.kind == kind == "tsv" else quoting,
        numbers=incoming.numbers(others) if kind == "jsonl" else (),
        safe=safe,
        explained=request.explain,
    )


def _whole(
    stack: contextlib.ExitStack, request: Request, predictor: Predictor, incoming: _Incoming, layout: _Layout
) -> Callable[[_Group, np.ndarray], object]:
    """What writes groups to standard output, or to a file that cannot be resumed."""
    from sentiment_hybrid.data.writers import open_writer

    writer = stack.enter_context(open_writer(request.output_file, layout.columns, kind=layout.kind, **layout.style))

    def write(group: _Group, probabilities: np.ndarray) -> None:
        for rows in _rows(predictor, group, probabilities, layout):
            writer.write(rows)
        if incoming.live:
            sys.stdout.flush()

    return write


def _parts(
    stack: contextlib.ExitStack,
    request: Request,
    predictor: Predictor,
    incoming: _Incoming,
    layout: _Layout,
    counts: Counter[str],
) -> Callable[[_Group, np.ndarray], object] | None:
    """What writes groups from a file to a file, so that it can be resumed; None for anything else.

    ``counts`` becomes that of a stopped run that is resumed, and ``groups`` in it how many groups are there.
    """
    output = request.output_file
    if output is None or not incoming.stamp or layout.kind == "sqlite":
        return None
    from sentiment_hybrid.data.parts import open_parts

    parts = stack.enter_context(open_parts(output, layout.columns, **layout.style))
    options = {
        "columns": layout.columns,
        "safe": layout.safe,
        "text_column": request.text_column,
        "format": incoming.kind,
    }
    options |= request.data.model_dump(mode="json", include={*_READING})
    key = {"input": list(incoming.stamp), "model": predictor.identity, "options": options, "version": __version__}
    discarded = parts.find(key, resume=request.resume)
    if discarded:
        note(f"starting over; a stopped run had labelled {count(discarded['rows'], 'text')} (--resume continues it)")
    elif request.resume:
        note(f"resuming after {count(parts.facts['rows'], 'text')}" if parts.done else "there is nothing to resume")
    counts.update(parts.facts, groups=parts.done)
    predictor.empty, predictor.truncated, predictor.tokens = (
        counts.pop(name, 0) for name in ("empty", "truncated", "tokens")
    )

    def write(group: _Group, probabilities: np.ndarray) -> None:
        facts = {"empty": predictor.empty, "truncated": predictor.truncated, "tokens": predictor.tokens}
        parts.write(_rows(predictor, group, probabilities, layout), {**counts, **facts})

    return write


def _groups(
    incoming: _Incoming, column: str, added: Sequence[str], *, most: int | None = None
) -> Iterator[_Group | None]:
    """Batches joined into groups until there are enough rows or characters; None where more may take a while."""
    from sentiment_hybrid.data.sources import texts_of
    from sentiment_hybrid.engine.inference.predictor import CHUNK

    most = min(CHUNK, most or CHUNK)
    batches: list[Batch] = []
    texts: list[str | None] = []
    size = 0
    for some in incoming.batches:
        new: list[str | None] = []
        for batch in some:
            if clash := [name for name in added if name in batch.columns]:
                raise ColumnError(
                    f"{incoming.name}, row {batch.rows[0]} or later: a key {clash[0]!r}, which a prediction adds",
                    hint="Choose another name, e.g. --prefix model_.",
                )
            new += texts_of(batch, column, source=incoming.name, limit=incoming.limit)
        length = sum(len(text or "") for text in new)
        if texts and (len(texts) + len(new) > most or size + length > _CHARACTERS):
            yield _Group(_joined(batches), texts)
            batches, texts, size = [], [], 0
        batches += some
        texts += new
        size += length
        if incoming.live:
            yield _Group(_joined(batches), texts) if batches else None
            batches, texts, size = [], [], 0
    if batches:
        yield _Group(_joined(batches), texts)


def _joined(batches: list[Batch]) -> list[Batch]:
    """One batch if all have the same columns, which is faster to write; JSON objects may differ."""
    from sentiment_hybrid.data.sources import Batch

    names = list(batches[0].columns)
    if len(batches) == 1 or any(list(batch.columns) != names for batch in batches):
        return batches
    columns = {name: list(itertools.chain.from_iterable(batch.columns[name] for batch in batches)) for name in names}
    skipped: Counter[str] = Counter()
    for batch in batches:
        skipped.update(batch.skipped)
    return [Batch(list(itertools.chain.from_iterable(batch.rows for batch in batches)), columns, dict(skipped))]


def _rows(
    predictor: Predictor, group: _Group, probabilities: np.ndarray, layout: _Layout
) -> Iterator[Mapping[str, Any]]:
    """The rows of a group with their predictions."""
    from sentiment_hybrid.data.writers import without_formulas

    answers = _answers(predictor, group.texts, probabilities, layout)
    start = 0
    for batch in group.batches:
        end = start + len(batch)
        if len(batch):
            rows = batch.columns | {name: values[start:end] for name, values in answers.items()}
            yield without_formulas(rows) if layout.safe else rows
        start = end


def _answers(
    predictor: Predictor, texts: Sequence[str | None], probabilities: np.ndarray, layout: _Layout
) -> dict[str, list[Any]]:
    """The added columns of some texts."""
    names = list(layout.added)
    explanation = names.pop() if layout.explained else None
    answers = {name: _plain(values) for name, values in predictor.columns_of(probabilities, names).items()}
    if explanation is not None:
        labels = answers[names[0]]
        answers[explanation] = [one.cells() if one.label else None for one in predictor.explain(texts, label=labels)]
    return answers


def _text_column(incoming: _Incoming, wanted: str | None, data: Data, trained_on: str | None) -> str:
    from sentiment_hybrid.data.columns import find_text, text_note

    if not incoming.columns:
        return wanted or "text"  # no rows at all, which is not an error
    if wanted is None and data.text_column in incoming.columns:
        wanted = data.text_column
    column = find_text(incoming.columns, wanted, source=incoming.name, trained_on=trained_on)
    if line := text_note(incoming.columns, column, trained_on, source=incoming.name):
        note(line)
    return column


def _types(incoming: _Incoming, added: Sequence[str]) -> dict[str, Any]:
    """Arrow types for a parquet output: those of the input if it has types, otherwise string."""
    import pyarrow

    types = dict(incoming.types)
    if incoming.kind in ("csv", "tsv", "lines"):
        types = dict.fromkeys(incoming.columns, pyarrow.string())
    # An explanation has no type: the writer makes it JSON.
    label, *figures = [name for name in added if not name.endswith(_EXPLANATION)]
    return types | {label: pyarrow.string()} | dict.fromkeys(figures, pyarrow.float64())


def _plain(values: np.ndarray) -> list[Any]:
    """Labels unchanged, probabilities rounded, NaN as null."""
    if values.dtype == object:
        return list(values)
    return [None if value != value else round(value, _DIGITS) for value in values.astype(float).tolist()]


def _report(predictor: Predictor, skipped: int) -> None:
    """Print what the output does not show."""
    if predictor.empty:
        note(f"no prediction for {count(predictor.empty, 'text')} (empty after cleaning)")
    if predictor.truncated:
        windows, length = predictor.info.max_windows, predictor.info.max_length
        note(f"{count(predictor.truncated, 'text')} cut after {windows} x {length} tokens")
    if skipped:
        warn(f"{count(skipped, 'unreadable row')} skipped")


def show(result: PredictResult) -> None:
    """Show the predictions of texts given as arguments; those of a file have been written already."""
    if result.output is not None:
        console.say(f"{result.output}: {count(result.rows, 'text')} labelled in {console.duration(result.seconds)}")
    if not result.texts:
        return
    if result.explanations:
        for one in result.explanations:
            tables.explanation(one)
        return
    rows = [
        ["-", "-", text] if one.label is None else [one.label, f"{one.score:.3f}", text]
        for text, one in zip(result.texts, result.predictions, strict=True)
    ]
    console.table("", ["prediction", "score", "text"], rows, left=3)
