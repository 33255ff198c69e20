"""`senthy predict`: labels texts from arguments, a file or a pipe, and writes each row with its prediction."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sentiment_hybrid import console, tables
from sentiment_hybrid.console import note, warn
from sentiment_hybrid.errors import SenthyError, UsageError, count
from sentiment_hybrid.files import is_file, is_same_file
from sentiment_hybrid.runtime import Runtime

if TYPE_CHECKING:
    from sentiment_hybrid.config.schema import Config, Data
    from sentiment_hybrid.engine.inference.explanations import Explanation
    from sentiment_hybrid.engine.inference.predictor import Backend, Prediction, Predictor

Format = Literal["lines", "csv", "tsv", "jsonl"]

STDIN = "-"
#: Least sure rows in a file for people.
REVIEW_ROWS = 200


@dataclass(frozen=True)
class Request:
    """What to label, with which model, and where to write it: the options of `senthy predict`.

    Args:
        texts: the texts; ``-`` alone means standard input, as does an empty list if standard input is not a terminal.
        input_file: csv, tsv, jsonl, parquet, lines (.txt), each also gzipped, SQLite, or ``-``; for
            `predict_shards.run`, a folder, a pattern or a URL.
        output_file: its suffix sets the format, and it appears once complete; None means stdout, in the input's format.
            For `predict_shards.run`, a folder or a URL.
        file_format: format of a pipe (default: lines, or csv if the first line is the name of a text column), or of a
            file with an unknown suffix.
        resume: continue a stopped run of the same request after its last complete block.
        shard: (I, N): only every Nth file, from the Ith.
        part: the input is one of several files: a stopped run is continued if it was of the same input.
    """

    texts: Sequence[str] = ()
    _: KW_ONLY
    config: Config
    model_dir: Path | None = None
    head: str | None = None
    input_file: Path | str | None = None
    output_file: Path | str | None = None
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
    abstain_below: float | None = None
    target_accuracy: float | None = None
    review: Path | None = None
    review_rows: int = REVIEW_ROWS
    spread: bool = False
    workers: int | None = None
    engine: Literal["local", "ray"] = "local"
    shard: tuple[int, int] = (1, 1)
    finish: bool = False
    part: bool = False

    @property
    def given(self) -> list[str]:
        """The texts, if they are arguments."""
        if list(self.texts) == [STDIN]:
            return []
        # Bytes that are not UTF-8 arrive as surrogates, which cannot be written to a file.
        return [text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for text in self.texts]

    @property
    def source(self) -> Path | None:
        """The file to read; None for arguments and standard input."""
        return None if self.input_file is None or str(self.input_file) == STDIN else Path(self.input_file).expanduser()

    @property
    def is_several(self) -> bool:
        """Whether the input is a folder, a pattern or a URL, for `predict_shards.run`."""
        from sentiment_hybrid.data.sources.several import is_several

        return self.input_file is not None and is_several(self.input_file)

    @property
    def output(self) -> Path | None:
        """The file to write; None for standard output."""
        return None if self.output_file is None else Path(self.output_file)

    @property
    def data(self) -> Data:
        """How files are read."""
        data = self.config.data
        return data if self.table is None else data.changed({"table": self.table})


@dataclass(frozen=True)
class PredictResult:
    """Counts of what was labelled, and the output.

    ``texts`` and ``predictions`` are set for texts given as arguments whose predictions were not written, and so are
    ``explanations`` if they were requested. ``files`` is the number of files that `predict_shards.run` labelled, or
    has found done (``checked``).
    """

    model_dir: Path
    labels: tuple[str, ...]
    rows: int
    empty: int
    truncated: int
    skipped: int
    seconds: float
    output: Path | str | None = None
    texts: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    files: int | None = None
    checked: bool = False


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
    for name in filter(is_file, texts):
        note(f"{name} is labelled as a text; for the rows of this file: --input {shlex.quote(name)}")
    rows, skipped = len(texts), 0
    predictions: tuple[Prediction, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    if texts and request.output is None and not request.as_json:
        from sentiment_hybrid.engine.inference.answers import label_or_unsure

        predictor, directory, below = open_predictor(request)
        found = predictor.compute(predictor.prepare(texts))
        sure = [predictor.prediction(row) for row in found]
        if below is not None:
            sure = [replace(one, label=label_or_unsure(one.label, one.score, below)) for one in sure]
        predictions = tuple(sure)
        explanations = tuple(predictor.explain(texts)) if request.explain else ()
    else:
        from sentiment_hybrid.commands.predict_rows import label_rows, open_rows

        with contextlib.ExitStack() as stack:
            incoming = open_rows(stack, request)
            predictor, directory, below = open_predictor(request)
            rows, skipped = label_rows(stack, request, predictor, incoming, below)
    _report(predictor, skipped)
    return PredictResult(
        directory, predictor.labels, rows, predictor.empty, predictor.truncated, skipped,
        seconds=time.perf_counter() - started, output=request.output,
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
    if not texts and source is None and console.is_terminal(sys.stdin):
        raise UsageError("nothing to label", hint='Give texts ("what a day") or --input FILE, or use a pipe.')
    if request.table is not None and request.source is None:
        raise UsageError("--table applies to an SQLite --input, not to a pipe", hint="Leave out --table.")
    check_threshold(request)
    if request.workers is not None or request.shard != (1, 1) or request.finish or request.engine != "local":
        raise UsageError(
            "--workers, --shard, --finish and --engine apply to several files",
            hint="Give a folder, a pattern such as 'FOLDER/*.csv', or a URL as --input.",
        )
    if request.spread and request.review is None:
        raise UsageError("--spread chooses rows for --review FILE", hint="Add --review FILE, or leave out --spread.")
    if request.review is None and request.review_rows != REVIEW_ROWS:
        raise UsageError("--review-rows counts rows of --review FILE", hint="Add --review FILE, or leave it out.")
    if request.review is not None and request.resume:
        raise UsageError(
            "--review needs all rows, so it cannot be combined with --resume", hint="Leave one of them out."
        )
    if request.review is not None and request.given:
        raise UsageError("--review is for the rows of a file, but texts were given", hint="Use --input FILE.")
    if request.resume and (request.source is None or request.output is None):
        raise UsageError("--resume needs --input FILE and --output FILE", hint="Name both, or leave out --resume.")


def check_threshold(request: Request) -> None:
    """Reject two thresholds."""
    if request.abstain_below is not None and request.target_accuracy is not None:
        raise UsageError("--abstain-below and --target-accuracy exclude each other", hint="Use only one of them.")


def _check_files(request: Request) -> None:
    """Reject files that do not suit the options, before anything heavy is loaded."""
    source, output = request.source, request.output
    if request.table is not None and source is not None:
        from sentiment_hybrid.data.sources import kind_of

        kind = request.file_format or ("csv" if str(source) == "sample" else kind_of(source))
        if kind != "sqlite":
            raise UsageError(f"--table applies to SQLite, but {source} is {kind}", hint="Leave out --table.")
    if request.review is not None:
        _check_review(request, request.review)
    if output is None:
        return
    from sentiment_hybrid.data.sources import open_source
    from sentiment_hybrid.data.writers import kind_of_output

    if source is not None and not source.exists() and str(source) != "sample":
        # Before the output: where the name of a folder is misspelt, the output is no file either.
        open_source(str(source), request.data, offline=True)
    kind = kind_of_output(output)
    if request.as_json and kind != "jsonl":
        raise UsageError(f"--json and --output {output} contradict each other", hint="Name the output .jsonl.")
    if request.resume and kind == "sqlite":
        raise UsageError(
            "--resume does not work with an SQLite output", hint="Write .csv, .tsv, .jsonl (each also .gz) or .parquet."
        )
    if source is not None and is_same_file(source, output):
        raise UsageError(f"--output is the same file as --input: {source}", hint="Choose another output file.")


def _check_review(request: Request, review: Path) -> None:
    """Reject a file that cannot be written, or would be lost: the input, the output, or what people have labelled."""
    from sentiment_hybrid.data.review import check_review

    for option, other in (("--input", request.source), ("--output", request.output)):
        if other is not None and is_same_file(review, other):
            raise UsageError(f"--review is the same file as {option}: {other}", hint="Choose another file.")
    check_review(review)
    if review.is_file() and _has_labels(review, request.data):
        raise UsageError(
            f"{review} contains labels that people gave", hint="Choose another file, or move this one away."
        )


def _has_labels(review: Path, data: Data) -> bool:
    """Whether a column ``label`` of a file is filled in anywhere; False for what is no table."""
    from sentiment_hybrid.data.sources import open_source

    try:
        source = open_source(str(review), data)
        batches = source.batches(["label"]) if "label" in source.columns else ()
        return any(str(value or "").strip() for batch in batches for value in batch.columns["label"])
    except SenthyError:
        return False


# --- the model -------------------------------------------------------------------------------------------------------


def open_predictor(request: Request) -> tuple[Predictor, Path, float | None]:
    """The model, its directory, and the probability below which answers are unsure.

    Raises:
        UsageError: the model lacks one of ``labels``, or fewer than two are given.
        ModelError, EncoderError: the model or its encoder cannot be loaded.
        TrainingError: the device is unavailable, or does not support the precision.
    """
    from sentiment_hybrid.engine.inference.opening import find_model, open_model

    config, head = request.config, request.head
    directory = find_model(config.paths.models_dir, request.model_dir, head, onnx=request.backend == "onnx")
    runtime = Runtime(device=request.device, offline=request.offline, encoder=request.encoder)
    predictor = open_model(
        directory, config, runtime, head=head, backend=request.backend, precision=request.precision,
        labels=request.labels,
    )  # fmt: skip
    unset = request.target_accuracy is None and request.abstain_below is None
    return predictor, directory, None if unset else _threshold(request, predictor, directory)


def _threshold(request: Request, predictor: Predictor, directory: Path) -> float | None:
    """The probability below which answers are unsure, which is given or promises a given accuracy."""
    target, below = request.target_accuracy, request.abstain_below
    from sentiment_hybrid.engine.inference.answers import UNSURE, check_abstaining

    check_abstaining(predictor.labels)
    if target is None:
        return below
    if request.labels is not None:
        raise UsageError(
            "--target-accuracy is promised for answers among all labels of the model",
            hint="Leave out --labels, or use --abstain-below.",
        )
    from sentiment_hybrid.engine.inference.thresholds import promised

    threshold, rows = promised(directory, predictor.info, target)
    note(
        f"answers below {threshold.value:.4g} are {UNSURE}: {100 * target:.5g} % or more of the others are right, "
        f"and they are {100 * threshold.coverage:.0f} %, by {rows}"
    )
    return threshold.value


def _report(predictor: Predictor, skipped: int) -> None:
    """Print notes on empty, truncated and unreadable texts."""
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
        where = "" if result.files is None else f" in {count(result.files, 'file')}"
        done = "done, all checked" if result.checked else f"labelled in {console.duration(result.seconds)}"
        console.say(f"{result.output}: {count(result.rows, 'text')}{where} {done}")
    if not result.texts:
        return
    if result.explanations:
        for one, prediction in zip(result.explanations, result.predictions, strict=True):
            tables.explanation(one, answer=prediction.label)
        return
    rows = [
        ["-", "-", text] if one.label is None else [one.label, f"{one.score:.3f}", text]
        for text, one in zip(result.texts, result.predictions, strict=True)
    ]
    console.table("", ["prediction", "score", "text"], rows, left=3)
