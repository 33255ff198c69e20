"""The command line: options become a Config and a call; the only place that prints an error and exits."""

from __future__ import annotations

import atexit
import errno
import functools
import gc
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperGroup

from sentiment_hybrid import __version__, console, paths
from sentiment_hybrid.engine import processes
from sentiment_hybrid.errors import ConfigError, SenthyError, UsageError

if TYPE_CHECKING:
    from sentiment_hybrid.config.schema import Config

INTERRUPTED = 130

#: Read where no --config is given.
LOCAL_CONFIG = "senthy.yaml"

#: Commands that several processes, started by torchrun or accelerate launch, run together, or refuse with more to say.
_TOGETHER = {"train", "optimize", "pretrain"}

#: Python's own number is 700.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000

#: What tells the libraries below to keep off the network; set before any of them is imported.
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


# --- errors ----------------------------------------------------------------------------------------------------------


class Told(TyperGroup):
    """The group of all commands: whatever a command raises is told here, and becomes an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except (SenthyError, KeyboardInterrupt, OSError, RecursionError, MemoryError) as failure:
            code = tell(failure)
        except Exception as failure:
            # Typer's own exits and usage errors are its business; anything else is a bug, told in one sentence.
            if type(failure).__module__.split(".")[0] in {"typer", "click"}:
                code = getattr(failure, "exit_code", 0)
                if code == 0 or processes.tells(failure):
                    raise
                processes.let_it_be_told()
                raise typer.Exit(code) from None
            code = tell(failure)
        raise typer.Exit(code)


def tell(failure: BaseException) -> int:
    """Print what went wrong and return the exit code: 1 cannot be done, 2 usage or config, 130 interrupted."""
    if not processes.tells(failure):
        processes.let_it_be_told()
        return INTERRUPTED if isinstance(failure, KeyboardInterrupt) else getattr(failure, "exit_code", 1)
    if console.verbosity() > 0 and not isinstance(failure, KeyboardInterrupt):
        console.traceback(failure)
    if isinstance(failure, KeyboardInterrupt):
        console.note("")
        console.warn(str(failure) or "interrupted; every file is complete, or as it was before")
        return INTERRUPTED
    if isinstance(failure, SenthyError):
        console.error(failure.message, problems=getattr(failure, "problems", ()), hint=failure.hint)
        return failure.exit_code
    if isinstance(failure, BrokenPipeError):
        console.quiet_broken_pipe()
        return 1
    # torch tells a full GPU by an error of its own, of this name.
    if isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError":
        console.error("out of memory", hint="lower `batch_size` or `token_budget` with --set, or take a --sample-size")
        return 1
    if isinstance(failure, OSError):
        message, hint = _os_error(failure)
        console.error(message, hint=hint)
        return 1
    console.error(
        f"unexpected {type(failure).__name__}: {failure}",
        hint="this is a fault of the program; the same command with -v shows where it happened",
    )
    return 1


def _os_error(failure: OSError) -> tuple[str, str]:
    where = f" {failure.filename}" if failure.filename else ""
    if failure.errno == errno.ENOSPC:
        return f"the disk is full{':' if where else ''}{where}", "free some space, or set another folder under `paths`"
    if failure.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return (
            f"no permission to use{where or ' a file'}",
            "choose another place under `paths`, or change its permissions",
        )
    return (
        f"{failure.strerror or failure}{':' if where else ''}{where}",
        "the same command with -v shows where it happened",
    )


# --- options that are settings ---------------------------------------------------------------------------------------


class Device(StrEnum):
    """Where tensors live."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Split(StrEnum):
    """Which rows of the database."""

    test = "test"
    valid = "valid"
    train = "train"


class Mode(StrEnum):
    """What run-all does with each model."""

    train = "train"
    optimize = "optimize"
    test = "test"


class Backend(StrEnum):
    """What computes predictions."""

    torch = "torch"
    onnx = "onnx"


class ExportFormat(StrEnum):
    """What a model is exported to."""

    onnx = "onnx"
    pack = "pack"


class Quantized(StrEnum):
    """What the weights of an export become."""

    int8 = "int8"


