"""The command line: options become a Config and a call; the only place that prints an error and exits."""

from __future__ import annotations

import atexit
import difflib
import errno
import gc
import inspect
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn, cast

import typer
from typer.core import TyperCommand, TyperGroup

from sentiment_hybrid import __version__, console, distributed, paths, tables
from sentiment_hybrid.errors import ConfigError, SenthyError, UsageError
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.runtime import Runtime, stop_signals

if TYPE_CHECKING:
    from sentiment_hybrid.config.schema import Config

INTERRUPTED = 130
#: What a shell reports for a program that SIGPIPE ended, so that scripts can tell `| head` from a failure.
READER_GONE = 141

#: Read if there is no --config.
LOCAL_CONFIG = "senthy.yaml"

#: Commands that run in several processes at once, started by torchrun or accelerate launch; the others refuse to.
_DISTRIBUTED = {"train", "optimize", "pretrain"}

#: Python's default is 700.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000

#: What other libraries read when they are imported: no telemetry, no request for a conversion on the Hugging Face Hub,
#: and none of the messages that torch has for its own developers.
_ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
#: What keeps them off the network; set before any of them is imported.
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


# --- errors ----------------------------------------------------------------------------------------------------------


def report(failure: BaseException) -> int:
    """Print an error and return the exit code: 1 failed, 2 usage or configuration, 130 interrupted, 141 pipe closed."""
    if isinstance(failure, _Failed):
        failure = failure.args[0]
    if type(failure).__name__ == "Abort":  # of typer, at a question
        failure = KeyboardInterrupt("interrupted; nothing was changed")
    code = INTERRUPTED if isinstance(failure, KeyboardInterrupt) else getattr(failure, "exit_code", 1)
    if not distributed.tells(failure):
        distributed.await_message()
    elif isinstance(failure, KeyboardInterrupt):
        _exit_at_once_from_now_on()
        console.note("")
        console.warn(str(failure) or "interrupted; every file is complete, or as it was before")
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


def _exit_at_once_from_now_on() -> None:
    """What is left is to end: another Ctrl-C while threads are waited for must not print a traceback."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def _described(failure: BaseException) -> tuple[str, str]:
    """Message and hint."""
    if isinstance(failure, SenthyError):
        return failure.message, failure.hint
    if hasattr(failure, "format_message"):  # an error of typer about the command line
        return failure.format_message(), _help_on(failure)
    # torch has an error of its own, of this name, for a full GPU.
    if isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError":
        return "out of memory", "Lower `batch_size` or `token_budget` with --set, or use --sample-size."
    if not isinstance(failure, OSError):
        return (
            f"unexpected {type(failure).__name__}: {failure}",
            "This is a bug in senthy; the same command with -v shows where it happened.",
        )
    where = f": {failure.filename}" if failure.filename else ""
    if failure.errno == errno.ENOSPC:
        return f"the disk is full{where}", "Free some space, or set another directory under `paths`."
    if failure.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"permission denied{where}", "Set another directory under `paths`, or change the permissions."
    return f"{failure.strerror or failure}{where}", "The same command with -v shows where it happened."


def _help_on(failure: Any) -> str:
    command = failure.ctx.command_path if failure.ctx else "senthy"
    return f"`{command} --help` lists what it takes."


# --- help ------------------------------------------------------------------------------------------------------------


class _Help:
    """Help as plain text that fits the terminal: a section per panel, settings with their defaults, examples."""

    flags: ClassVar[Mapping[str, Flag]] = {}
    examples: ClassVar[Sequence[str]] = ()

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, and the commands of a group."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in cast(Any, self).get_params(ctx):
            if record := param.get_help_record(ctx):
                is_argument = param.param_type_name == "argument"
                # In older versions of typer, the help option has no panel, and brackets are escaped for rich.
                title = getattr(param, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
                meaning = record[1].replace("\\[", "[")
                if flag := self.flags.get(param.name):
                    meaning = f"{meaning} {flag.setting()}"
                sections.setdefault(title, []).append((param.metavar if is_argument else record[0], meaning))
        for command in getattr(self, "commands", {}).values():
            sections.setdefault("Commands", []).append((command.name, command.get_short_help_str(limit=1000)))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples; they are not wrapped, so that they can be copied."""
        with formatter.section("Examples"):
            formatter.write("".join(f"  {example}\n" for example in self.examples))


