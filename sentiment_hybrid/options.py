"""What makes a function a command: options that are settings, options of every command, and the layout of its help."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer
from typer.core import TyperCommand, TyperGroup

from sentiment_hybrid import console, distributed, paths
from sentiment_hybrid.errors import ConfigError, UsageError
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.runtime import Runtime

if TYPE_CHECKING:
    from sentiment_hybrid.config.describe import Setting
    from sentiment_hybrid.config.schema import Config

MODELS = tuple(HEADS)
#: The default of --config, if it exists.
LOCAL_CONFIG = "senthy.yaml"
#: Keeps libraries off the network; set before any of them is imported.
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
#: Commands that support several processes, started by torchrun or accelerate launch; the others refuse to run in them.
_DISTRIBUTED = {"train", "optimize", "pretrain"}


# --- help ------------------------------------------------------------------------------------------------------------


#: How typer writes the values of an option: <auto|cpu>.
_PLACEHOLDER = re.compile(r"<(.+)>$")


class _Help:
    """Help as plain text that fits the terminal: a section per panel, settings with their defaults, examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, and the commands of a group."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in cast(Any, self).get_params(ctx):
            if record := param.get_help_record(ctx):
                is_argument = param.param_type_name == "argument"
                # In older versions of typer, the help option has no panel, and brackets are escaped for rich.
                panel = getattr(param, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
                name = param.metavar if is_argument else _PLACEHOLDER.sub(r"\1", record[0])
                row = _of_setting(param) if _is_setting(param.help) else (name, record[1].replace("\\[", "["))
                sections.setdefault(panel, []).append(row)
        for command in getattr(self, "commands", {}).values():
            sections.setdefault("Commands", []).append((command.name, command.get_short_help_str(limit=1000)))
        for panel, rows in sections.items():
            with formatter.section(panel):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples; they are not wrapped, so that they can be copied."""
        with formatter.section("Examples"):
            formatter.write("".join(f"  {example}\n" for example in cast(Any, self).epilog.splitlines()))


def _is_setting(words: str | None) -> bool:
    """Whether the help of an option is the key of a setting, which explains it."""
    return re.fullmatch(r"[a-z_]+\.[a-z_]+", words or "") is not None


def _of_setting(param: Any) -> tuple[str, str]:
    """Name, placeholder and meaning of an option whose value is a setting."""
    setting = _settings()[param.help]
    default = "" if setting.default == "null" else f"; default: {setting.default}"
    placeholder = param.metavar or setting.placeholder
    return f"{', '.join(param.opts)} {placeholder}", f"{setting.meaning} [{setting.key}{default}]"


@functools.cache
def _settings() -> dict[str, Setting]:
    from sentiment_hybrid.config.describe import settings

    return {setting.key: setting for setting in settings()}


class _Group(_Help, TyperGroup):
    """A group of commands; what is raised within goes to `main`, with that of help and of parsing."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, OSError) as failure:
            raise Failed(failure) from failure


class Failed(Exception):  # noqa: N818 - it only carries one
    """Carries an exception of a command past typer, which would end the process itself, without a message."""


class _Command(_Help, TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual. Raises UsageError for a text that looks like an option."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            texts = [text for text in given if re.match(r"-.*\s|-[^a-zA-Z-]", text)]
            if type(error).__name__ != "NoSuchOption" or not texts or self.name not in ("predict", "explain"):
                raise
            raise UsageError(
                f"{texts[0]!r} begins with -, as an option does",
                hint=f"Put -- before the texts: senthy {self.name} -- {shlex.quote(texts[0])}",
            ) from error


def group(about: str, *examples: str, **more: Any) -> typer.Typer:
    """A group of commands with such help."""
    return typer.Typer(
        cls=_Group,
        help=about,
        epilog="\n".join(examples),
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **more,
    )


# --- options that are settings ---------------------------------------------------------------------------------------


def _keys(section: str, names: str = "", **options: str) -> dict[str, str]:
    """Setting -> its options, separated by spaces: ``--name``, or those in ``options``.

    Type, placeholder, help and default are the setting's. A setting of `train` or `hpo` is set for the models in use.
    """
    named = {name: f"--{name.replace('_', '-')}" for name in names.split()}
    return {f"{section}.{name}": option for name, option in (named | options).items()}


_FIGURES = _keys("project", "figure_format")
#: How text files are written, if that is detected wrongly.
_FILES = _keys("data", "delimiter encoding quoting")
#: How to read a labelled file; errors about one refer to these.
_COLUMNS = _keys("data", "text_column label_column label_map") | _FILES
_TRAIN = _keys("train", epochs="--epochs --final-epochs") | _keys("distill", "teacher")
_HPO = _keys("hpo", "n_trials", epochs="--hpo-epochs")
_HPO |= _keys("hpo", "timeout storage study_name workers sampler pruner")

_PANELS = {
    "data": _keys("data", "source train_source valid_source test_source") | _COLUMNS | _keys("data", "normalizer"),
    "corrections": _keys("data", "corrections"),
    "columns": _COLUMNS,
    "files": _FILES,
    "training": _TRAIN | _keys("train", "sample_size") | _FIGURES,
    "search": _HPO | _keys("hpo", "sample_size") | _keys("train", epochs="--epochs --final-epochs") | _FIGURES,
    "pretraining": _keys("pretrain", source="--data", base="--base --from", output_dir="--output")
    | _keys("data", "text_column")
    | _FILES
    | _keys("pretrain", "epochs sample_size")
    | _FIGURES,
    "fine-tuning": _keys("finetune", epochs="--finetune-epochs")
    | _keys("finetune", "sample_size trainable_layers layer_decay")
    | _FIGURES,
    "testing": _keys("test", "sample_size slice_by") | _FIGURES,
    "serving": _keys("serve", "host port token_file"),
    "each model": _TRAIN | _HPO | _FIGURES,
}


@dataclass(frozen=True)
class Call:
    """The values of the options that every command has, and of those that are settings, by key.

    ``file`` is the configuration in use: --config, else senthy.yaml in the working directory (``local``), else none.
    """

    file: str | None
    local: bool
    overrides: tuple[str, ...]
    flags: Mapping[str, Any]
    option_names: Mapping[str, str]
    runtime: Runtime

    def config(self, models: Sequence[str] = (), *, params: Path | None = None) -> Config:
        """The Config of this call; settings of `train` and `hpo`, and ``params``, go to each of ``models``."""
        from sentiment_hybrid.config.load import load_config
        from sentiment_hybrid.config.schema import SHARED

        flags: dict[str, Any] = {}
        names: dict[str, str] = {}
        for key, value in self.flags.items():
            own = [f"{model}.{key}" for model in models] if key.partition(".")[0] in SHARED else [key]
            flags |= dict.fromkeys(own, value)
            names |= dict.fromkeys(own, self.option_names[key])
        if self.local:
            console.note(f"using {LOCAL_CONFIG} in this directory (--config default ignores it)")
        return load_config(self.file, self.overrides, flags=flags, option_names=names, params=params, params_for=models)

    def having(self, key: str, option: str, value: Any) -> Call:
        """This call with one more setting, unless its value is None."""
        if value is None:
            return self
        names = {**self.option_names, key: option}
        return replace(self, flags={**self.flags, key: value}, option_names=names)


def _label_map(items: Sequence[str]) -> dict[str, str]:
    """``0=negative`` items, or one YAML map, as an ordered map. Raises ConfigError."""
    from sentiment_hybrid.config.syntax import parse

    result: dict[str, str] = {}
    for item in items:
        value, equals, label = item.rpartition("=")
        if equals and not item.lstrip().startswith("{"):
            result[value.strip()] = label.strip()
        elif isinstance(document := parse(item), dict):
            result |= document
        else:
            raise ConfigError(
                f"--label-map {item} is neither VALUE=LABEL nor a map",
                hint="Write VALUE=LABEL, or a map such as {0: negative, 4: positive}.",
            )
    return result


# --- other options ---------------------------------------------------------------------------------------------------


def option(names: str, words: str, metavar: str | None = None, *, default: Any = None, **more: Any) -> Any:
    """An option, as the default of a parameter; ``names`` are separated by spaces."""
    return typer.Option(default, *names.split(), help=words, metavar=metavar, **more)


def switch(names: str, words: str, **more: Any) -> Any:
    """An option without a value."""
    # Some versions of typer would show the type of a switch where a value's placeholder belongs.
    return option(names, words, metavar="", **{"default": False, **more}, show_default=False)


def choice(name: str, words: str, names: Sequence[str], **more: Any) -> Any:
    """An option whose values are among some names; unlike those of typer, it can be repeated."""

    def checked(value: Any) -> Any:
        for given in [value] if isinstance(value, str) else value or []:
            if given not in names:
                near = difflib.get_close_matches(given, names, n=1)
                mean = f" Did you mean {near[0]}?" if near else ""
                raise typer.BadParameter(f"{given!r} is not one of {', '.join(names)}.{mean}")
        return value

    def completed(incomplete: str) -> list[str]:
        return [one for one in names if one.startswith(incomplete)]

    return option(name, words, "|".join(names), callback=checked, autocompletion=completed, **more)


def model_option(words: str, names: Sequence[str] = MODELS, **more: Any) -> Any:
    """The option --model."""
    return choice("--model -m", words, names, **more)


_ENCODER = option("--encoder", "Local directory of the encoder that the model uses.", "DIR")
_BUNDLE = switch("--bundle-encoder", "Store a frozen hub encoder in the model directory, too.")
#: Parameter -> type and option of what goes into the Runtime.
_RUNTIME: dict[str, tuple[Any, Any]] = {
    "resume": (bool, switch("--resume", "Continue the newest unfinished run with the same settings.")),
    "name": (str, option("--name", "Name of the trained model in `senthy models`; it is kept.", "NAME", default="")),
    "encoder": (Path | None, _ENCODER),
    "bundle_encoder": (bool, _BUNDLE),
}

_CONFIG_HELP = f"YAML file, or a shipped config such as quickstart. [default: {LOCAL_CONFIG}, if there is one]"
_DEVICE = Literal["auto", "cpu", "cuda", "mps"]
#: The same for the options of every command.
_COMMON: dict[str, tuple[Any, Any]] = {
    "config": (str | None, option("--config -c", _CONFIG_HELP, "FILE|NAME", autocompletion=paths.shipped_configs)),
    "set_": (list[str] | None, option("--set", "Change any setting; can be repeated.", "KEY=VALUE")),
    "device": (_DEVICE, option("--device", "Where to compute.", default="auto")),
    "offline": (bool, switch("--offline", "Do not use the network.")),
    "verbose": (int, switch("--verbose -v", "More messages; -vv for all.", default=0, count=True)),
    "quiet": (bool, switch("--quiet -q", "Only warnings and errors.")),
}
_COMMON_PANEL = "Common options"
for _, _common in _COMMON.values():
    _common.rich_help_panel = _COMMON_PANEL


def command(
    app: typer.Typer, *panels: str, name: str | None = None, runtime: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command; its docstring is the help, and its first argument a Call.

    Args:
        panels: names in ``_PANELS``: options that are settings.
        runtime: names in ``_RUNTIME``: options that go into the Runtime.
    """
    titled = [(f"Settings: {panel}", _PANELS[panel]) for panel in panels]
    titled.append((_COMMON_PANEL, _keys("project", "seed")))
    option_names = {key: options.split()[0] for _, keys in titled for key, options in keys.items()}
    settings = {key.replace(".", "_"): key for key in option_names}
    added = [_parameter(name, *_RUNTIME[name]) for name in runtime]
    added += [_of_key(key, options, panel) for panel, keys in titled for key, options in keys.items()]
    added += [_parameter(name, *option) for name, option in _COMMON.items()]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            if verb.__name__ not in _DISTRIBUTED:
                distributed.refuse(verb.__name__.replace("_", "-"))
            flags = {key: given.pop(name) for name, key in settings.items()}
            common = {name: given.pop(name) for name in (*_COMMON, *runtime)}
            verb(_call(flags, option_names, **common), **given)

        parameters = [*list(inspect.signature(verb, eval_str=True).parameters.values())[1:], *added]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        about, _, examples = inspect.getdoc(verb).partition("\n\nExamples:\n")  # type: ignore[union-attr]
        app.command(name or verb.__name__, cls=_Command, help=about, epilog=inspect.cleandoc(examples))(run)
        return run

    return decorate


def _parameter(name: str, type_: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=type_)


def _of_key(key: str, options: str, panel: str) -> inspect.Parameter:
    """The parameter of a setting; the configuration converts and checks its value."""
    repeated = key == "data.label_map"
    made = option(options, key, "VALUE=LABEL" if repeated else None, rich_help_panel=panel)
    return _parameter(key.replace(".", "_"), list[str] | None if repeated else str | None, made)


def _call(
    flags: Mapping[str, Any],
    option_names: Mapping[str, str],
    *,
    config: str | None,
    set_: list[str] | None,
    verbose: int,
    quiet: bool,
    **runtime: Any,
) -> Call:
    """The Call of these options; applies what must be set before anything is imported."""
    if verbose and quiet:
        raise UsageError("-v and -q cannot be combined")
    console.set_verbosity(-1 if quiet else verbose)
    if runtime["offline"]:
        os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    set_flags = {key: value for key, value in flags.items() if value not in (None, [])}
    if label_map := set_flags.get("data.label_map"):
        set_flags["data.label_map"] = _label_map(label_map)
    local = not config and Path(LOCAL_CONFIG).is_file()
    file = LOCAL_CONFIG if local else config or None
    return Call(file, local, tuple(set_ or ()), set_flags, option_names, Runtime(**runtime))