class PredictPrecision(StrEnum):
    """What the encoder computes in when a model is applied."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


class InputFormat(StrEnum):
    """How the rows of a pipe are written."""

    lines = "lines"
    csv = "csv"
    tsv = "tsv"
    jsonl = "jsonl"


@dataclass(frozen=True)
class Flag:
    """An option whose value is a setting: ``key`` is where it goes; ``{model}`` stands for each model in use."""

    options: tuple[str, ...]
    key: str
    kind: Any
    help: str
    metavar: str | None = None

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.options[0].removeprefix("--").replace("-", "_")

    def parameter(self, panel: str) -> inspect.Parameter:
        """The parameter that typer makes an option of."""
        words = f"{self.help} ({self.key})"
        option = typer.Option(*self.options, help=words, metavar=self.metavar, rich_help_panel=panel)
        annotation = cast(Any, Annotated)[self.kind, option]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


_SEED = (Flag(("--seed",), "project.seed", int | None, "Seed of weights, dropout and batch order."),)

_DATA = (
    Flag(("--source",), "data.source", str | None, "kaggle[:OWNER/NAME], a file, an SQLite database, or sample."),
    Flag(("--train-source",), "data.train_source", str | None, "Official training split; goes with --test-source."),
    Flag(("--valid-source",), "data.valid_source", str | None, "Official validation split."),
    Flag(("--test-source",), "data.test_source", str | None, "Official test split."),
    Flag(("--text-column",), "data.text_column", str | None, "Column to train on; detected if not named."),
    Flag(("--label-column",), "data.label_column", str | None, "Column of labels; detected if not named."),
    Flag(
        ("--label-map",),
        "data.label_map",
        list[str] | None,
        "VALUE=LABEL, in label order; repeat it, or give one YAML map.",
        "VALUE=LABEL",
    ),
    Flag(("--normalizer",), "data.normalizer", str | None, "How texts are cleaned.", "tweet|classic|none"),
)

_TRAIN = (
    Flag(("--epochs", "--final-epochs"), "{model}.train.epochs", int | None, "Passes over the training rows."),
    Flag(
        ("--sample-size",), "{model}.train.sample_size", int | None, "Train on the first N rows of the split's order."
    ),
    Flag(("--teacher",), "distill.teacher", str | None, "Model (or file of probabilities) to learn from too.", "DIR"),
)

_SEARCH = (
    Flag(("--n-trials",), "{model}.hpo.n_trials", int | None, "Trials in all, pruned ones included."),
    Flag(("--sample-size",), "{model}.hpo.sample_size", int | None, "Training rows of a trial."),
    Flag(("--hpo-epochs",), "{model}.hpo.epochs", int | None, "Epochs of a trial."),
    Flag(("--timeout",), "{model}.hpo.timeout", float | None, "Seconds after which no new trial starts."),
    Flag(
        ("--storage",),
        "{model}.hpo.storage",
        str | None,
        "Where the study is kept: sqlite:///FILE, or postgresql+psycopg://... for several machines.",
        "URL",
    ),
    Flag(("--study-name",), "{model}.hpo.study_name", str | None, "Name of the study; derived if not given."),
    Flag(("--workers",), "{model}.hpo.workers", int | None, "Trials at a time on this machine."),
    Flag(("--sampler",), "{model}.hpo.sampler", str | None, "What draws parameters.", "tpe|random|gp|qmc|nsgaii"),
    Flag(("--pruner",), "{model}.hpo.pruner", str | None, "What gives up bad trials.", "median|hyperband|none"),
    Flag(
        ("--epochs", "--final-epochs"), "{model}.train.epochs", int | None, "Passes over all rows, of the final model."
    ),
)

_PRETRAIN = (
    Flag(("--data",), "pretrain.source", str | None, "Texts: a file, an SQLite database, kaggle:, sample.", "SOURCE"),
    Flag(("--base", "--from"), "pretrain.base", str | None, "Encoder to go on from, or scratch.", "ENCODER"),
    Flag(("--output",), "pretrain.output_dir", Path | None, "Where the encoder goes.", "DIR"),
    Flag(("--text-column",), "data.text_column", str | None, "Column to train on; detected if not named."),
    Flag(("--epochs",), "pretrain.epochs", int | None, "Passes over the texts."),
    Flag(("--sample-size",), "pretrain.sample_size", int | None, "The first N texts in a fixed order."),
)

_FINETUNE = (
    Flag(("--finetune-epochs",), "finetune.epochs", int | None, "Passes over the new training rows."),
    Flag(("--sample-size",), "finetune.sample_size", int | None, "Train on the first N new rows of the split's order."),
    Flag(("--trainable-layers",), "finetune.trainable_layers", str | None, "Encoder layers to train.", "N|all"),
    Flag(("--layer-decay",), "finetune.layer_decay", float | None, "Each lower encoder layer learns so much slower."),
)

_TEST = (Flag(("--sample-size",), "test.sample_size", int | None, "Test on the first N rows of the split's order."),)

#: What run-all's --sample-size bounds, by mode.
_SAMPLED = {
    Mode.train: "{model}.train.sample_size",
    Mode.optimize: "{model}.hpo.sample_size",
    Mode.test: "test.sample_size",
}
_OF_THE_MODE = "train, hpo or test.sample_size, as --mode has it"
_RUN_ALL = (
    *(flag for flag in _TRAIN if flag.name != "sample_size"),
    *(flag for flag in _SEARCH if flag.name not in {"sample_size", "epochs"}),
    Flag(("--sample-size",), _OF_THE_MODE, int | None, "Rows to train on, of a trial, or to test on."),
)

#: How to read a labelled file; the errors about one say to type these.
_COLUMNS = tuple(flag for flag in _DATA if flag.name in {"text_column", "label_column", "label_map"})

_PANELS = {
    "data": _DATA,
    "columns": _COLUMNS,
    "training": _TRAIN,
    "search": _SEARCH,
    "pretraining": _PRETRAIN,
    "fine-tuning": _FINETUNE,
    "testing": _TEST,
    "each model": _RUN_ALL,
}
_EVERYWHERE = "Everywhere"


@dataclass(frozen=True)
class Call:
    """What the options that every command shares say."""

    source: str | None
    overrides: tuple[str, ...]
    flags: Mapping[str, Any]
    device: str
    offline: bool

    def config(self, models: Sequence[str] = (), *, params: Path | None = None) -> Config:
        """The Config of this call; training options go to each of ``models``, for which ``params`` are, too."""
        from sentiment_hybrid.config.load import load_config

        flags: dict[str, Any] = {}
        for key, value in self.flags.items():
            flags |= {key.format(model=model): value for model in (models if "{model}" in key else [""])}
        if self.source is None and self.file is not None:
            console.note(f"using {LOCAL_CONFIG} of this folder (--config default for the defaults)")
        return load_config(self.file, self.overrides, flags=flags, params=params, params_for=models)

    def in_mode(self, mode: Mode) -> Call:
        """This call with --sample-size as the mode means it. Raises UsageError for an option of another mode."""
        search = {flag.key: flag.options[0] for flag in _SEARCH if ".hpo." in flag.key}
        foreign = [option for key, option in search.items() if key in self.flags]
        if foreign and mode is not Mode.optimize:
            raise UsageError(f"{foreign[0]} is for a search", hint="Add --mode optimize, or leave it out.")
        renamed = {_SAMPLED[mode] if key == _OF_THE_MODE else key: value for key, value in self.flags.items()}
        return replace(self, flags=renamed)

    @property
    def file(self) -> str | None:
        """The configuration in use: --config, else senthy.yaml of the working directory, else none."""
        return self.source or (LOCAL_CONFIG if Path(LOCAL_CONFIG).is_file() else None)


def _shipped_configs() -> list[str]:
    return sorted(path.stem for path in paths.shipped_configs().glob("*.yaml"))


def _switch(name: str, words: str, *, short: str = "", **more: Any) -> Any:
    names = (name, short) if short else (name,)
    # Some versions of typer would show the type of a switch where a value's placeholder belongs.
    return typer.Option(*names, help=words, metavar="", show_default=False, **more)


def _shared(
    *,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE|NAME",
            autocompletion=_shipped_configs,
            help=f"A YAML file, or a shipped config such as quickstart; else {LOCAL_CONFIG} of this folder, if any.",
            rich_help_panel=_EVERYWHERE,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Change any setting; repeat it.", rich_help_panel=_EVERYWHERE),
    ] = None,
    device: Annotated[Device, typer.Option("--device", help="Where to compute.", rich_help_panel=_EVERYWHERE)] = (
        Device.auto
    ),
    offline: Annotated[bool, _switch("--offline", "Use no network at all.", rich_help_panel=_EVERYWHERE)] = False,
    verbose: Annotated[
        int, _switch("--verbose", "Tell more; -vv everything.", short="-v", count=True, rich_help_panel=_EVERYWHERE)
    ] = 0,
    quiet: Annotated[
        bool, _switch("--quiet", "Only warnings and errors.", short="-q", rich_help_panel=_EVERYWHERE)
    ] = False,
) -> None:
    """The options of every command; ``_call`` acts on them."""


def options(*groups: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of ``groups`` and the shared ones; it receives them as its first argument, a Call."""
    flags = [(flag, f"Settings: {group}") for group in groups for flag in _PANELS[group]]
    flags += [(flag, _EVERYWHERE) for flag in _SEED]
    added = [flag.parameter(panel) for flag, panel in flags]
    shared = inspect.signature(_shared, eval_str=True).parameters.values()

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]

        def command(**given: Any) -> None:
            if verb.__name__ not in _TOGETHER:
                processes.refuse(verb.__name__.replace("_", "-"))
            settings = {flag.key: _value(flag, given.pop(flag.name)) for flag, _ in flags}
            call = _call(given, settings)
            verb(call, **given)

        parameters = [*own, *added, *shared]
        functools.update_wrapper(command, verb)
        del command.__wrapped__  # type: ignore[attr-defined]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def _call(given: dict[str, Any], settings: Mapping[str, Any]) -> Call:
    """Take the shared options out of ``given`` and act on those that must come first."""
    verbose, quiet = given.pop("verbose"), given.pop("quiet")
    offline = given.pop("offline")
    if verbose and quiet:
        raise UsageError("-v and -q exclude each other")
    console.set_verbosity(-1 if quiet else verbose)
    if offline:
        os.environ.update(dict.fromkeys(_OFFLINE_VARIABLES, "1"))
    return Call(
        source=given.pop("config"),
        overrides=tuple(given.pop("set_") or ()),
        flags={key: value for key, value in settings.items() if value is not None},
        device=given.pop("device").value,
        offline=offline,
    )