class _Group(_Help, TyperGroup):
    """A group of commands; what a command raises goes to `main`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, OSError) as failure:
            raise _Failed(failure) from failure  # typer would end the process itself, without a message


class _Failed(Exception):  # noqa: N818 - it only carries one
    """Carries an exception past typer."""


def _with_help(base: type[Any], examples: Sequence[str], flags: Sequence[Flag] = ()) -> type[Any]:
    return type(base.__name__, (base,), {"examples": examples, "flags": {flag.name: flag for flag in flags}})


class _Command(_Help, TyperCommand):
    """A command with such help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual. Raises UsageError for a text that looks like an option."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            texts = [text for text in given if re.match(r"-.*\s|-[^a-zA-Z-]", text)]
            if type(error).__name__ != "NoSuchOption" or not texts or self.name != "predict":
                raise
            raise UsageError(
                f"{texts[0]!r} begins with -, as an option does",
                hint=f"Put -- before the texts: senthy predict -- {shlex.quote(texts[0])}",
            ) from error


def _group(about: str, *examples: str, **more: Any) -> typer.Typer:
    return typer.Typer(
        cls=_with_help(_Group, examples),
        help=about,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **more,
    )


# --- options that are settings ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flag:
    """An option whose value is a setting: ``key`` is where it goes; ``{model}`` stands for each model in use."""

    options: tuple[str, ...]
    key: str
    type: Any
    help: str
    metavar: str | None = None

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.options[0].removeprefix("--").replace("-", "_")

    def setting(self) -> str:
        """The setting and its default, for the help."""
        from sentiment_hybrid.config.describe import settings

        key = self.key.removeprefix("{model}.")
        default = {setting.key: setting.default for setting in settings()}.get(key, "null")
        return f"[{key}]" if default == "null" else f"[{key}; default: {default}]"

    def parameter(self, panel: str) -> inspect.Parameter:
        """The parameter that typer makes an option of."""
        option = typer.Option(*self.options, help=self.help, metavar=self.metavar, rich_help_panel=panel)
        return _parameter(self.name, cast(Any, Annotated)[self.type, option], None)


def _flag(options: str, key: str, type_: Any, words: str, metavar: str | None = None) -> Flag:
    return Flag(tuple(options.split()), key, type_ | None, words, metavar)


Mode = Literal["train", "optimize", "test"]

_FIGURES = _flag("--figure-format", "project.figure_format", str, "Format of the figures.", "png|pdf|svg")
_SEED = _flag("--seed", "project.seed", int, "Seed of weights, dropout and batch order.")
_EPOCHS = _flag("--epochs --final-epochs", "{model}.train.epochs", int, "Passes over the training rows.")

#: How text files are written, where that is detected wrongly.
_FILES = (
    _flag("--delimiter", "data.delimiter", str, "Character between the fields of csv and tsv.", "C"),
    _flag("--encoding", "data.encoding", str, "Encoding of a text file."),
    _flag("--quoting", "data.quoting", str, "Quotes in csv and tsv.", "auto|minimal|none|backslash"),
)
#: How to read a labelled file; errors about one refer to these.
_COLUMNS = (
    _flag("--text-column", "data.text_column", str, "Column to train on."),
    _flag("--label-column", "data.label_column", str, "Column of labels."),
    _flag(
        "--label-map",
        "data.label_map",
        list[str],
        "Label of a value, in label order; repeat it, or give one YAML map.",
        "VALUE=LABEL",
    ),
    *_FILES,
)
_DATA = (
    _flag("--source", "data.source", str, "kaggle[:OWNER/NAME], a file, an SQLite database, or sample."),
    _flag("--train-source", "data.train_source", str, "Official training split; goes with --test-source."),
    _flag("--valid-source", "data.valid_source", str, "Official validation split."),
    _flag("--test-source", "data.test_source", str, "Official test split."),
    *_COLUMNS,
    _flag("--normalizer", "data.normalizer", str, "How texts are cleaned.", "tweet|classic|none"),
)
_TEACHER = _flag("--teacher", "distill.teacher", str, "Model, or file of probabilities, to learn from.", "DIR")
_TRAIN = (
    _EPOCHS,
    _TEACHER,
    _flag("--sample-size", "{model}.train.sample_size", int, "Train on the first N rows."),
    _FIGURES,
)
_HPO = (
    _flag("--n-trials", "{model}.hpo.n_trials", int, "Trials in all, including pruned ones."),
    _flag("--hpo-epochs", "{model}.hpo.epochs", int, "Epochs per trial."),
    _flag("--timeout", "{model}.hpo.timeout", float, "Seconds after which no new trial starts."),
    _flag(
        "--storage",
        "{model}.hpo.storage",
        str,
        "Where the study is stored: sqlite:///FILE, or postgresql+psycopg://... for several machines.",
        "URL",
    ),
    _flag("--study-name", "{model}.hpo.study_name", str, "Name of the study."),
    _flag("--workers", "{model}.hpo.workers", int, "Parallel trials on this machine."),
    _flag("--sampler", "{model}.hpo.sampler", str, "Optuna sampler.", "tpe|random|gp|qmc|nsgaii"),
    _flag("--pruner", "{model}.hpo.pruner", str, "Optuna pruner.", "median|hyperband|none"),
)
_SEARCH = (*_HPO, _flag("--sample-size", "{model}.hpo.sample_size", int, "Training rows per trial."), _EPOCHS, _FIGURES)
_PRETRAIN = (
    _flag("--data", "pretrain.source", str, "Texts: a file, an SQLite database, kaggle:..., or sample.", "SOURCE"),
    _flag("--base --from", "pretrain.base", str, "Encoder to continue training, or scratch.", "ENCODER"),
    _flag("--output", "pretrain.output_dir", Path, "Directory of the new encoder.", "DIR"),
    _COLUMNS[0],
    *_FILES,
    _flag("--epochs", "pretrain.epochs", int, "Passes over the texts."),
    _flag("--sample-size", "pretrain.sample_size", int, "Train on the first N texts."),
    _FIGURES,
)
_FINETUNE = (
    _flag("--finetune-epochs", "finetune.epochs", int, "Passes over the new training rows."),
    _flag("--sample-size", "finetune.sample_size", int, "Train on the first N new rows."),
    _flag("--trainable-layers", "finetune.trainable_layers", str, "Encoder layers to train.", "N|all"),
    _flag("--layer-decay", "finetune.layer_decay", float, "Factor on the rate of each lower encoder layer."),
    _FIGURES,
)
_TEST = (
    _flag("--sample-size", "test.sample_size", int, "Test on N rows, in the proportions of the classes."),
    _FIGURES,
)

