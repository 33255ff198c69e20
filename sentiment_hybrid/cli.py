"""The command line: options become a Config and a Runtime for a command; only here errors are printed."""

from __future__ import annotations

import atexit
import errno
import gc
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

from sentiment_hybrid import __version__, commands, console, distributed, paths, tables
from sentiment_hybrid.errors import SenthyError, UsageError
from sentiment_hybrid.files import reason, remedy
from sentiment_hybrid.options import (
    LOCAL_CONFIG,
    MODELS,
    Call,
    Failed,
    choice,
    command,
    group,
    model_option,
    option,
    switch,
)
from sentiment_hybrid.runtime import Runtime, stop_signals

if TYPE_CHECKING:
    from sentiment_hybrid.config.schema import Config

INTERRUPTED = 130
#: Seconds in which two signals are one press of Ctrl-C: a launcher passes on what the terminal has sent as well.
_ONE_PRESS = 0.5
#: What a shell reports for a program that SIGPIPE ended, so that scripts can distinguish `| head` from a failure.
READER_GONE = 141

#: Python's default is 700.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000

#: Read by libraries on import: no telemetry, no requests to the Hugging Face Hub to convert weights, and none of the
#: messages that torch has for its own developers.
_ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}

# --- errors ----------------------------------------------------------------------------------------------------------


def report(failure: BaseException) -> int:
    """Print an error and return the exit code: 1 failed, 2 usage or configuration, 130 interrupted, 141 pipe closed."""
    if isinstance(failure, Failed):
        failure = failure.args[0]
    if type(failure).__name__ == "Abort":  # raised by typer when a prompt is interrupted
        failure = KeyboardInterrupt("interrupted; nothing was changed")
    code = INTERRUPTED if isinstance(failure, KeyboardInterrupt) else getattr(failure, "exit_code", 1)
    if not distributed.reports(failure):
        distributed.await_message()
    elif isinstance(failure, KeyboardInterrupt):
        if threading.current_thread() is threading.main_thread():
            # Another Ctrl-C, while threads are joined at exit, must not print a traceback.
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        console.note("")
        console.warn(_said_by_an_interrupt(failure) or "interrupted; every file is complete, or as it was before")
    elif isinstance(failure, BrokenPipeError):
        console.quiet_broken_pipe()
        return READER_GONE
    elif type(failure).__name__ == "NoArgsIsHelpError":
        failure.show()  # type: ignore[attr-defined]
    else:
        if console.verbosity() > 0:
            console.traceback(failure)
        message, hint = _described(failure)
        console.error(message, problems=getattr(failure, "problems", ()), hint=hint)
    return code


def _said_by_an_interrupt(failure: BaseException | None) -> str:
    """What a command said when it was interrupted, also if a second interrupt came while it cleaned up."""
    while failure is not None and not (isinstance(failure, KeyboardInterrupt) and str(failure)):
        failure = failure.__context__
    return "" if failure is None else str(failure)


#: What checks the values of options says, and how other errors of settings say it.
_OF_PYDANTIC = {
    ": Value error, ": ": ",
    "Input should be a valid integer, unable to parse.*": "it should be a whole number",
    "Input should be a valid number, unable to parse.*": "it should be a number",
    "Input should be greater than or equal to": "it should be at least",
    "Input should be less than or equal to": "it should be at most",
}


def _described(failure: Any) -> tuple[str, str]:
    if isinstance(failure, SenthyError):
        return failure.message, failure.hint
    if hasattr(failure, "format_message"):  # typer's usage errors
        command = failure.ctx.command_path if failure.ctx else "senthy"
        group = failure.ctx is not None and hasattr(failure.ctx.command, "commands")
        hint = f"`{command} --help` lists its {'commands' if group else 'arguments'} and options."
        said = failure.format_message()
        for of_pydantic, ours in _OF_PYDANTIC.items():
            said = re.sub(of_pydantic, ours, said)
        return said, hint
    # torch has an error of its own, of this name, for a full GPU.
    if isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError":
        return "out of memory", "Lower `batch_size` or `token_budget` with --set, or use --sample-size."
    if not isinstance(failure, OSError):
        return (
            f"unexpected {type(failure).__name__}: {failure}",
            "This is a bug in senthy; the same command with -v shows where it happened.",
        )
    where = f": {failure.filename}" if failure.filename else ""
    hint = "The same command with -v shows where it happened."
    if failure.errno in (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, getattr(errno, "EDQUOT", None)):
        hint = remedy(failure, "another directory under `paths`")
    return f"{reason(failure)}{where}", hint