def _value(flag: Flag, value: Any) -> Any:
    return _label_map(value) if flag.key == "data.label_map" and value else (value or None if value == [] else value)


def _label_map(items: Sequence[str]) -> dict[str, str]:
    """``0=negative`` items, or one YAML map, as an ordered map. Raises ConfigError."""
    from sentiment_hybrid.config.syntax import parse

    result: dict[str, str] = {}
    for item in items:
        value, equals, label = item.rpartition("=")
        if item.lstrip().startswith("{") or not equals:
            document = parse(item)
            if not isinstance(document, dict):
                raise ConfigError(
                    f"--label-map {item}: there is no = in it, and it is no map",
                    hint="write VALUE=LABEL, or a map such as {0: negative, 4: positive}",
                )
            result |= {str(key): str(name) for key, name in document.items()}
        else:
            result[value.strip()] = label.strip()
    return result


# --- choices that are not settings -----------------------------------------------------------------------------------

MODELS = tuple(paths.DISPLAY_NAMES)
#: As config.schema.JOINT, without loading pydantic.
_JOINT = "joint"


def _model(value: str | None) -> str | None:
    return _one_of(value, MODELS)


def _trainable(value: str) -> str:
    return cast(str, _one_of(value, (*MODELS, _JOINT)))


def _one_of(value: str | None, names: tuple[str, ...]) -> str | None:
    for name in [value] if isinstance(value, str) else value or []:
        if name not in names:
            import difflib

            near = difflib.get_close_matches(name, names, n=1)
            mean = f" Did you mean {near[0]}?" if near else ""
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(names)}.{mean}")
    return value