#: What run-all's --sample-size limits, by mode.
_SAMPLED: dict[Mode, str] = {
    "train": "{model}.train.sample_size",
    "optimize": "{model}.hpo.sample_size",
    "test": "test.sample_size",
}
_SAMPLE_SIZE_OF_MODE = "train, hpo or test.sample_size, according to --mode"
_RUN_ALL = (
    _EPOCHS,
    _TEACHER,
    *_HPO,
    _flag("--sample-size", _SAMPLE_SIZE_OF_MODE, int, "Rows to train on, per trial, or to test on."),
    _FIGURES,
)

_PANELS = {
    "data": _DATA,
    "columns": _COLUMNS,
    "files": _FILES,
    "training": _TRAIN,
    "search": _SEARCH,
    "pretraining": _PRETRAIN,
    "fine-tuning": _FINETUNE,
    "testing": _TEST,
    "each model": _RUN_ALL,
}
_COMMON = "Common options"


@dataclass(frozen=True)
class Call:
    """The values of the options that every command has."""

    source: str | None
    overrides: tuple[str, ...]
    flags: Mapping[str, Any]
    runtime: Runtime

    def config(self, models: Sequence[str] = (), *, params: Path | None = None) -> Config:
        """The Config of this call; training options and ``params`` go to each of ``models``."""
        from sentiment_hybrid.config.load import load_config

        flags: dict[str, Any] = {}
        for key, value in self.flags.items():
            flags |= {key.format(model=model): value for model in (models if "{model}" in key else [""])}
        if self.source is None and self.file is not None:
            console.note(f"using {LOCAL_CONFIG} in this directory (--config default ignores it)")
        return load_config(self.file, self.overrides, flags=flags, params=params, params_for=models)

    def in_mode(self, mode: Mode) -> Call:
        """This call with --sample-size as the mode means it. Raises UsageError for an option of another mode."""
        foreign = [flag.options[0] for flag in _HPO if flag.key in self.flags]
        if foreign and mode != "optimize":
            raise UsageError(f"{foreign[0]} is for a search", hint="Add --mode optimize, or leave it out.")
        renamed = {_SAMPLED[mode] if key == _SAMPLE_SIZE_OF_MODE else key: value for key, value in self.flags.items()}
        return replace(self, flags=renamed)

    @property
    def file(self) -> str | None:
        """The configuration in use: --config, else senthy.yaml in the working directory, else none."""
        return self.source or (LOCAL_CONFIG if Path(LOCAL_CONFIG).is_file() else None)


def _shipped_configs() -> list[str]:
    return sorted(path.stem for path in paths.shipped_configs().glob("*.yaml"))


def _switch(name: str, words: str, **more: Any) -> Any:
    # Some versions of typer would show the type of a switch where a value's placeholder belongs.
    return typer.Option(*name.split(), help=words, metavar="", show_default=False, **more)


def _option(name: str, words: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(*name.split(), help=words, metavar=metavar, **more)


def _common(
    *,
    config: Annotated[
        str | None,
        _option(
            "--config -c",
            f"YAML file, or a shipped config such as quickstart. [default: {LOCAL_CONFIG}, if there is one]",
            "FILE|NAME",
            autocompletion=_shipped_configs,
        ),
    ] = None,
    set_: Annotated[list[str] | None, _option("--set", "Change any setting; can be repeated.", "KEY=VALUE")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], _option("--device", "Where to compute.")] = "auto",
    offline: Annotated[bool, _switch("--offline", "Do not use the network.")] = False,
    verbose: Annotated[int, _switch("--verbose -v", "More messages; -vv for all.", count=True)] = 0,
    quiet: Annotated[bool, _switch("--quiet -q", "Only warnings and errors.")] = False,
) -> None:
    """The options of every command; ``_call`` acts on them."""


