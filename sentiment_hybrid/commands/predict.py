"""`senthy predict`: texts in from arguments, a file or a pipe, the same rows with their predictions out."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from sentiment_hybrid import paths
from sentiment_hybrid.errors import ModelError, SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from sentiment_hybrid.config.schema import Config, Data
    from sentiment_hybrid.data.sinks import Sink
    from sentiment_hybrid.data.sources import Batch, Source
    from sentiment_hybrid.engine.predictor import Backend, Prediction, Predictor

Format = Literal["lines", "csv", "tsv", "jsonl"]

STDIN = "-"
#: Digits of a probability that are written: more is noise of the arithmetic.
_DIGITS = 6
#: Rows that are read at once; as many of these as fit are labelled together.
_READ = 1024
#: Characters of texts that are labelled together, at most: rows of a file may be long.
_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class PredictResult:
    """What was labelled, and where the rows went.

    ``texts`` and ``predictions`` are there for texts given as arguments that went nowhere else.
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


@dataclass(frozen=True)
class _Incoming:
    """Rows on their way in: where from, in which format, their columns and, for parquet, Arrow types."""

    name: str
    kind: str
    columns: list[str]
    batches: Iterator[Batch]
    types: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Group:
    """Rows that are labelled together, as they were read, and their texts one after the other."""

    batches: list[Batch]
    texts: list[str | None]


def run(
    texts: Sequence[str] = (),
    *,
    config: Config,
    model_dir: Path | None = None,
    head: str | None = None,
    input_file: Path | None = None,
    output_file: Path | None = None,
    as_json: bool = False,
    file_format: Format | None = None,
    text_column: str | None = None,
    table: str | None = None,
    precision: str | None = None,
    device: str = "auto",
    offline: bool = False,
    encoder: Path | str | None = None,
    backend: Backend = "auto",
) -> PredictResult:
    """Label texts and write each row with ``prediction``, ``score`` and ``p_<label>`` added, in the order they came.

    Args:
        texts: the texts themselves; ``-`` alone is standard input, as nothing at all is when that is no terminal.
        config: for its ``paths.models_dir``, how files are read (``data.encoding``, ``quoting``, ``bad_rows``), and
            ``<model>.train.precision`` and ``token_budget``.
        model_dir: a model directory; otherwise the published model of ``head``, or the first there is.
        input_file: csv, tsv, jsonl, parquet, lines (.txt), each also gzipped, SQLite, or ``-``.
        output_file: written by its suffix and put in place when complete; None is stdout, in the input's format.
        as_json: one JSON object a line.
        file_format: of a pipe (lines otherwise), or of a file whose suffix does not tell.
        text_column: the column to label; None is that of the config if it is there, else found by name.
        table: of an SQLite input.
        precision: auto, fp32, bf16, fp16 or int8; None is that of ``<model>.train.precision``.
        backend: ``onnx`` runs an export, the one of ``head`` or the first there is where no directory is named.

    Raises:
        UsageError: options that contradict each other.
        SourceError, ColumnError: the input cannot be read, lacks the text column, or has a column that would be added.
        ModelError, EncoderError, OutputError: as their names say.
        TrainingError: the device is not there, or does not compute in that precision.
    """
    started = time.perf_counter()
    _check_usage(texts, input_file, output_file, as_json=as_json, file_format=file_format, text_column=text_column)
    data = config.data if table is None else config.data.model_copy(update={"table": table})
    with contextlib.ExitStack() as stack:
        given = [] if list(texts) == [STDIN] else [_argument(text) for text in texts]
        incoming = _of_texts(given) if given else _open(stack, input_file, data, file_format)
        computing: dict[str, Any] = {"precision": precision, "device": device, "backend": backend}
        predictor, directory = _predictor(config, model_dir, head, offline=offline, encoder=encoder, **computing)
        if given and output_file is None and not as_json:
            predictions = tuple(predictor.predict(given))
            rows, skipped = len(given), 0
        else:
            predictions, given = (), []
            kind = "jsonl" if as_json else incoming.kind
            rows, skipped = _label(predictor, incoming, output_file, data, kind=kind, text_column=text_column)
    _tell(predictor, skipped)
    counts = {"rows": rows, "empty": predictor.empty, "truncated": predictor.truncated, "skipped": skipped}
    seconds = time.perf_counter() - started
    return PredictResult(
        directory, predictor.labels, **counts, seconds=seconds, output=output_file, texts=tuple(given),
        predictions=predictions,
    )  # fmt: skip