def _model_names(incomplete: str) -> list[str]:
    return [name for name in MODELS if name.startswith(incomplete)]


def _trainable_names(incomplete: str) -> list[str]:
    return [name for name in (*MODELS, _JOINT) if name.startswith(incomplete)]


def _model_option(words: str) -> Any:
    metavar = "|".join(MODELS)
    return typer.Option("--model", "-m", metavar=metavar, callback=_model, autocompletion=_model_names, help=words)


ModelChoice = Annotated[str, _model_option("Which head to train.")]
Trainable = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="|".join([*MODELS, _JOINT]),
        callback=_trainable,
        autocompletion=_trainable_names,
        help="Which head to train; joint: those of joint.models together, on one encoder.",
    ),
]
AnyModel = Annotated[str | None, _model_option("Which published model; that of --load-model-path otherwise.")]
ModelList = Annotated[list[str] | None, _model_option("Which heads; repeat it. lstm and han otherwise.")]
ModelPath = Annotated[
    Path | None,
    typer.Option("--load-model-path", metavar="DIR", help="A model directory; or mini, mini-lstm, mini-han."),
]
EncoderPath = Annotated[
    Path | None,
    typer.Option("--encoder", metavar="DIR", help="Where the encoder that a model names lies on this disk."),
]
Json = Annotated[bool, _switch("--json", "Print JSON.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Train so many seeds: mean, deviation.")]
Params = Annotated[
    Path | None,
    typer.Option("--params", metavar="FILE", help="Best parameters of a search, laid over the configuration."),
]
Refresh = Annotated[bool, _switch("--refresh", "Build the database anew though nothing has changed.")]
Resume = Annotated[bool, _switch("--resume", "Go on with the newest unfinished run of the same settings.")]
DryRun = Annotated[bool, _switch("--dry-run", "Only estimate what it would do and take, in seconds.")]
Bundle = Annotated[bool, _switch("--bundle-encoder", "Put a frozen hub encoder into the model directory too.")]