def command(
    app: typer.Typer, *groups: str, name: str | None = None, runtime: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command; its docstring is the help, and its first argument a Call.

    Args:
        app: the group of the command.
        groups: names of ``_PANELS``: options that are settings.
        name: the command's name, if it is not the function's.
        runtime: names of ``_RUNTIME``: options that go into the Runtime.
    """
    flags = [(flag, f"Settings: {group}") for group in groups for flag in _PANELS[group]] + [(_SEED, _COMMON)]
    common = list(inspect.signature(_common, eval_str=True).parameters.values())
    for parameter in common:
        parameter.annotation.__metadata__[0].rich_help_panel = _COMMON
    added = [_parameter(name, *_RUNTIME[name]) for name in runtime] + [flag.parameter(panel) for flag, panel in flags]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]

        def run(**given: Any) -> None:
            if verb.__name__ not in _DISTRIBUTED:
                distributed.refuse(verb.__name__.replace("_", "-"))
            settings = {flag.key: _value(flag, given.pop(flag.name)) for flag, _ in flags}
            verb(_call(given, settings, runtime), **given)

        parameters = [*own, *added, *common]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        words, _, examples = inspect.getdoc(verb).partition("\n\nExamples:\n")  # type: ignore[union-attr]
        help_class = _with_help(_Command, inspect.cleandoc(examples).splitlines(), [flag for flag, _ in flags])
        app.command(name or verb.__name__, cls=help_class, help=words)(run)
        return run

    return decorate


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _call(given: dict[str, Any], settings: Mapping[str, Any], runtime: Sequence[str]) -> Call:
    """Remove what makes a Call from ``given``, and act on what must come first."""
    verbose, quiet, offline = given.pop("verbose"), given.pop("quiet"), given.pop("offline")
    if verbose and quiet:
        raise UsageError("-v and -q cannot be combined")
    console.set_verbosity(-1 if quiet else verbose)
    if offline:
        os.environ.update(dict.fromkeys(_OFFLINE_VARIABLES, "1"))
    return Call(
        source=given.pop("config"),
        overrides=tuple(given.pop("set_") or ()),
        flags={key: value for key, value in settings.items() if value is not None},
        runtime=Runtime(device=given.pop("device"), offline=offline, **{name: given.pop(name) for name in runtime}),
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
                    f"--label-map {item} is neither VALUE=LABEL nor a map",
                    hint="Write VALUE=LABEL, or a map such as {0: negative, 4: positive}.",
                )
            result |= {str(key): str(name) for key, name in document.items()}
        else:
            result[value.strip()] = label.strip()
    return result


# --- options that are not settings -----------------------------------------------------------------------------------

MODELS = tuple(HEADS)
#: The same as config.schema.JOINT, without loading pydantic.
_JOINT = "joint"


def _model_option(words: str, names: Sequence[str] = MODELS) -> Any:
    def checked(value: Any) -> Any:
        for name in [value] if isinstance(value, str) else value or []:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                mean = f" Did you mean {near[0]}?" if near else ""
                raise typer.BadParameter(f"{name!r} is not one of {', '.join(names)}.{mean}")
        return value

    def completed(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return _option("--model -m", words, "|".join(names), callback=checked, autocompletion=completed)


ModelChoice = Annotated[str, _model_option("Head to train.")]
Trainable = Annotated[
    str, _model_option("Head to train; joint trains those of joint.models together.", (*MODELS, _JOINT))
]
AnyModel = Annotated[str | None, _model_option("Which trained model, if not --load-model-path.")]
ModelList = Annotated[list[str] | None, _model_option("Heads; can be repeated. [default: lstm, han]")]
ModelPath = Annotated[
    Path | None, _option("--load-model-path", "Model directory; or mini, mini-lstm, mini-han.", "DIR")
]
Json = Annotated[bool, _switch("--json", "Print JSON.")]
Seeds = Annotated[int, _option("--seeds", "Number of seeds; reports mean and standard deviation.", min=1, max=1000)]
Params = Annotated[Path | None, _option("--params", "Best hyperparameters of a search, merged over --config.", "FILE")]
Refresh = Annotated[bool, _switch("--refresh", "Rebuild the database even if nothing has changed.")]
_RUNTIME: dict[str, tuple[Any, Any]] = {
    "resume": (
        Annotated[bool, _switch("--resume", "Continue the newest unfinished run with the same settings.")],
        False,
    ),
    "name": (
        Annotated[str, _option("--name", "Name of the trained model in `senthy models`; it is kept.", "NAME")],
        "",
    ),
    "encoder": (
        Annotated[Path | None, _option("--encoder", "Local directory of the encoder that the model uses.", "DIR")],
        None,
    ),
    "bundle_encoder": (
        Annotated[bool, _switch("--bundle-encoder", "Store a frozen hub encoder in the model directory, too.")],
        False,
    ),
}
DryRun = Annotated[bool, _switch("--dry-run", "Only estimate time, memory and disk space.")]


# --- commands --------------------------------------------------------------------------------------------------------

app = _group(
    "Train, test and apply sentiment classifiers: a RoBERTa encoder under an LSTM or hierarchical-attention head.",
    "senthy run-all --config quickstart",
    'senthy predict "not bad at all :)"',
    name="senthy",
    pretty_exceptions_enable=False,
)
config_app = _group(
    "Show, check, write and explain configurations.", "senthy config init", "senthy config show --config quickstart"
)
models_app = _group(
    "List trained models, and choose which of them is published.",
    "senthy models list",
    "senthy models publish han-2026",
)
cache_app = _group(
    "Show and clear what is cached, mainly token states.", "senthy cache info", "senthy cache clear --states"
)


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


@command(app, "data")
def data(call: Call, *, refresh: Refresh = False) -> None:
    """Read labelled texts, clean and split them, and store them in a database.

    Examples:
        senthy data --source reviews.csv --text-column review
        senthy data --source tweets.csv --label-map 0=negative --label-map 4=positive
    """
    config = call.config()
    from sentiment_hybrid.commands import data as verb

    verb.show(verb.run(config, refresh=refresh, offline=call.runtime.offline))


@command(app, "pretraining", runtime=("resume",))
def pretrain(call: Call) -> None:
    """Train an encoder on texts without labels, from scratch or from another one (domain adaptation).

    Examples:
        senthy pretrain --data tweets.csv --base roberta-base --output models/tweets
        senthy pretrain --base scratch --epochs 3
    """
    config = call.config()
    from sentiment_hybrid.commands import pretrain as verb

    verb.show(verb.run(config, call.runtime))


@command(app, "training", runtime=("resume", "name", "encoder", "bundle_encoder"))
def train(
    call: Call,
    *,
    model: Trainable = "lstm",
    seeds: Seeds = 1,
    params: Params = None,
    no_test: Annotated[bool, _switch("--no-test", "Do not test the model.")] = False,
    dry_run: DryRun = False,
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
    from sentiment_hybrid.commands import train as verb

    if model == _JOINT:
        for result in verb.run_joint(config, call.runtime, test=not no_test):
            tables.training(result)
        return
    tables.training(verb.run(config, model, call.runtime, seeds=seeds, test=not no_test))


@command(app, "search", runtime=("name", "encoder", "bundle_encoder"))
def optimize(
    call: Call,
    *,
    model: ModelChoice = "lstm",
    no_final: Annotated[bool, _switch("--no-final", "Do not train a final model after the search.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Search hyperparameters, then train and test the best model. The same command resumes a search.

    Examples:
        senthy optimize --model han --n-trials 30 --workers 2
        senthy optimize --storage sqlite:///study.db --timeout 3600
    """
    config = call.config([model])
    from sentiment_hybrid.commands import optimize as verb

    if dry_run:
        _dry_run(config, [model], "optimize", call.runtime, final=not no_final)
        return
    verb.show(verb.run(config, model, call.runtime, final=not no_final))


@command(app, "testing", "columns", runtime=("encoder",))
def test(
    call: Call,
    *,
    model: AnyModel = None,
    load_model_path: ModelPath = None,
    split: Annotated[Literal["test", "valid", "train"], _option("--split", "Which rows.")] = "test",
    data: Annotated[Path | None, _option("--data", "A labelled file instead of the database.", "FILE")] = None,
) -> None:
    """Test a model on held-out rows, beside a simple baseline.

    Examples:
        senthy test --model han
        senthy test --load-model-path mini --data reviews.csv
    """
    config = call.config()
    from sentiment_hybrid.commands import test as verb

    result = verb.run(config, model, call.runtime, load_model_path=load_model_path, split=split, data_file=data)
    tables.test(result)


@command(app, "fine-tuning", "columns", runtime=("resume", "name", "encoder", "bundle_encoder"))
def finetune(
    call: Call,
    *,
    data: Annotated[
        str,
        _option("--finetune-data-path", "Labelled texts: a file, an SQLite database, kaggle:..., or sample.", "SOURCE"),
    ],
    model: AnyModel = None,
    load_model_path: ModelPath = None,
    save_path: Annotated[
        Path | None, _option("--save-finetuned-model-path", "Directory of the new model.", "DIR")
    ] = None,
    new_labels: Annotated[
        bool, _switch("--new-labels", "Use the labels of the data, with a new output layer.")
    ] = False,
) -> None:
    """Train a model further on new texts, and test it before and after, on new and old ones.

    Examples:
        senthy finetune --model han --finetune-data-path reviews.csv
        senthy finetune --load-model-path mini --finetune-data-path reviews.csv
    """
    config = call.config()
    from sentiment_hybrid.commands import finetune as verb

    result = verb.run(
        config,
        model,
        call.runtime,
        data_file=data,
        load_model_path=load_model_path,
        save_path=save_path,
        new_labels=new_labels,
    )
    verb.show(result)


@command(app, "files", runtime=("encoder", "resume"))
def predict(
    call: Call,
    *,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Texts, if not --input.")] = None,
    model: AnyModel = None,
    load_model_path: ModelPath = None,
    input_: Annotated[
        Path | None, _option("--input -i", "csv, tsv, jsonl, parquet, .gz, SQLite, or - for standard input.", "FILE")
    ] = None,
    output: Annotated[Path | None, _option("--output -o", "Format follows the extension.", "FILE")] = None,
    text_column: Annotated[str | None, _option("--text-column", "Column to label. [default: detected]")] = None,
    format_: Annotated[
        Literal["lines", "csv", "tsv", "jsonl"] | None,
        _option("--format", "Format of standard input, or of a file without an extension. [default: lines]"),
    ] = None,
    table: Annotated[str | None, _option("--table", "Table of an SQLite input. [default: detected]")] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "int8"] | None,
        _option("--precision", "Of the encoder; auto is bf16 where supported, int8 is for CPUs. [default: auto]"),
    ] = None,
    json_: Json = False,
    safe_csv: Annotated[bool, _switch("--safe-csv", "Keep spreadsheets from computing texts such as =1+1.")] = False,
    backend: Annotated[
        Literal["torch", "onnx"] | None,
        _option("--backend", "onnx runs what `senthy export` wrote. [default: detected from the directory]"),
    ] = None,
    labels: Annotated[str | None, _option("--labels", "Choose among these labels only.", "A,B")] = None,
    prefix: Annotated[
        str | None, _option("--prefix", "Of the added columns. [default: none; senthy_ if the input has such names]")
    ] = None,
) -> None:
    """Label texts from the command line, a file, or standard input.

    Examples:
        senthy predict "not bad at all :)"
        senthy predict --input reviews.csv --output labelled.csv
    """
    config = call.config()
    from sentiment_hybrid.commands import predict as verb

    request = verb.Request(
        texts or [],
        config=config,
        model_dir=load_model_path,
        head=model,
        input_file=input_,
        output_file=output,
        as_json=json_,
        file_format=format_,
        text_column=text_column,
        table=table,
        precision=precision,
        device=call.runtime.device,
        offline=call.runtime.offline,
        encoder=call.runtime.encoder,
        backend=backend or "auto",
        labels=None if labels is None else labels.split(","),
        prefix=prefix,
        resume=call.runtime.resume,
        safe_csv=safe_csv,
    )
    verb.show(verb.run(request))