# --- commands --------------------------------------------------------------------------------------------------------
# Accessing a module of `commands` imports it, so settings are checked before, and --help loads no library.

#: The same as config.schema.JOINT, without loading pydantic.
_JOINT = "joint"

_TRAINED_MODEL = model_option("Which trained model, if not --load-model-path.")
_MODEL_PATH = option("--load-model-path", "Model directory; or mini, mini-lstm, mini-han.", "DIR")
_JSON = switch("--json", "Print JSON.")
_SAFE_CSV = switch("--safe-csv", "Keep spreadsheets from computing texts such as =1+1.")
_SEEDS = option("--seeds", "Number of seeds; reports mean and standard deviation.", "N", default=1, min=1, max=1000)
_PARAMS = option("--params", "Best hyperparameters of a search, merged over --config.", "FILE")
_REFRESH = switch("--refresh", "Rebuild the database even if nothing has changed.")
_DRY_RUN = switch("--dry-run", "Only estimate time, memory and disk space.")
_MODEL_ID = typer.Argument(metavar="ID", help="A model, as `senthy models list` shows it.")

app = group(
    "Train, test and apply sentiment classifiers: a RoBERTa encoder under an LSTM or hierarchical-attention head.",
    "senthy run-all --config quickstart",
    'senthy predict "not bad at all :)"',
    name="senthy",
    pretty_exceptions_enable=False,
)
config_app = group(
    "Show, check, write and explain configurations.", "senthy config init", "senthy config show --config quickstart"
)
models_app = group(
    "List trained models, and choose which of them is published.",
    "senthy models list",
    "senthy models publish han-2026",
)
cache_app = group(
    "Show and clear what is cached, mainly token states.", "senthy cache info", "senthy cache clear --states"
)


def _version(wanted: bool) -> None:
    if wanted:
        console.raw(f"senthy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *, version: bool = switch("--version", "Print the version and exit.", callback=_version, is_eager=True)
) -> None:
    pass


@command(app, "data", "corrections")
def data(call: Call, *, refresh: bool = _REFRESH) -> None:
    """Read labelled texts, clean and split them, and store them in a database.

    Examples:
        senthy data --source reviews.csv --text-column review
        senthy data --source tweets.csv --label-map 0=negative --label-map 4=positive
    """
    config = call.config()
    commands.data.show(commands.data.run(config, refresh=refresh, offline=call.runtime.offline))


@command(app, "columns", name="check", runtime=("encoder",))
def check_data(
    call: Call,
    *,
    data_file: str | None = option("--data", "A labelled source instead of the database.", "SOURCE"),
    split: list[str] | None = choice(
        "--split", "Splits whose rows are flagged; can be repeated. [default: train, valid]", ("train", "valid", "test")
    ),
    output: Path = option("--output -o", "The flagged rows, to be corrected.", "FILE", default=Path("check.csv")),
    features: Literal["auto", "encoder", "tfidf"] = option(
        "--features", "What represents texts; auto is the encoder if it can be loaded.", default="auto"
    ),
    json_: bool = _JSON,
    safe_csv: bool = _SAFE_CSV,
) -> None:
    """Find label errors, near-duplicates and other defects of labelled texts, and write a file to correct them in.

    Examples:
        senthy check --set encoder.name=mini
        senthy check --data reviews.csv --output reviews-check.csv
    """
    config = call.config()
    options: dict[str, Any] = {"data_file": data_file, "output": output, "features": features, "safe_csv": safe_csv}
    splits: Any = tuple(dict.fromkeys(split or ("train", "valid")))
    result = commands.check.run(config, call.runtime, splits=splits, **options)
    console.as_json(result.report) if json_ else commands.check.show(result)


@command(app, "pretraining", runtime=("resume",))
def pretrain(call: Call) -> None:
    """Train an encoder on texts without labels, from scratch or from another one (domain adaptation).

    Examples:
        senthy pretrain --data tweets.csv --base roberta-base --output models/tweets
        senthy pretrain --base scratch --epochs 3
    """
    config = call.config()
    commands.pretrain.show(commands.pretrain.run(config, call.runtime))