def _check_usage(
    texts: Sequence[str],
    input_file: Path | None,
    output_file: Path | None,
    *,
    as_json: bool,
    file_format: str | None,
    text_column: str | None,
) -> None:
    """Say what makes no sense before anything heavy is loaded."""
    from sentiment_hybrid.data.sinks import kind_of_output

    if isinstance(texts, str):
        raise UsageError("texts is one str", hint="Put it in a list.")
    named = bool(texts) and list(texts) != [STDIN]
    if texts and input_file is not None:
        raise UsageError("texts and --input were given", hint="Use one of them.")
    if named and (file_format or text_column):
        raise UsageError("--format and --text-column describe a file or a pipe, and texts were given")
    if not texts and input_file is None and _is_terminal(sys.stdin):
        raise UsageError("nothing to label", hint='Give texts ("what a day"), --input FILE, or pipe lines into senthy.')
    if output_file is None:
        return
    kind = kind_of_output(output_file)
    if as_json and kind != "jsonl":
        raise UsageError(f"--json and --output {output_file} contradict each other", hint="Name the output .jsonl.")
    if input_file is not None and _is_same(input_file, output_file):
        raise UsageError(f"--output is the input itself, {input_file}", hint="Name another file.")


def _is_terminal(stream: Any) -> bool:
    return stream is None or bool(stream.isatty())


def _is_same(first: Path, second: Path) -> bool:
    first, second = first.expanduser(), second.expanduser()
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))