# --- commands --------------------------------------------------------------------------------------------------------

app = typer.Typer(
    name="senthy",
    cls=Told,
    help="Train, test and apply sentiment classifiers: a RoBERTa encoder under an LSTM or hierarchical-attention head.",
    epilog="To see it work, without a download: senthy run-all --config quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Show, check, write and explain configurations.", no_args_is_help=True)
cache_app = typer.Typer(help="Show and clear what is kept between runs: token states above all.", no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        console.raw(f"senthy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
@options("data")
def data(
    call: Call,
    *,
    refresh: Refresh = False,
) -> None:
    """Read labelled texts, clean and split them, and keep them in one database."""
    from sentiment_hybrid.commands import data as verb

    console.show_data(verb.run(call.config(), refresh=refresh, offline=call.offline))


@app.command()
@options("pretraining")
def pretrain(call: Call, *, resume: Resume = False) -> None:
    """Train an encoder on texts without labels: from scratch, or on from another (domain adaptation)."""
    from sentiment_hybrid.commands import pretrain as verb

    console.show_pretrain(verb.run(call.config(), resume=resume, device=call.device, offline=call.offline))


@app.command()
@options("training")
def train(
    call: Call,
    *,
    model: Trainable = "lstm",
    seeds: Seeds = 1,
    resume: Resume = False,
    encoder: EncoderPath = None,
    bundle_encoder: Bundle = False,
    params: Params = None,
    no_test: Annotated[bool, _switch("--no-test", "Stop after the model is published.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Train a model, publish the best epoch, and test it."""
    from sentiment_hybrid.commands import train as verb

    if model == _JOINT and (seeds > 1 or params or dry_run):
        raise UsageError("--seeds, --params and --dry-run are for one model", hint="Leave them out, or name one.")
    config = call.config([model], params=params)
    if model == _JOINT:
        from sentiment_hybrid.commands import joint

        done = joint.run(
            config,
            resume=resume,
            device=call.device,
            offline=call.offline,
            test=not no_test,
            encoder=encoder,
            bundle_encoder=bundle_encoder,
        )
        for result in done.results:
            console.show_train(result)
        return
    if dry_run:
        _dry_run(call, config, [model], "train", encoder, bundle_encoder, seeds=seeds, test=not no_test)
        return
    result = verb.run(
        config,
        model,
        resume=resume,
        device=call.device,
        offline=call.offline,
        seeds=seeds,
        test=not no_test,
        encoder=encoder,
        bundle_encoder=bundle_encoder,
    )
    console.show_train(result)


@app.command()
@options("search")
def optimize(
    call: Call,
    *,
    model: ModelChoice = "lstm",
    no_final: Annotated[bool, _switch("--no-final", "Stop after the search; train no final model.")] = False,
    encoder: EncoderPath = None,
    bundle_encoder: Bundle = False,
    dry_run: DryRun = False,
) -> None:
    """Search hyper-parameters, then train and test the best model; run again, it goes on where it stopped."""
    from sentiment_hybrid.commands import optimize as verb

    config = call.config([model])
    if dry_run:
        _dry_run(call, config, [model], "optimize", encoder, bundle_encoder, final=not no_final)
        return
    result = verb.run(
        config,
        model,
        device=call.device,
        offline=call.offline,
        encoder=encoder,
        bundle_encoder=bundle_encoder,
        final=not no_final,
    )
    console.show_optimize(result)


@app.command()
@options("testing", "columns")
def test(
    call: Call,
    *,
    model: AnyModel = None,
    load_model_path: ModelPath = None,
    split: Annotated[Split, typer.Option("--split", help="Which rows.")] = Split.test,
    data: Annotated[Path | None, typer.Option("--data", metavar="FILE", help="A labelled file instead.")] = None,
    encoder: EncoderPath = None,
) -> None:
    """Measure a model on rows that it has not seen, beside a plain baseline."""
    from sentiment_hybrid.commands import test as verb

    result = verb.run(
        call.config(),
        model,
        load_model_path=load_model_path,
        split=cast(Any, split.value),
        data_file=data,
        device=call.device,
        offline=call.offline,
        encoder=encoder,
    )
    console.show_test(result)


@app.command()
@options("fine-tuning", "columns")
def finetune(
    call: Call,
    *,
    data: Annotated[
        str, typer.Option("--finetune-data-path", metavar="SOURCE", help="Labelled texts: a file, sample, or kaggle:.")
    ],
    model: AnyModel = None,
    load_model_path: ModelPath = None,
    save_path: Annotated[
        Path | None,
        typer.Option("--save-finetuned-model-path", metavar="DIR", help="Where the new model goes."),
    ] = None,
    new_labels: Annotated[
        bool, _switch("--new-labels", "Take the data's own labels, with a fresh output layer.")
    ] = False,
    resume: Resume = False,
    encoder: EncoderPath = None,
    bundle_encoder: Bundle = False,
) -> None:
    """Fit a trained model to further texts, and measure it before and after, on new and old ones."""
    from sentiment_hybrid.commands import finetune as verb

    result = verb.run(
        call.config(),
        model,
        data_file=data,
        load_model_path=load_model_path,
        save_path=save_path,
        new_labels=new_labels,
        resume=resume,
        device=call.device,
        offline=call.offline,
        encoder=encoder,
        bundle_encoder=bundle_encoder,
    )
    console.show_finetune(result)


@app.command()
@options()
def predict(
    call: Call,
    *,
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; or use --input.")] = None,
    model: AnyModel = None,
    load_model_path: ModelPath = None,
    input_: Annotated[
        Path | None, typer.Option("--input", "-i", metavar="FILE", help="csv, tsv, jsonl, parquet, .gz, SQLite, or -.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Written by its suffix.")
    ] = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="Column to label.")] = None,
    format_: Annotated[
        InputFormat | None, typer.Option("--format", help="What is in a pipe (lines otherwise), or in an odd file.")
    ] = None,
    table: Annotated[str | None, typer.Option("--table", help="Table of an SQLite input.")] = None,
    precision: Annotated[
        PredictPrecision | None,
        typer.Option("--precision", help="Of the encoder; auto is bf16 where the machine has it, int8 is for CPUs."),
    ] = None,
    json_: Json = False,
    encoder: EncoderPath = None,
    backend: Annotated[
        Backend | None, typer.Option("--backend", help="onnx runs what senthy export wrote; told by the directory.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="A,B", help="Answer among these labels of the model alone.")
    ] = None,
) -> None:
    """Label new texts: those named, a file, or standard input."""
    from sentiment_hybrid.commands import predict as verb

    result = verb.run(
        texts or [],
        config=call.config(),
        model_dir=load_model_path,
        head=model,
        input_file=input_,
        output_file=output,
        as_json=json_,
        file_format=cast(Any, format_.value if format_ else None),
        text_column=text_column,
        table=table,
        precision=precision.value if precision else None,
        device=call.device,
        offline=call.offline,
        encoder=encoder,
        backend=cast(Any, backend.value if backend else "auto"),
        labels=None if labels is None else labels.split(","),
    )
    console.show_predictions(result)


@app.command()
@options()
def export(
    call: Call,
    *,
    model: AnyModel = None,
    load_model_path: ModelPath = None,
    format_: Annotated[ExportFormat, typer.Option("--format", help="What to write.")] = ExportFormat.onnx,
    quantize: Annotated[Quantized | None, typer.Option("--quantize", help="Make the weights int8.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="The new directory.")] = None,
    encoder: EncoderPath = None,
) -> None:
    """Write a model as one ONNX graph with its tokenizer, checked and timed against the original.

    Or with --format pack the models that were trained together, in half precision, with one encoder.
    """
    from sentiment_hybrid.commands import export as verb
    from sentiment_hybrid.commands import packing

    if format_ is ExportFormat.pack:
        if model or load_model_path or quantize or encoder:
            raise UsageError(
                "--format pack takes the published models of joint.models, and of these options only --output",
                hint="Leave out --model, --load-model-path, --quantize and --encoder.",
            )
        console.show_pack(packing.run(call.config(), output=output, offline=call.offline))
        return

    result = verb.run(
        call.config(),
        model,
        load_model_path=load_model_path,
        output=output,
        file_format=cast(Any, format_.value),
        quantize=cast(Any, quantize.value if quantize else None),
        offline=call.offline,
        encoder=encoder,
    )
    console.show_export(result)


@app.command("run-all")
@options("data", "each model")
def run_all(
    call: Call,
    *,
    model: ModelList = None,
    mode: Annotated[Mode, typer.Option("--mode", help="What to do with each model, after the data.")] = Mode.train,
    seeds: Seeds = 1,
    params: Params = None,
    force: Annotated[bool, _switch("--force", "Repeat steps whose inputs have not changed.")] = False,
    refresh: Refresh = False,
    resume: Resume = False,
    encoder: EncoderPath = None,
    bundle_encoder: Bundle = False,
    dry_run: DryRun = False,
) -> None:
    """Prepare data, then train, optimize or test every model, and compare them."""
    from sentiment_hybrid.commands import run_all as verb

    models = list(dict.fromkeys(model or ("lstm", "han")))
    config = call.in_mode(mode).config(models, params=params)
    if dry_run:
        if mode is Mode.test:
            raise UsageError("--dry-run is for trainings and searches", hint="Leave it out, or change --mode.")
        _dry_run(call, config, models, mode.value, encoder, bundle_encoder, seeds=seeds)
        return
    result = verb.run(
        config,
        models,
        mode=mode.value,
        seeds=seeds,
        force=force,
        refresh=refresh,
        device=call.device,
        offline=call.offline,
        encoder=encoder,
        bundle_encoder=bundle_encoder,
        resume=resume,
    )
    console.show_run_all(result)
    if result.failures:
        raise typer.Exit(1)


def _dry_run(
    call: Call,
    config: Config,
    models: Sequence[str],
    what: str,
    encoder: Path | None,
    bundle_encoder: bool,
    **more: Any,
) -> None:
    """Say what a command would do and take."""
    from sentiment_hybrid.commands import dry_run

    results = dry_run.run(
        config,
        models,
        cast(Any, what),
        device=call.device,
        offline=call.offline,
        encoder=encoder,
        bundle_encoder=bundle_encoder,
        **more,
    )
    dry_run.show(results)


@app.command()
@options()
def bench(
    call: Call,
    *,
    model: ModelChoice = "lstm",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.05, max=3600.0, help="Of each measurement, about.")
    ] = 3.0,
    encoder: EncoderPath = None,
    json_: Json = False,
) -> None:
    """Measure how fast this machine works with a config, and estimate what train and optimize would take."""
    from sentiment_hybrid.commands import bench as verb

    result = verb.run(
        call.config([model]), model, seconds=seconds, device=call.device, offline=call.offline, encoder=encoder
    )
    console.as_json(result.as_dict()) if json_ else verb.show(result)


@app.command()
@options("data")
def fetch(
    call: Call,
    *,
    what: Annotated[
        list[str] | None, typer.Option("--what", metavar="encoder|data|nltk", help="Only this; repeat it.")
    ] = None,
) -> None:
    """Bring encoder, data and nltk data for later use without a network; with --offline, say what is missing."""
    from sentiment_hybrid.commands import fetch as verb

    result = verb.run(call.config(), what=what or (), offline=call.offline)
    console.show_fetch(result)
    if result.missing:
        raise typer.Exit(1)


@app.command()
@options()
def info(call: Call, *, json_: Json = False) -> None:
    """Show versions, device, and where files lie."""
    from sentiment_hybrid.commands import info as verb

    facts = verb.run(call.config(), config_file=call.file, device=call.device)
    console.as_json(facts) if json_ else console.show_info(facts)


@config_app.command()
@options("data")
def show(call: Call) -> None:
    """Print the resolved configuration as YAML."""
    from sentiment_hybrid.commands import config as verb

    console.raw(verb.show(call.config()))


@config_app.command()
@options()
def check(
    call: Call,
    *,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE|NAME]", help="What to check; --config otherwise.")
    ] = None,
) -> None:
    """Say whether a configuration is valid; lists every problem if not."""
    from sentiment_hybrid.commands import config as verb

    console.say(verb.check(file or call.file, call.overrides, call.flags))


@config_app.command()
@options()
def init(
    call: Call,
    *,
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="Where to.")] = Path(LOCAL_CONFIG),
    from_: Annotated[
        str, typer.Option("--from", metavar="NAME", autocompletion=_shipped_configs, help="Which shipped config.")
    ] = "default",
    force: Annotated[bool, _switch("--force", "Replace a file that is there.")] = False,
) -> None:
    """Write a commented copy of a shipped configuration."""
    from sentiment_hybrid.commands import config as verb

    console.say(f"wrote {verb.init(path, name=from_, force=force)}")