_TRAINABLE = model_option(
    "Head to train; joint trains those of joint.models together.", (*MODELS, _JOINT), default="lstm"
)


@command(app, "training", runtime=("resume", "name", "encoder", "bundle_encoder"))
def train(
    call: Call,
    *,
    model: str = _TRAINABLE,
    seeds: int = _SEEDS,
    params: Path | None = _PARAMS,
    no_test: bool = switch("--no-test", "Do not test the model."),
    dry_run: bool = _DRY_RUN,
) -> None:
    """Train a model, save its best epoch, and test it.

    Examples:
        senthy train --model han --epochs 3
        senthy train --sample-size 20000 --seeds 3
    """
    if model == _JOINT and (seeds > 1 or params):
        raise UsageError("--seeds and --params cannot be used with joint", hint="Leave them out, or choose one model.")
    config = call.config([model], params=params)
    if dry_run:
        _dry_run(config, [model], "train", call.runtime, seeds=seeds, test=not no_test)
        return
    if model == _JOINT:
        for result in commands.train.run_joint(config, call.runtime, test=not no_test):
            tables.training(result)
        return
    searched = config.model(model).hpo.valid_sample_size if params else 0
    purpose = commands.train.Purpose(searched=searched)
    tables.training(commands.train.run(config, model, call.runtime, seeds=seeds, test=not no_test, purpose=purpose))


@command(app, "search", runtime=("name", "encoder", "bundle_encoder"))
def optimize(
    call: Call,
    *,
    model: str = model_option("Head to train.", default="lstm"),
    no_final: bool = switch("--no-final", "Do not train a final model after the search."),
    dry_run: bool = _DRY_RUN,
) -> None:
    """Search hyperparameters, then train and test the best model. The same command resumes a search.

    Examples:
        senthy optimize --model han --n-trials 30 --workers 2
        senthy optimize --storage sqlite:///study.db --timeout 3600
    """
    config = call.config([model])
    if dry_run:
        _dry_run(config, [model], "optimize", call.runtime, final=not no_final)
        return
    commands.optimize.show(commands.optimize.run(config, model, call.runtime, final=not no_final))


@command(app, "testing", "columns", runtime=("encoder",))
def test(
    call: Call,
    *,
    model: str | None = _TRAINED_MODEL,
    load_model_path: Path | None = _MODEL_PATH,
    split: Literal["test", "valid", "train"] = option("--split", "Which rows.", default="test"),
    data_file: Path | None = option("--data", "A labelled file instead of the database.", "FILE"),
) -> None:
    """Test a model on held-out rows, beside a simple baseline.

    Examples:
        senthy test --model han
        senthy test --load-model-path mini --data reviews.csv
    """
    config = call.config()
    places = {"load_model_path": load_model_path, "data_file": data_file}
    tables.test(commands.test.run(config, model, call.runtime, split=split, **places))


_FINETUNE_DATA = option(
    "--finetune-data-path", "Labelled texts: a file, an SQLite database, kaggle:..., or sample.", "SOURCE", default=...
)


@command(app, "fine-tuning", "columns", runtime=("resume", "name", "encoder", "bundle_encoder"))
def finetune(
    call: Call,
    *,
    data_file: str = _FINETUNE_DATA,
    model: str | None = _TRAINED_MODEL,
    load_model_path: Path | None = _MODEL_PATH,
    save_path: Path | None = option("--save-finetuned-model-path", "Directory of the new model.", "DIR"),
    new_labels: bool = switch("--new-labels", "Use the labels of the data, with a new output layer."),
) -> None:
    """Train a model further on new texts, and test it before and after, on new and old ones.

    Examples:
        senthy finetune --model han --finetune-data-path reviews.csv
        senthy finetune --load-model-path mini --finetune-data-path reviews.csv
    """
    config = call.config()
    places = {"load_model_path": load_model_path, "save_path": save_path}
    result = commands.finetune.run(config, model, call.runtime, data_file=data_file, new_labels=new_labels, **places)
    commands.finetune.show(result)


def _place(text: str) -> Path | str:
    """A path, or a URL as it is: a path would lose one of its slashes."""
    return text if "://" in text else Path(text)