def _argument(text: str) -> str:
    """An argument as text: bytes that are no UTF-8 reach a program as half characters, which no file can hold."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# --- rows in ---------------------------------------------------------------------------------------------------------


def _of_texts(texts: list[str]) -> _Incoming:
    from sentiment_hybrid.data.sources import Batch

    batch = Batch(range(1, len(texts) + 1), {"text": list(texts)})
    return _Incoming("the arguments", "lines", ["text"], iter([batch]))


def _open(stack: contextlib.ExitStack, path: Path | None, data: Data, file_format: Format | None) -> _Incoming:
    """The rows of a file, or of standard input."""
    from sentiment_hybrid.data.sources import ParquetSource, kind_of, open_source, open_stream

    if path is None or str(path) == STDIN:
        if sys.stdin is None:
            raise UsageError("there is no standard input here", hint="Use --input FILE.")
        kind = file_format or "lines"
        return _streamed(stack, open_stream(sys.stdin.buffer, data, kind=kind), kind)
    path = path.expanduser()
    if file_format is not None:
        source = open_stream(_opened(stack, path), data, kind=file_format, name=str(path))
        return _streamed(stack, source, file_format)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path} is a pipe, whose name does not tell what is in it", hint="Say so with --format.")
    found = "csv" if str(path) == "sample" else kind_of(path)
    source = open_source(str(path), data, offline=True)
    types = source.types if isinstance(source, ParquetSource) else {}
    return _Incoming(source.name, found, list(source.columns), _batches(stack, source), types)


def _streamed(stack: contextlib.ExitStack, source: Source, kind: str) -> _Incoming:
    """Rows that can be read once: the first batch tells the columns."""
    batches = _batches(stack, source)
    first = list(itertools.islice(batches, 1))
    columns = list(first[0].columns) if first else list(source.columns)
    return _Incoming(source.name, kind, columns, itertools.chain(first, batches))


def _opened(stack: contextlib.ExitStack, path: Path) -> BinaryIO:
    try:
        file = stack.enter_context(path.open("rb"))
        if file.peek(2)[:2] == b"\x1f\x8b":
            return stack.enter_context(gzip.open(file))  # type: ignore[return-value]
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    return file


def _batches(stack: contextlib.ExitStack, source: Source) -> Iterator[Batch]:
    """Whole rows, a chunk at a time; let go of with the stack, whatever happens in between."""
    from sentiment_hybrid.engine.predictor import CHUNK

    batches = source.batches(native=True, size=min(CHUNK, _READ))
    stack.enter_context(contextlib.closing(batches))  # type: ignore[type-var]
    return batches


# --- labelling -------------------------------------------------------------------------------------------------------


def _predictor(
    config: Config,
    model_dir: Path | None,
    head: str | None,
    *,
    precision: str | None,
    device: str,
    offline: bool,
    encoder: Path | str | None,
    backend: Backend,
) -> tuple[Predictor, Path]:
    from sentiment_hybrid.console import note
    from sentiment_hybrid.engine.checkpoint import read_info
    from sentiment_hybrid.engine.onnx_backend import is_export
    from sentiment_hybrid.engine.predictor import Predictor, model_directory, published, published_or_mini

    models_dir = config.paths.models_dir
    if model_dir is not None:
        directory = model_directory(model_dir)
    elif backend == "onnx":
        directory = _exported(models_dir, head)
    else:
        # A head that was asked for by name is not replaced by another model with labels of its own.
        directory = published_or_mini(models_dir) if head is None else published(models_dir, head)
    if model_dir is None and directory.parent == paths.mini_dir():
        note(f"no trained model in {models_dir}: using mini, the small {directory.name} model of the package")
    elif model_dir is None and backend == "onnx":
        note(f"using {directory}")
    elif model_dir is None and head is None:
        others = [name for name in paths.DISPLAY_NAMES if paths.published_model(models_dir, name).is_dir()]
        others = [name for name in others if paths.published_model(models_dir, name) != directory]
        if others:
            note(f"using {directory} (--model takes another: {', '.join(others)})")
    known = read_info(directory).head
    if head is not None and known != head:
        raise ModelError(f"{directory} is a {known} model, not {head}", hint=f"Use --model {known}.")
    settings = config.model(known).train
    predictor = Predictor(
        directory,
        device=device,
        offline=offline,
        encoder=encoder,
        cache_dir=config.paths.cache_dir,
        token_budget=settings.token_budget,
        precision=precision or ("auto" if is_export(directory) else settings.precision),
        backend=backend,
    )
    return predictor, directory


def _exported(models_dir: Path, head: str | None) -> Path:
    """The export of a head, or of the first head that has one; in float32 before int8. Raises ModelError."""
    heads = list(paths.DISPLAY_NAMES) if head is None else [head]
    places = [paths.exported_model(models_dir, name, kind) for name in heads for kind in (None, "int8")]
    for place in places:
        if place.is_dir():
            return place
    raise ModelError(
        f"there is no export yet: {models_dir} has no {' or '.join(place.name for place in places)}",
        hint="Make one first (senthy export), or name its directory with --load-model-path.",
    )


def _label(
    predictor: Predictor,
    incoming: _Incoming,
    output: Path | None,
    data: Data,
    *,
    kind: str,
    text_column: str | None,
) -> tuple[int, int]:
    """Stream the rows through the model; returns how many were written, and how many were left out as unreadable.

    A group is cleaned and tokenised in a thread while the one before it is computed and written.
    """
    from sentiment_hybrid.data.sinks import open_sink
    from sentiment_hybrid.engine.prefetch import one_ahead

    predictor.check_columns(incoming.columns, source=incoming.name)
    column = _text_column(incoming, text_column, data)
    columns = [*incoming.columns, *predictor.added_columns]
    kind = kind if kind in ("csv", "tsv", "jsonl") else "csv"
    rows = skipped = 0
    groups = _groups(predictor, incoming, column)
    with (
        _progress(output) as advance,
        open_sink(output, columns, kind=kind, types=_types(incoming, predictor, output), quoting=data.quoting) as sink,
        contextlib.closing(one_ahead(lambda group: (group, predictor.prepare(group.texts)), groups)) as prepared,
    ):
        for group, texts in prepared:
            _write(sink, predictor, group, predictor.compute(texts))
            skipped += sum(sum(batch.skipped.values()) for batch in group.batches)
            rows += len(group.texts)
            advance(len(group.texts))
    return rows, skipped


def _groups(predictor: Predictor, incoming: _Incoming, column: str) -> Iterator[_Group]:
    """Batches put together until there are enough rows, or enough text."""
    from sentiment_hybrid.data.sources import value_text
    from sentiment_hybrid.engine.predictor import CHUNK

    batches: list[Batch] = []
    texts: list[str | None] = []
    size = 0
    for batch in incoming.batches:
        if batch:
            predictor.check_columns(list(batch.columns), source=incoming.name)
        new = [value_text(value) for value in batch.columns.get(column, [None] * len(batch))]
        length = sum(len(text or "") for text in new)
        if texts and (len(texts) + len(new) > CHUNK or size + length > _CHARACTERS):
            yield _Group(_joined(batches), texts)
            batches, texts, size = [], [], 0
        batches.append(batch)
        texts += new
        size += length
    if batches:
        yield _Group(_joined(batches), texts)


def _joined(batches: list[Batch]) -> list[Batch]:
    """One batch of all where they have the same columns, which is quicker to write; objects may have others."""
    from sentiment_hybrid.data.sources import Batch

    names = list(batches[0].columns)
    if len(batches) == 1 or any(list(batch.columns) != names for batch in batches):
        return batches
    columns = {name: list(itertools.chain.from_iterable(batch.columns[name] for batch in batches)) for name in names}
    skipped: Counter[str] = Counter()
    for batch in batches:
        skipped.update(batch.skipped)
    return [Batch(list(itertools.chain.from_iterable(batch.rows for batch in batches)), columns, dict(skipped))]


def _write(sink: Sink, predictor: Predictor, group: _Group, probabilities: np.ndarray) -> None:
    """The rows as they came, with what was found of each."""
    start = 0
    for batch in group.batches:
        end = start + len(batch)
        if len(batch):
            added = predictor.columns_of(probabilities[start:end])
            sink.write(batch.columns | {name: _plain(values) for name, values in added.items()})
        start = end


def _text_column(incoming: _Incoming, wanted: str | None, data: Data) -> str:
    from sentiment_hybrid.data.columns import find_text

    if not incoming.columns:
        return wanted or "text"  # no rows at all: nothing to find, and nothing wrong
    if wanted is None and data.text_column in incoming.columns:
        wanted = data.text_column
    return find_text(incoming.columns, wanted, source=incoming.name)


def _types(incoming: _Incoming, predictor: Predictor, output: Path | None) -> dict[str, Any]:
    """Arrow types for a parquet output: the input's own where it has some; plain text is text."""
    from sentiment_hybrid.data.sinks import kind_of_output

    if output is None or kind_of_output(output) != "parquet":
        return {}
    import pyarrow

    types = dict(incoming.types)
    if incoming.kind in ("csv", "tsv", "lines"):
        types = dict.fromkeys(incoming.columns, pyarrow.string())
    label, *figures = predictor.added_columns
    return types | {label: pyarrow.string()} | dict.fromkeys(figures, pyarrow.float64())


def _plain(values: np.ndarray) -> list[str | float | None]:
    """Labels as they are, probabilities rounded, NaN as null."""
    if values.dtype == object:
        return list(values)
    return [None if value != value else round(value, _DIGITS) for value in values.astype(float).tolist()]


@contextlib.contextmanager
def _progress(output: Path | None) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, unless the rows themselves run over the same terminal."""
    from sentiment_hybrid.console import progress

    if output is None and _is_terminal(sys.stdout):
        yield lambda rows: None
        return
    with progress("predicting", unit="texts") as bar:
        yield bar.advance


def _tell(predictor: Predictor, skipped: int) -> None:
    """What a reader of the output would not see."""
    from sentiment_hybrid.console import note, warn

    if predictor.empty:
        note(f"{predictor.empty:,} texts have nothing in them and got no prediction")
    if predictor.truncated:
        windows, length = predictor.info.max_windows, predictor.info.max_length
        note(f"{predictor.truncated:,} texts are longer than {windows} x {length} tokens: their rest was not read")
    if skipped:
        warn(f"{skipped:,} unreadable rows were left out")