@config_app.command()
@options()
def schema(
    call: Call,
    *,
    json_: Annotated[bool, _switch("--json", "Print the JSON Schema, for editors.")] = False,
    markdown: Annotated[bool, _switch("--markdown", "Print the documentation page.")] = False,
) -> None:
    """List every setting: allowed values, default, meaning."""
    from sentiment_hybrid.commands import config as verb

    if json_:
        console.as_json(verb.json_schema())
    elif markdown:
        console.raw(verb.markdown())
    else:
        console.show_schema(verb.schema())


@cache_app.command("info")
@options()
def cache_info(
    call: Call,
    *,
    verify: Annotated[
        bool, _switch("--verify", "Compare every stored state with its checksum; 1 if one is damaged.")
    ] = False,
    json_: Json = False,
) -> None:
    """Show what is kept, its size against the budget, and when it was last used."""
    from sentiment_hybrid.commands import cache as verb

    with console.progress("checking", unit="shards") as bar:
        found = verb.info(call.config(), verify=verify, progress=bar.advance)
    console.as_json(found.to_dict()) if json_ else console.show_cache(found)
    if verify and found.problems:
        raise typer.Exit(1)


@cache_app.command("clear")
@options()
def cache_clear(
    call: Call,
    *,
    states: Annotated[bool, _switch("--states", "Stored token states.")] = False,
    baselines: Annotated[bool, _switch("--baselines", "Fitted baselines.")] = False,
    finetune: Annotated[bool, _switch("--finetune", "Prepared texts of fine-tunings.")] = False,
    teachers: Annotated[bool, _switch("--teachers", "Answers of teachers.")] = False,
    all_: Annotated[bool, _switch("--all", "All of these.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", min=0.0, metavar="DAYS", help="Only what was last used longer ago."),
    ] = None,
    yes: Annotated[bool, _switch("--yes", "Do not ask.", short="-y")] = False,
) -> None:
    """Remove what is kept, and say what that freed; all of it is computed again when it is needed."""
    from sentiment_hybrid.commands import cache as verb

    chosen = {"states": states, "baselines": baselines, "finetune": finetune, "teachers": teachers}
    kinds = [kind for kind, wanted in chosen.items() if wanted or all_]
    cleared = verb.clear(call.config(), kinds, older_than=older_than, confirm=lambda found: yes or _may_clear(found))
    console.show_cleared(cleared)
    if cleared.kept:
        raise typer.Exit(1)