_INPUT = option(
    "--input -i",
    "csv, tsv, jsonl, parquet, .gz, SQLite, - for stdin; several: a folder, 'DIR/*.csv', a URL.",
    "FILE",
    parser=_place,
)
_OUTPUT = option("--output -o", "Format follows the extension; of several files: a folder.", "FILE", parser=_place)
_FORMAT = option("--format", "Format of standard input, or of a file without an extension. [default: lines]")
_PRECISION = option("--precision", "Of the encoder; auto is bf16 where supported, int8 is for CPUs. [default: auto]")
_BACKEND = option("--backend", "onnx runs what `senthy export` wrote. [default: detected from the directory]")
_PREFIX = option("--prefix", "Of the added columns. [default: none; senthy_ if the input has such names]", "TEXT")


def _share(text: str, name: str, *, least: float, most: float) -> float:
    """``95%``, ``95`` or ``0.95``, the value of an option, as a share. Raises UsageError."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    value = value / 100.0 if value > 1.0 or text.strip().endswith("%") else value
    if not least <= value <= most:
        allowed = f"{100 * least:g}% to {100 * most:g}%"
        raise UsageError(f"{name} {text} is not a share from {allowed}", hint="Write 95% or 0.95, for example.")
    return value


_ABSTAIN_BELOW = option(
    "--abstain-below",
    "Answer unsure below this probability of the predicted label.",
    "P",
    parser=lambda text: _share(text, "--abstain-below", least=0.0, most=1.0),
)


def _every_nth(text: str) -> tuple[int, int]:
    """``2/8`` as (2, 8). Raises UsageError."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    number, total = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= total:
        raise UsageError(f"--shard {text} is not I/N", hint="Use 1/8, 2/8 ... 8/8 for eight jobs.")
    return number, total


_SHARD = option("--shard", "Of several files, label every Nth from the Ith.", "I/N")
_WORKERS = option("--workers", "Processes that label several files. [default: 1; of ray: 1 per 4 cores]", "N", min=1)
_ENGINE = option("--engine", "What runs over several files; ray is for clusters.", default="local")
_FINISH = switch("--finish", "Check that all files are labelled; write the manifest.")
_TARGET_ACCURACY = option(
    "--target-accuracy",
    "Answer unsure where the model does not promise this accuracy.",
    "95%",
    parser=lambda text: _share(text, "--target-accuracy", least=0.5, most=0.9999),
)


@command(app, "files", runtime=("encoder", "resume"))
def predict(
    call: Call,
    *,
    texts: list[str] | None = typer.Argument(None, metavar="TEXT", help="Texts to label, unless --input is used."),
    head: str | None = _TRAINED_MODEL,
    model_dir: Path | None = _MODEL_PATH,
    input_file: Any = _INPUT,
    output_file: Any = _OUTPUT,
    text_column: str | None = option("--text-column", "Column to label. [default: detected]", "COLUMN"),
    file_format: Literal["lines", "csv", "tsv", "jsonl"] | None = _FORMAT,
    table: str | None = option("--table", "Table of an SQLite input. [default: detected]", "TABLE"),
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] | None = _PRECISION,
    as_json: bool = _JSON,
    safe_csv: bool = _SAFE_CSV,
    backend: Literal["torch", "onnx"] | None = _BACKEND,
    labels: str | None = option("--labels", "Choose among these labels only.", "A,B"),
    prefix: str | None = _PREFIX,
    abstain_below: float | None = _ABSTAIN_BELOW,
    target_accuracy: float | None = _TARGET_ACCURACY,
    review: Path | None = option(
        "--review", "Rows for people: the least sure, some for control; .json: Label Studio.", "FILE"
    ),
    review_rows: int = option("--review-rows", "How many of the least sure.", "N", default=200, min=1),
    spread: bool = switch("--spread", "Choose the rows of --review to be different, too: what to label next."),
    explain: bool = switch("--explain", "Add a column with the words that speak for the label and against it."),
    workers: int | None = _WORKERS,
    engine: Literal["local", "ray"] = _ENGINE,
    shard: str | None = _SHARD,
    finish: bool = _FINISH,
) -> None:
    """Label texts from the command line, a file, several files, or standard input.

    Examples:
        senthy predict --input reviews.csv --output labelled.csv
        senthy predict --input tweets/ --output labelled/ --workers 4
    """
    config = call.config()
    request = commands.predict.Request(
        texts or [], config=config, model_dir=model_dir, head=head,
        input_file=input_file, output_file=output_file,
        as_json=as_json, file_format=file_format, text_column=text_column, table=table, precision=precision,
        device=call.runtime.device, offline=call.runtime.offline, encoder=call.runtime.encoder,
        resume=call.runtime.resume, backend=backend or "auto", labels=None if labels is None else labels.split(","),
        prefix=prefix, safe_csv=safe_csv, explain=explain, abstain_below=abstain_below, target_accuracy=target_accuracy,
        review=review, review_rows=review_rows, spread=spread, workers=workers, finish=finish, engine=engine,
        shard=_every_nth(shard) if shard else (1, 1),
    )  # fmt: skip
    several = commands.predict_ray if engine == "ray" else commands.predict_shards
    verb = several if request.is_several else commands.predict
    commands.predict.show(verb.run(request))