@command(app, runtime=("encoder",))
def export(
    call: Call,
    *,
    model: AnyModel = None,
    load_model_path: ModelPath = None,
    format_: Annotated[Literal["onnx", "pack"], _option("--format", "What to write.")] = "onnx",
    quantize: Annotated[Literal["int8"] | None, _option("--quantize", "Quantize the weights to int8.")] = None,
    output: Annotated[Path | None, _option("--output -o", "The new directory.", "DIR")] = None,
) -> None:
    """Export a model to ONNX with its tokenizer, and compare its results and speed with the original.

    With --format pack, export models that were trained together, in half precision, with one encoder.

    Examples:
        senthy export --model han --quantize int8
        senthy export --format pack --output models/pack
    """
    config = call.config()
    from sentiment_hybrid.commands import export as verb
    from sentiment_hybrid.commands import packing

    if format_ == "pack":
        if model or load_model_path or quantize or call.runtime.encoder:
            raise UsageError(
                "--format pack exports the models in joint.models; the only option for it is --output",
                hint="Leave out --model, --load-model-path, --quantize and --encoder.",
            )
        packing.show(packing.run(config, output=output, offline=call.runtime.offline))
        return

    result = verb.run(
        config,
        model,
        load_model_path=load_model_path,
        output=output,
        file_format=format_,
        quantize=quantize,
        offline=call.runtime.offline,
        encoder=call.runtime.encoder,
    )
    verb.show(result)


