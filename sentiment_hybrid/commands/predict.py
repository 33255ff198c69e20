"""`senthy predict`: labels texts from arguments, a file or a pipe, and writes each row with its prediction."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from sentiment_hybrid import console, paths
from sentiment_hybrid.console import note, progress, warn
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.prefetch import one_ahead
from sentiment_hybrid.errors import ColumnError, ModelError, SourceError, UsageError, count
from sentiment_hybrid.files import recover
from sentiment_hybrid.heads import HEADS

if TYPE_CHECKING:
    import numpy as np

    from sentiment_hybrid.config.schema import Config, Data
    from sentiment_hybrid.data.sources import Batch, Source
    from sentiment_hybrid.data.writers import Quoting, Writer
    from sentiment_hybrid.engine.inference.predictor import Backend, Prediction, Predictor

Format = Literal["lines", "csv", "tsv", "jsonl"]

STDIN = "-"
#: Digits written for a probability; further digits are rounding noise.
_DIGITS = 6
#: Rows read at a time; several of these batches are labelled together.
_READ = 1024
#: Maximum number of characters labelled together, since texts may be long.
_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class PredictResult:
    """Counts of what was labelled, and the output.

    ``texts`` and ``predictions`` are set for texts given as arguments whose predictions were not written.
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
    """The rows of an input: name, format, columns and, for parquet, Arrow types."""

    name: str
    kind: str
    columns: list[str]
    batches: Iterator[Batch]
    types: Mapping[str, Any] = field(default_factory=dict)
    quoting: Quoting = "auto"
    numbers: Callable[[Sequence[str]], Collection[str]] = lambda columns: ()


@dataclass(frozen=True)
class _Group:
    """Rows that are labelled together, as read, and their texts in order."""

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
    labels: Sequence[str] | None = None,
    prefix: str | None = None,
) -> PredictResult:
    """Label texts and write each row with ``prediction``, ``score`` and ``p_<label>`` added, in input order.

    Args:
        texts: the texts; ``-`` alone means standard input, as does an empty list if standard input is not a terminal.
        config: for its ``paths.models_dir``, how files are read (``data.encoding``, ``quoting``, ``bad_rows``), and
            ``<model>.train.precision`` and ``token_budget``.
        model_dir: a model directory; otherwise the published model of ``head``, or the first published one.
        input_file: csv, tsv, jsonl, parquet, lines (.txt), each also gzipped, SQLite, or ``-``.
        output_file: its suffix sets the format, and it appears once complete; None means stdout, in the input's format.
        as_json: write JSON Lines.
        file_format: format of a pipe (default: lines), or of a file with an unknown suffix.
        text_column: the column to label; None means the configured one if it exists, else detected by name.
        table: table of an SQLite input.
        precision: auto, fp32, bf16, fp16 or int8; None means ``<model>.train.precision``.
        backend: ``onnx`` runs an export: without ``model_dir``, that of ``head`` or the first one found.
        labels: choose among these labels of the model only, with renormalised probabilities; None means all.
        prefix: of the added columns; None means none, or ``senthy_`` if the input has one of their names.

    Raises:
        UsageError: the options contradict each other.
        LabelError: the model lacks one of ``labels``, or fewer than two are given.
        SourceError, ColumnError: the input cannot be read, has no text column, or has a column that would be added.
        ModelError, EncoderError: the model or its encoder cannot be loaded.
        OutputError: the output cannot be written.
        TrainingError: the device is unavailable, or does not support the precision.
    """
    started = time.perf_counter()
    _check_usage(texts, input_file, output_file, as_json=as_json, file_format=file_format, text_column=text_column)
    data = config.data if table is None else config.data.model_copy(update={"table": table})
    with contextlib.ExitStack() as stack:
        given = [] if list(texts) == [STDIN] else [_argument(text) for text in texts]
        incoming = _of_texts(given) if given else _open(stack, input_file, data, file_format)
        computing: dict[str, Any] = {"precision": precision, "device": device, "backend": backend, "labels": labels}
        predictor, directory = _predictor(config, model_dir, head, offline=offline, encoder=encoder, **computing)
        if given and output_file is None and not as_json:
            predictions = tuple(predictor.predict(given))
            rows, skipped = len(given), 0
        else:
            predictions, given = (), []
            kind = "jsonl" if as_json else incoming.kind
            rows, skipped = _label(
                predictor, incoming, output_file, data, kind=kind, text_column=text_column, prefix=prefix
            )
    _report(predictor, skipped)
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
    """Reject contradictory options before anything heavy is loaded."""
    from sentiment_hybrid.data.writers import kind_of_output

    if isinstance(texts, str):
        raise UsageError("texts must be a list, not a single str", hint="Pass [text].")
    named = bool(texts) and list(texts) != [STDIN]
    if texts and input_file is not None:
        raise UsageError("both texts and --input were given", hint="Use only one of them.")
    if named and (file_format or text_column):
        raise UsageError("--format and --text-column apply to a file or a pipe, but texts were given as arguments")
    if not texts and input_file is None and _is_terminal(sys.stdin):
        raise UsageError("nothing to label", hint='Give texts ("what a day") or --input FILE, or use a pipe.')
    if output_file is None:
        return
    kind = kind_of_output(output_file)
    if as_json and kind != "jsonl":
        raise UsageError(f"--json and --output {output_file} contradict each other", hint="Name the output .jsonl.")
    if input_file is not None and _is_same(input_file, output_file):
        raise UsageError(f"--output is the same file as --input: {input_file}", hint="Choose another output file.")


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
    return _Incoming("the arguments", "lines", ["text"], iter([batch]))