_METHOD = option(
    "--method", "gradients: what a word adds to the logit; attention: that of the head.", default="gradients"
)


@command(app, "files", runtime=("encoder", "resume"))
def explain(
    call: Call,
    *,
    texts: list[str] | None = typer.Argument(None, metavar="TEXT", help="Texts to explain, unless --corpus is used."),
    head: str | None = _TRAINED_MODEL,
    model_dir: Path | None = _MODEL_PATH,
    label: str | None = option("--label", "The label to explain. [default: the predicted one]", "LABEL"),
    method: Literal["gradients", "attention"] = _METHOD,
    corpus: Path | None = option("--corpus", "A file of texts: the words that push most to each label.", "FILE"),
    text_column: str | None = option("--text-column", "Its column of texts. [default: detected]", "COLUMN"),
    rows: int = option("--rows", "Explain this many of its texts, chosen at random.", "N", default=1000, min=1),
    top: int = option("--top", "Show this many words of a text, or of each label.", "N", default=10, min=1),
    html: Path | None = option("--html", "Write a page as well.", "FILE"),
    output: Path | None = option("--output -o", "Write the explanations of --corpus, as JSON Lines.", "FILE"),
    as_json: bool = _JSON,
) -> None:
    """Show which words speak for the label of a text and which against it.

    Examples:
        senthy explain "not bad at all :)"
        senthy explain --corpus reviews.csv --html words.html
    """
    request = commands.explain.Request(
        texts or [],
        config=call.config(),
        head=head,
        model_dir=model_dir,
        corpus=corpus,
        text_column=text_column,
        rows=rows,
        label=label,
        method=method,
        top=top,
        html=html,
        output=output,
        resume=call.runtime.resume,
    )
    result = commands.explain.run(request, call.runtime)
    console.as_json(result.to_dict()) if as_json else commands.explain.show(result, top=top)


@command(app, "serving", runtime=("encoder",))
def serve(
    call: Call,
    *,
    head: str | None = _TRAINED_MODEL,
    model_dir: Path | None = _MODEL_PATH,
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] | None = _PRECISION,
    backend: Literal["torch", "onnx"] | None = _BACKEND,
) -> None:
    """Answer requests over HTTP with one model, and show a page for people. Ctrl-C or SIGTERM stops it.

    Examples:
        senthy serve --load-model-path mini
        senthy serve --model han --host 0.0.0.0 --token-file token.txt
    """
    commands.serve.run(
        call.config(), call.runtime, model_dir=model_dir, head=head, precision=precision, backend=backend or "auto"
    )


_REVIEWED = typer.Argument(
    metavar="FILE", help="What predict --review wrote, labelled; or a JSON export of Label Studio."
)


@command(app, "files", name="review")
def review_file(call: Call, *, file: Path = _REVIEWED) -> None:
    """Show how often answers agree with the labels that people gave them.

    Examples:
        senthy review people.csv
        senthy review people.csv --delimiter ';'
    """
    commands.review.show(commands.review.run(call.config(), file), file)