@command(app, "data", "each model", name="run-all", runtime=("resume", "encoder", "bundle_encoder"))
def run_all(
    call: Call,
    *,
    model: ModelList = None,
    mode: Annotated[Mode, _option("--mode", "What to do with each model, after preparing the data.")] = "train",
    seeds: Seeds = 1,
    params: Params = None,
    force: Annotated[bool, _switch("--force", "Repeat steps even if their inputs have not changed.")] = False,
    refresh: Refresh = False,
    dry_run: DryRun = False,
) -> None:
    """Prepare the data, then train, optimize or test several models, and compare them.

    Examples:
        senthy run-all --config quickstart
        senthy run-all --source reviews.csv --mode optimize --model han
    """
    models = list(dict.fromkeys(model or ("lstm", "han")))
    config = call.in_mode(mode).config(models, params=params)
    from sentiment_hybrid.commands import run_all as verb

    if dry_run:
        if mode == "test":
            raise UsageError("--dry-run is for training and search", hint="Leave it out, or change --mode.")
        _dry_run(config, models, mode, call.runtime, seeds=seeds)
        return
    result = verb.run(config, models, call.runtime, mode=mode, seeds=seeds, force=force, refresh=refresh)
    verb.show(result)
    if result.failures:
        raise typer.Exit(1)