def _open(stack: contextlib.ExitStack, path: Path | None, data: Data, file_format: Format | None) -> _Incoming:
    """The rows of a file, or of standard input."""
    from sentiment_hybrid.data.sources import kind_of, open_source, open_stream

    if path is None or str(path) == STDIN:
        if sys.stdin is None:
            raise UsageError("standard input is not available", hint="Use --input FILE.")
        return _streamed(stack, open_stream(sys.stdin.buffer, data, kind=file_format), file_format or "lines")
    path = path.expanduser()
    if file_format is not None:
        source = open_stream(_opened(stack, path), data, kind=file_format, name=str(path))
        return _streamed(stack, source, file_format)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path} is a pipe, so its format cannot be detected", hint="Set --format.")
    found = "csv" if str(path) == "sample" else kind_of(path)
    source = open_source(str(path), data, offline=True)
    return _Incoming(
        source.name, found, list(source.columns), _batches(stack, source), source.types, source.quoting, source.numbers
    )


def _streamed(stack: contextlib.ExitStack, source: Source, kind: str) -> _Incoming:
    """Rows that can be read only once: the columns come from the first batch."""
    batches = _batches(stack, source)
    first = list(itertools.islice(batches, 1))
    columns = list(first[0].columns) if first else list(source.columns)
    return _Incoming(source.name, kind, columns, itertools.chain(first, batches), quoting=source.quoting)


def _opened(stack: contextlib.ExitStack, path: Path) -> BinaryIO:
    try:
        file = stack.enter_context(path.open("rb"))
        if file.peek(2)[:2] == b"\x1f\x8b":
            return stack.enter_context(gzip.open(file))  # type: ignore[return-value]
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    return file


def _batches(stack: contextlib.ExitStack, source: Source) -> Iterator[Batch]:
    """Whole rows in batches; closed together with the stack."""
    from sentiment_hybrid.engine.inference.predictor import CHUNK

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
    labels: Sequence[str] | None,
) -> tuple[Predictor, Path]:
    from sentiment_hybrid.engine.inference.onnx_runtime import is_export
    from sentiment_hybrid.engine.inference.predictor import Predictor, model_directory, published, published_or_mini

    models_dir = config.paths.models_dir
    if model_dir is not None:
        directory = model_directory(model_dir)
    elif backend == "onnx":
        directory = _exported(models_dir, head)
    else:
        # A head requested by name is not replaced by another model with other labels.
        directory = published_or_mini(models_dir) if head is None else published(models_dir, head)
    if model_dir is None and directory.parent == paths.mini_dir():
        note(f"no trained model in {models_dir}; using mini, the small {directory.name} model that ships with senthy")
    elif model_dir is None and backend == "onnx":
        note(f"using {directory}")
    elif model_dir is None and head is None:
        others = [name for name in HEADS if recover(paths.published_model(models_dir, name)).is_dir()]
        others = [name for name in others if paths.published_model(models_dir, name) != directory]
        if others:
            note(f"using {directory} (--model selects another: {', '.join(others)})")
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
        labels=labels,
    )
    return predictor, directory


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