@command(app, runtime=("encoder",))
def export(
    call: Call,
    *,
    model: str | None = _TRAINED_MODEL,
    load_model_path: Path | None = _MODEL_PATH,
    file_format: Literal["onnx", "pack"] = option("--format", "What to write.", default="onnx"),
    quantize: Literal["int8"] | None = option("--quantize", "Quantize the weights to int8."),
    output: Path | None = option("--output -o", "The new directory.", "DIR"),
) -> None:
    """Export a model to ONNX with its tokenizer, and compare its results and speed with the original.

    With --format pack, export models that were trained together, in half precision, with one encoder.

    Examples:
        senthy export --model han --quantize int8
        senthy export --format pack --output models/pack
    """
    config = call.config()
    offline, encoder = call.runtime.offline, call.runtime.encoder
    if file_format == "pack":
        if model or load_model_path or quantize or encoder:
            raise UsageError(
                "--format pack exports the models in joint.models; the only option for it is --output",
                hint="Leave out --model, --load-model-path, --quantize and --encoder.",
            )
        commands.packing.show(commands.packing.run(config, output=output, offline=offline))
        return
    result = commands.export.run(
        config,
        model,
        load_model_path=load_model_path,
        output=output,
        quantize=quantize,
        offline=offline,
        encoder=encoder,
    )
    commands.export.show(result)


Mode = Literal["train", "optimize", "test"]
#: What run-all's --sample-size limits, by mode.
_SAMPLED: dict[Mode, str] = {"train": "train.sample_size", "optimize": "hpo.sample_size", "test": "test.sample_size"}


@command(app, "data", "corrections", "each model", name="run-all", runtime=("resume", "encoder", "bundle_encoder"))
def run_all(
    call: Call,
    *,
    model: list[str] | None = model_option("Heads; can be repeated. [default: lstm, han]"),
    mode: Mode = option("--mode", "What to do with each model, after preparing the data.", default="train"),
    sample_size: int | None = option("--sample-size", "Rows to train on, per trial, or to test on.", "N"),
    seeds: int = _SEEDS,
    params: Path | None = _PARAMS,
    force: bool = switch("--force", "Repeat steps even if their inputs have not changed."),
    refresh: bool = _REFRESH,
    dry_run: bool = _DRY_RUN,
) -> None:
    """Prepare the data, then train, optimize or test several models, and compare them.

    Examples:
        senthy run-all --config quickstart
        senthy run-all --source reviews.csv --mode optimize --model han
    """
    models = list(dict.fromkeys(model or ("lstm", "han")))
    search_only = [call.option_names[key] for key in call.flags if key.startswith("hpo.")]
    if search_only and mode != "optimize":
        raise UsageError(f"{search_only[0]} is for a search", hint="Add --mode optimize, or leave it out.")
    config = call.having(_SAMPLED[mode], "--sample-size", sample_size).config(models, params=params)
    if dry_run:
        if mode == "test":
            raise UsageError("--dry-run is for training and search", hint="Leave it out, or change --mode.")
        _dry_run(config, models, mode, call.runtime, seeds=seeds)
        return
    result = commands.run_all.run(config, models, call.runtime, mode=mode, seeds=seeds, force=force, refresh=refresh)
    commands.run_all.show(result)
    if result.failures:
        raise typer.Exit(1)


def _dry_run(
    config: Config, models: Sequence[str], what: Literal["train", "optimize"], runtime: Runtime, **more: Any
) -> None:
    commands.dry_run.show(commands.dry_run.run(config, models, what, runtime, **more))


@command(app, runtime=("encoder",))
def bench(
    call: Call,
    *,
    model: str = model_option("Head to train.", default="lstm"),
    seconds: float = option("--seconds", "Seconds of each measurement.", "N", default=3.0, min=0.05, max=3600.0),
    as_json: bool = _JSON,
) -> None:
    """Measure the speed of this machine, and estimate the time of train and optimize.

    Examples:
        senthy bench --model han
        senthy bench --config quickstart --seconds 1 --json
    """
    config = call.config([model])
    result = commands.bench.run(config, model, call.runtime, seconds=seconds)
    console.as_json(result.as_dict()) if as_json else commands.bench.show(result)


@command(app, "data")
def fetch(
    call: Call,
    *,
    what: list[str] | None = option("--what", "Only this; can be repeated. [default: all]", "encoder|data|nltk"),
) -> None:
    """Download encoder, data and NLTK data for later use offline. With --offline, list what is missing.

    Examples:
        senthy fetch --what encoder
        senthy fetch --offline
    """
    config = call.config()
    result = commands.fetch.run(config, what=what or (), offline=call.runtime.offline)
    commands.fetch.show(result)
    if result.missing:
        raise typer.Exit(1)