def _dry_run(
    config: Config, models: Sequence[str], what: Literal["train", "optimize"], runtime: Runtime, **more: Any
) -> None:
    """Show what a command would do, and estimate what it would cost."""
    from sentiment_hybrid.commands import dry_run

    dry_run.show(dry_run.run(config, models, what, runtime, **more))


@command(app, runtime=("encoder",))
def bench(
    call: Call,
    *,
    model: ModelChoice = "lstm",
    seconds: Annotated[float, _option("--seconds", "Duration of each measurement.", min=0.05, max=3600.0)] = 3.0,
    json_: Json = False,
) -> None:
    """Measure the speed of this machine, and estimate the time of train and optimize.

    Examples:
        senthy bench --model han
        senthy bench --config quickstart --seconds 1 --json
    """
    config = call.config([model])
    from sentiment_hybrid.commands import bench as verb

    result = verb.run(config, model, call.runtime, seconds=seconds)
    console.as_json(result.as_dict()) if json_ else verb.show(result)


@command(app, "data")
def fetch(
    call: Call,
    *,
    what: Annotated[
        list[str] | None, _option("--what", "Only this; can be repeated. [default: all]", "encoder|data|nltk")
    ] = None,
) -> None:
    """Download encoder, data and NLTK data for later use offline. With --offline, list what is missing.

    Examples:
        senthy fetch --what encoder
        senthy fetch --offline
    """
    config = call.config()
    from sentiment_hybrid.commands import fetch as verb

    result = verb.run(config, what=what or (), offline=call.runtime.offline)
    verb.show(result)
    if result.missing:
        raise typer.Exit(1)


@command(app)
def info(call: Call, *, json_: Json = False) -> None:
    """Show versions, device, and locations of files.

    Examples:
        senthy info
        senthy info --json --device cpu
    """
    config = call.config()
    from sentiment_hybrid.commands import info as verb

    facts = verb.run(config, config_file=call.file, device=call.runtime.device)
    console.as_json(facts) if json_ else verb.show(facts)


@command(config_app, "data")
def show(call: Call) -> None:
    """Print the resolved configuration as YAML.

    Examples:
        senthy config show --config quickstart
        senthy config show --set train.epochs=3
    """
    from sentiment_hybrid.commands import config as verb

    console.raw(verb.show(call.config()))


@command(config_app)
def check(
    call: Call,
    *,
    file: Annotated[str | None, typer.Argument(metavar="FILE|NAME", help="What to check, if not --config.")] = None,
) -> None:
    """Check a configuration, and list every error.

    Examples:
        senthy config check senthy.yaml
        senthy config check --set lstm.train.epochs=3
    """
    from sentiment_hybrid.commands import config as verb

    console.say(verb.check(file or call.file, call.overrides, call.flags))


@command(config_app)
def init(
    call: Call,
    *,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The new file.")] = Path(LOCAL_CONFIG),
    from_: Annotated[
        str, _option("--from", "Which shipped config.", "NAME", autocompletion=_shipped_configs)
    ] = "default",
    force: Annotated[bool, _switch("--force", "Replace an existing file.")] = False,
) -> None:
    """Write a commented configuration to start from.

    Examples:
        senthy config init
        senthy config init my.yaml --from quickstart
    """
    from sentiment_hybrid.commands import config as verb

    console.say(f"wrote {verb.init(path, name=from_, force=force)}")


@command(config_app)
def schema(
    call: Call,
    *,
    json_: Annotated[bool, _switch("--json", "Print the JSON Schema, for editors.")] = False,
    markdown: Annotated[bool, _switch("--markdown", "Print the documentation page.")] = False,
) -> None:
    """List every setting: allowed values, default, meaning.

    Examples:
        senthy config schema
        senthy config schema --json > senthy.schema.json
    """
    from sentiment_hybrid.commands import config as verb

    if json_:
        console.as_json(verb.json_schema())
    elif markdown:
        console.raw(verb.markdown())
    else:
        verb.show_schema(verb.schema())