def _label(
    predictor: Predictor,
    incoming: _Incoming,
    output: Path | None,
    data: Data,
    *,
    kind: str,
    text_column: str | None,
    prefix: str | None,
) -> tuple[int, int]:
    """Stream the rows through the model; returns the numbers of rows written and of unreadable rows skipped.

    A group is cleaned and tokenised in a thread while the one before it is computed and written.
    """
    from sentiment_hybrid.data.writers import kind_of_output, open_writer

    added = predictor.columns_beside(incoming.columns, prefix=prefix)
    if prefix is None and added != predictor.added_columns:
        note(f"{incoming.name} has columns of such names, so those added are {', '.join(added)} (--prefix)")
    column = _text_column(incoming, text_column, data, predictor.info.text_column)
    columns = [*incoming.columns, *added]
    kind = (kind if kind in ("csv", "tsv", "jsonl") else "csv") if output is None else kind_of_output(output)
    numbers = incoming.numbers([name for name in incoming.columns if name != column]) if kind == "jsonl" else ()
    types = _types(incoming, added) if kind == "parquet" else {}
    quoting = incoming.quoting if data.quoting == "auto" and incoming.kind == kind == "tsv" else data.quoting
    rows = skipped = 0
    groups = _groups(incoming, column, added)
    with (
        _progress(output) as advance,
        open_writer(output, columns, kind=kind, types=types, quoting=quoting, numbers=numbers) as writer,
        contextlib.closing(one_ahead(lambda group: (group, predictor.prepare(group.texts)), groups)) as prepared,
    ):
        for group, texts in prepared:
            _write(writer, predictor, group, predictor.compute(texts), added)
            skipped += sum(sum(batch.skipped.values()) for batch in group.batches)
            rows += len(group.texts)
            advance(len(group.texts))
    return rows, skipped


def _groups(incoming: _Incoming, column: str, added: Sequence[str]) -> Iterator[_Group]:
    """Batches joined into groups until there are enough rows or characters."""
    from sentiment_hybrid.data.sources import texts_of
    from sentiment_hybrid.engine.inference.predictor import CHUNK

    batches: list[Batch] = []
    texts: list[str | None] = []
    size = 0
    for batch in incoming.batches:
        if clash := [name for name in added if name in batch.columns]:
            raise ColumnError(
                f"{incoming.name}, row {batch.rows[0]} or later: a key {clash[0]!r}, which a prediction adds",
                hint="Choose another name, e.g. --prefix model_.",
            )
        new = texts_of(batch, column, source=incoming.name)
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


def _write(
    writer: Writer, predictor: Predictor, group: _Group, probabilities: np.ndarray, names: Sequence[str]
) -> None:
    """Write the rows of a group with their predictions."""
    start = 0
    for batch in group.batches:
        end = start + len(batch)
        if len(batch):
            added = predictor.columns_of(probabilities[start:end], names)
            writer.write(batch.columns | {name: _plain(values) for name, values in added.items()})
        start = end


def _text_column(incoming: _Incoming, wanted: str | None, data: Data, trained_on: str | None) -> str:
    from sentiment_hybrid.data.columns import find_text, text_note

    if not incoming.columns:
        return wanted or "text"  # no rows at all, which is not an error
    if wanted is None and data.text_column in incoming.columns:
        wanted = data.text_column
    column = find_text(incoming.columns, wanted, source=incoming.name, trained_on=trained_on)
    if wanted is None and (line := text_note(incoming.columns, column, trained_on, source=incoming.name)):
        note(line)
    return column


def _types(incoming: _Incoming, added: Sequence[str]) -> dict[str, Any]:
    """Arrow types for a parquet output: those of the input if it has types, otherwise string."""
    import pyarrow

    types = dict(incoming.types)
    if incoming.kind in ("csv", "tsv", "lines"):
        types = dict.fromkeys(incoming.columns, pyarrow.string())
    label, *figures = added
    return types | {label: pyarrow.string()} | dict.fromkeys(figures, pyarrow.float64())


def _plain(values: np.ndarray) -> list[str | float | None]:
    """Labels unchanged, probabilities rounded, NaN as null."""
    if values.dtype == object:
        return list(values)
    return [None if value != value else round(value, _DIGITS) for value in values.astype(float).tolist()]


@contextlib.contextmanager
def _progress(output: Path | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr, unless the rows are printed on the same terminal."""
    if output is None and _is_terminal(sys.stdout):
        yield lambda rows: None
        return
    with progress("predicting", unit="texts") as bar:
        yield bar.advance


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
    rows = [
        ["-", "-", text] if one.label is None else [one.label, f"{one.score:.3f}", text]
        for text, one in zip(result.texts, result.predictions, strict=True)
    ]
    console.table("", ["prediction", "score", "text"], rows, left=3)