@command(app)
def info(call: Call, *, as_json: bool = _JSON) -> None:
    """Show versions, device, and locations of files.

    Examples:
        senthy info
        senthy info --json --device cpu
    """
    config = call.config()
    facts = commands.info.run(config, config_file=call.file, device=call.runtime.device)
    console.as_json(facts) if as_json else commands.info.show(facts)


@command(config_app, "data")
def show(call: Call) -> None:
    """Print the resolved configuration as YAML.

    Examples:
        senthy config show --config quickstart
        senthy config show --set train.epochs=3
    """
    console.raw(commands.config.show(call.config()))


@command(config_app)
def check(
    call: Call, *, file: str | None = typer.Argument(None, metavar="FILE|NAME", help="What to check, if not --config.")
) -> None:
    """Check a configuration, and list every error.

    Examples:
        senthy config check senthy.yaml
        senthy config check --set lstm.train.epochs=3
    """
    console.say(
        commands.config.check(file or call.file, call.overrides, flags=call.flags, option_names=call.option_names)
    )


@command(config_app)
def init(
    call: Call,
    *,
    path: Path = typer.Argument(Path(LOCAL_CONFIG), metavar="PATH", help="The new file."),
    name: str = option(
        "--from", "Which shipped config.", "NAME", default="default", autocompletion=paths.shipped_configs
    ),
    force: bool = switch("--force", "Replace an existing file."),
) -> None:
    """Write a commented configuration to start from.

    Examples:
        senthy config init
        senthy config init my.yaml --from quickstart
    """
    console.say(f"wrote {commands.config.init(path, name=name, force=force)}")


@command(config_app)
def schema(
    call: Call,
    *,
    as_json: bool = switch("--json", "Print the JSON Schema, for editors."),
    markdown: bool = switch("--markdown", "Print the documentation page."),
) -> None:
    """List every setting: allowed values, default, meaning.

    Examples:
        senthy config schema
        senthy config schema --json > senthy.schema.json
    """
    commands.config.schema("json" if as_json else "markdown" if markdown else "table")


@command(models_app, name="list")
def models_list(call: Call, *, as_json: bool = _JSON) -> None:
    """List trained models: data, figures, date, and which of them are published.

    Examples:
        senthy models list
        senthy models list --json
    """
    config = call.config()
    entries = commands.models.run(config)
    console.as_json([entry.to_dict() for entry in entries]) if as_json else commands.models.show(entries, config)


@command(app, name="report", runtime=("encoder",))
def report_(
    call: Call,
    *,
    models: list[str] | None = typer.Argument(None, metavar="MODEL", help="Runs, directories or heads. [default: all]"),
    output: Path | None = option("--output -o", "The file. [default: results/report.html]", "FILE"),
    style: Literal["html", "md", "latex", "csv"] | None = option(
        "--format", "A page, or a table of the models. [default: by extension; html]"
    ),
    slice_by: str | None = option(
        "--slice-by",
        "Column of the tested data whose values are slices. [default: those kept by senthy test]",
        "COLUMN",
    ),
    no_explain: bool = switch("--no-explain", "Do not explain mistakes, which loads the models."),
) -> None:
    """Write one page about the tested models, their training, searches and data; or the table of a paper.

    Examples:
        senthy report
        senthy report --format latex --output table.tex
    """
    result = commands.report.run(
        call.config(),
        models or (),
        output=output,
        style=style,
        slice_by=slice_by,
        explain=not no_explain,
        runtime=call.runtime,
    )
    commands.report.show(result)


@command(app)
def compare(
    call: Call,
    *,
    first: str = typer.Argument(
        metavar="MODEL", help="A run, a model directory, or a head such as lstm (its last test)."
    ),
    second: str = typer.Argument(metavar="OTHER", help="Another one."),
    as_json: bool = _JSON,
) -> None:
    """Compare two tested models on the same rows: figures, paired tests, and the settings that differ.

    Examples:
        senthy compare lstm han
        senthy compare mine models/han_roberta_model_final --json
    """
    result = commands.compare.run(call.config(), first, second)
    console.as_json(result.to_dict()) if as_json else commands.compare.show(result)


@command(models_app, name="publish")
def models_publish(call: Call, model: str = _MODEL_ID) -> None:
    """Publish a model; the beginning of its ID or its name suffices. The one published before is kept.

    Examples:
        senthy models publish han-20261129-0610
        senthy models publish my-best
    """
    console.say(f"published {commands.models.publish(call.config(), model).id}")