def _may_clear(found: Sequence[Any]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("clearing asks first, and there is no terminal to answer", hint="Add --yes.")
    for entry in found:
        console.note(f"{entry.bytes / 1e9:.3f} GB  {entry.path}")
    total = sum(entry.bytes for entry in found)
    return typer.confirm(f"Remove {'all of this' if len(found) > 1 else 'it'} ({total / 1e9:.3f} GB)?", err=True)


app.add_typer(config_app, name="config")
app.add_typer(cache_app, name="cache")


# --- main ------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    _collect_seldom()
    console.prepare_streams()
    if {"-h", "--help"} & set(sys.argv[1:] if arguments is None else arguments):
        _show_names_whole()
    if os.name == "posix" and threading.current_thread() is threading.main_thread():
        # A scheduler's polite stop must save state as Ctrl-C does.
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="senthy")
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(bool(exit_.code))
    except (KeyboardInterrupt, OSError) as failure:
        code = tell(failure)
    if code == 0:
        processes.leave()
    sys.exit(_flushed(code))


def _collect_seldom() -> None:
    """Spare the first answer a third of its time: importing torch makes millions of objects, none of them garbage."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 50)
    atexit.register(gc.freeze)  # nor is anything left to find at the end


def _show_names_whole() -> None:
    """Have the tables of --help cut no option: in a narrow terminal typer would end long names with an ellipsis."""
    from rich.table import Table
    from rich.text import Text
    from typer import rich_utils

    class Whole(Table):
        """Names keep their line; the last two columns, type and meaning, go on in the next one."""

        def add_row(self, *cells: Any, **more: Any) -> None:
            if not self.columns:
                for number in range(len(cells)):
                    self.add_column(no_wrap=number < len(cells) - 2)
            for part in [part for cell in cells for part in getattr(cell, "renderables", [cell])]:
                if isinstance(part, Text):
                    part.overflow = "fold"
            super().add_row(*cells, **more)

    rich_utils.Table = Whole  # type: ignore[misc]


def _flushed(code: int) -> int:
    """The exit code after stdout took everything; a reader that went away or a full disk shows only now."""
    try:
        sys.stdout.flush()
    except OSError as failure:
        console.quiet_broken_pipe()
        return code or tell(failure)
    return code


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