ModelId = Annotated[str, typer.Argument(metavar="ID", help="A model, as `senthy models list` names it.")]


@command(models_app, name="list")
def models_list(call: Call, *, json_: Json = False) -> None:
    """List trained models: data, figures, date, and which of them are published.

    Examples:
        senthy models list
        senthy models list --json
    """
    from sentiment_hybrid.commands import models as verb

    config = call.config()
    entries = verb.run(config)
    console.as_json([entry.to_dict() for entry in entries]) if json_ else verb.show(entries, config)


@command(models_app, name="publish")
def models_publish(call: Call, model: ModelId) -> None:
    """Publish a model; the beginning of its ID or its name suffices. The one published before is kept.

    Examples:
        senthy models publish han-20261129-0610
        senthy models publish my-best
    """
    from sentiment_hybrid.commands import models as verb

    console.say(f"published {verb.publish(call.config(), model).id}")


@command(models_app, name="remove")
def models_remove(call: Call, model: ModelId) -> None:
    """Remove a model that is not published.

    Examples:
        senthy models remove han-20261129-061020-a1b2c3
        senthy models remove joint-20261129-061020-a1b2c3-lstm
    """
    from sentiment_hybrid.commands import models as verb

    console.say(f"removed {verb.remove(call.config(), model).id}")


@command(cache_app, name="info")
def cache_info(
    call: Call,
    *,
    verify: Annotated[bool, _switch("--verify", "Check every stored state; exit code 1 if one is damaged.")] = False,
    json_: Json = False,
) -> None:
    """Show what is cached, its size and limit, and when it was last used.

    Examples:
        senthy cache info
        senthy cache info --verify
    """
    config = call.config()
    from sentiment_hybrid.commands import cache as verb

    with console.progress("checking", unit="shards") as bar:
        found = verb.info(config, verify=verify, progress=bar.advance)
    console.as_json(found.to_dict()) if json_ else verb.show(found)
    if verify and found.problems:
        raise typer.Exit(1)


@command(cache_app, name="clear")
def cache_clear(
    call: Call,
    *,
    states: Annotated[bool, _switch("--states", "Token states.")] = False,
    baselines: Annotated[bool, _switch("--baselines", "Fitted baselines.")] = False,
    finetune: Annotated[bool, _switch("--finetune", "Prepared texts of fine-tuning runs.")] = False,
    teachers: Annotated[bool, _switch("--teachers", "Probabilities computed by teachers.")] = False,
    leftovers: Annotated[bool, _switch("--leftovers", "Partial files, models and runs of killed processes.")] = False,
    all_: Annotated[bool, _switch("--all", "All of these.")] = False,
    older_than: Annotated[
        float | None, _option("--older-than", "Only what was last used before.", "DAYS", min=0.0)
    ] = None,
    yes: Annotated[bool, _switch("--yes -y", "Do not ask for confirmation.")] = False,
) -> None:
    """Remove what is cached. It is computed again when it is needed.

    Examples:
        senthy cache clear --states --older-than 30
        senthy cache clear --all --yes
    """
    config = call.config()
    from sentiment_hybrid.commands import cache as verb

    chosen = {"states": states, "baselines": baselines, "finetune": finetune, "teachers": teachers}
    chosen["leftovers"] = leftovers
    kinds = [kind for kind, wanted in chosen.items() if wanted or all_]
    cleared = verb.clear(config, kinds, older_than=older_than, confirm=lambda found: yes or _may_clear(found))
    verb.show_cleared(cleared)
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
    _collect_garbage_rarely()
    console.prepare_streams()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.name == "posix" and threading.current_thread() is threading.main_thread():
        # A job scheduler's SIGTERM and a closed terminal must save the state as Ctrl-C does.
        for number in stop_signals():
            signal.signal(number, _interrupt)
    try:
        code = app(arguments and list(arguments), prog_name="senthy", standalone_mode=False) or 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(bool(exit_.code))
    except BaseException as failure:  # noqa: BLE001 - the only place that reports one
        code = report(failure)
    if code == 0:
        distributed.leave()
    sys.exit(_flushed(code))


def _collect_garbage_rarely() -> None:
    """Collect garbage less often: importing torch creates millions of objects, none of them garbage.

    The first prediction takes a third less time.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 50)
    atexit.register(gc.freeze)  # nor is there any at exit


def _flushed(code: int) -> int:
    """The exit code after flushing stdout: a closed pipe or a full disk shows only now."""
    try:
        sys.stdout.flush()
    except OSError as failure:
        console.quiet_broken_pipe()
        failure.filename = "standard output"
        return code or report(failure)
    return code


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