@command(models_app, name="remove")
def models_remove(call: Call, model: str = _MODEL_ID) -> None:
    """Remove a model that is not published.

    Examples:
        senthy models remove han-20261129-061020-a1b2c3
        senthy models remove joint-20261129-061020-a1b2c3-lstm
    """
    console.say(f"removed {commands.models.remove(call.config(), model).id}")


@command(cache_app, name="info")
def cache_info(
    call: Call,
    *,
    verify: bool = switch("--verify", "Check every stored state; exit code 1 if one is damaged."),
    as_json: bool = _JSON,
) -> None:
    """Show what is cached, its size and limit, and when it was last used.

    Examples:
        senthy cache info
        senthy cache info --verify
    """
    config = call.config()
    with console.progress("checking", unit="shards") as bar:
        found = commands.cache.info(config, verify=verify, progress=bar.advance)
    console.as_json(found.to_dict()) if as_json else commands.cache.show(found)
    if verify and found.problems:
        raise typer.Exit(1)


@command(cache_app, name="clear")
def cache_clear(
    call: Call,
    *,
    states: bool = switch("--states", "Token states."),
    baselines: bool = switch("--baselines", "Fitted baselines."),
    finetune: bool = switch("--finetune", "Prepared texts of fine-tuning runs."),
    teachers: bool = switch("--teachers", "Probabilities computed by teachers."),
    leftovers: bool = switch("--leftovers", "Partial files, models and runs of killed processes."),
    all_: bool = switch("--all", "All of these."),
    older_than: float | None = option("--older-than", "Only what was last used longer ago.", "DAYS", min=0.0),
    yes: bool = switch("--yes -y", "Do not ask for confirmation."),
) -> None:
    """Remove what is cached. It is computed again when it is needed.

    Examples:
        senthy cache clear --states --older-than 30
        senthy cache clear --all --yes
    """
    config = call.config()
    chosen = {"states": states, "baselines": baselines, "finetune": finetune, "teachers": teachers}
    chosen["leftovers"] = leftovers
    kinds = [kind for kind, wanted in chosen.items() if wanted or all_]
    cleared = commands.cache.clear(config, kinds, older_than=older_than, confirm=lambda found: yes or _may_clear(found))
    commands.cache.show_cleared(cleared)
    if cleared.kept:
        raise typer.Exit(1)


def _may_clear(found: Sequence[Any]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("this needs confirmation, and there is no terminal to ask", hint="Add --yes.")
    for entry in found:
        console.note(f"{entry.bytes / 1e9:.3f} GB  {entry.path}")
    total = sum(entry.bytes for entry in found)
    return typer.confirm(f"Remove {'all of this' if len(found) > 1 else 'it'} ({total / 1e9:.3f} GB)?", err=True)


app.add_typer(config_app, name="config")
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")


# --- main ------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    # Importing torch creates millions of objects, none of them garbage: the first prediction takes a third less time.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 50)
    atexit.register(gc.freeze)  # nor is there any at exit
    console.prepare_streams()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.name == "posix" and threading.current_thread() is threading.main_thread():
        # A job scheduler's SIGTERM and a closed terminal must save the state as Ctrl-C does.
        interrupt = _Interrupt()
        for number in stop_signals():
            signal.signal(number, interrupt)
    try:
        code = app(arguments and list(arguments), prog_name="senthy", standalone_mode=False) or 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(bool(exit_.code))
    except BaseException as failure:  # noqa: BLE001 - the only place that reports one
        code = report(failure)
    if code == 0:
        distributed.leave()
    try:
        sys.stdout.flush()  # a closed pipe or a full disk shows only now
    except OSError as failure:
        console.quiet_broken_pipe()
        failure.filename = "standard output"
        code = code or report(failure)
    sys.exit(code)


class _Interrupt:
    """Handles Ctrl-C and its like: at the first, the command cleans up and ends; at the second, it ends at once."""

    _first: float | None = None

    def __call__(self, number: int, frame: object) -> None:
        if self._first is None:
            self._first = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self._first >= _ONE_PRESS:
            console.last_words("stopped at once; the same command removes what was left incomplete when it runs again")
            os._exit(INTERRUPTED)
