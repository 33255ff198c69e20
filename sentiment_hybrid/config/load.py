"""Defaults < YAML < parameters of a search < --set < options, validated once; all errors are reported at once."""

from __future__ import annotations

import copy
import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sentiment_hybrid import paths
from sentiment_hybrid.config.describe import field_at, section_at
from sentiment_hybrid.config.errors import REMOVED, explain
from sentiment_hybrid.config.schema import MODEL_NAMES, SHARED, Config, ConfigFile
from sentiment_hybrid.config.syntax import dump, parse, parse_with_lines
from sentiment_hybrid.errors import ConfigError

#: Where a setting was made, if not in a line of a file.
_SET = "--set"

_LARGEST_FILE = 1 << 20

#: Shipped configs that were renamed.
_RENAMED = {"seed": "predecessor"}


def load_config(
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
    option_names: Mapping[str, str] | None = None,
    params: str | Path | None = None,
    params_for: Sequence[str] = (),
) -> Config:
    """Read, merge and validate a configuration.

    Args:
        source: a YAML file, the name of a shipped config (``quickstart``), or None for the defaults.
        overrides: ``a.b=value`` strings, as ``--set`` takes them; the value is YAML.
        flags: dotted key -> value, from command-line options; None values are ignored.
        option_names: dotted key -> the option of a flag, for error messages.
        params: a YAML file merged over ``source``: the best parameters of a search.
        params_for: models of which ``params`` must contain at least one.

    Raises:
        ConfigError: a file cannot be read, or any setting is wrong; ``problems`` lists all of them.
    """
    document, lines = read(source) if source is not None else ({}, {})
    origins = {key: f"line {line}" for key, line in lines.items()}
    if params is not None:
        over, lines = _read_params(params, params_for)
        document = _merged(document, over)
        origins |= {key: f"{params}, line {line}" for key, line in lines.items()}
    problems = [problem for text in overrides if (problem := _override(document, text, origins))]
    for key, value in (flags or {}).items():
        if value is not None and not _assign(document, key, value):
            origins[key] = (option_names or {}).get(key, _SET)
    try:
        file = ConfigFile.model_validate(document)
    except ValidationError as error:
        problems += explain(error, document, origins)
    if problems:
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        in_file = source is not None and not all(_is_typed(problem) for problem in problems)
        raise ConfigError(
            f"{count} in {source}" if in_file else f"{count} in the settings",
            problems=tuple(problems),
            hint="`senthy config schema` lists every setting with its meaning and allowed values.",
        )
    return Config.model_construct(**{name: getattr(file, name) for name in Config.model_fields})


def resolve(source: str | Path) -> Path:
    """The file of a path or of a shipped config. Raises ConfigError if neither exists."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    shipped = paths.shipped_configs()
    if str(source) in shipped:
        return shipped[str(source)]
    if path.is_dir():
        raise ConfigError(f"{path} is a directory, not a configuration file")
    if new := _RENAMED.get(path.stem):
        raise ConfigError(f"the shipped config `{path.stem}` is now called `{new}`", hint=f"Use --config {new}.")
    near = difflib.get_close_matches(str(source), shipped, n=1)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    raise ConfigError(f"no configuration file {source}", hint=f"{hint}Shipped configs: {', '.join(shipped)}.")


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that loads to the same Config."""
    return dump(config.model_dump(mode="json"))


def read(source: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A configuration file as plain data, and dotted key -> line. Raises ConfigError."""
    path = resolve(source)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigError(
                f"{path} is larger than {_LARGEST_FILE >> 20} MB, so it is not a configuration",
                hint="`senthy config init` writes one to start from.",
            )
        # Windows editors may begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})", hint="Save it as UTF-8.") from error
    document, lines = parse_with_lines(text, name=str(path))
    if document is None:
        return {}, {}
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path} contains a {type(document).__name__}, not sections",
            hint="A configuration has lines such as `data:`; `senthy config init` writes one to start from.",
        )
    sections: dict[str, Any] = _sections(document, ())
    return _inherited(_without_removed(sections)), lines


def _without_removed(document: dict[str, Any]) -> dict[str, Any]:
    """The same without removed settings that have no effect: runs and copies of default.yaml may contain them."""
    for key, removed in REMOVED.items():
        section, _, name = key.partition(".")
        settings = document.get(section)
        if isinstance(settings, dict) and name in settings and settings[name] == removed.no_effect:
            del settings[name]
    return document


def _read_params(path: str | Path, models: Sequence[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """A part of a configuration. Raises ConfigError when it is for other models than those wanted."""
    place = Path(path).expanduser()
    wanted = models[0] if models else MODEL_NAMES[0]
    if not place.is_file():
        written = [paths.best_params(folder, wanted) for folder in (place.parent, Config().paths.results_dir)]
        there = next((str(one) for one in written if one.is_file()), None)
        hint = f"Use --params {shlex.quote(there)}" if there else f"Run `senthy optimize --model {wanted}` first."
        raise ConfigError(f"no file of parameters {path}", hint=hint)
    document, lines = read(place)
    found = [name for name in MODEL_NAMES if name in document]
    if models and not set(found) & set(models):
        what = f"parameters of {', '.join(found)}" if found else "parameters of no model"
        hint = f"Put them below the name of the model, as in {wanted}: {{train: {{learning_rate: 1e-3}}}}."
        raise ConfigError(
            f"{path} contains {what}, none of {', '.join(models)}",
            hint=f"Use --model {found[0]} --params {shlex.quote(str(path))}" if found else hint,
        )
    return document, lines


def _merged(below: Any, above: Any) -> Any:
    """Sections merged key by key; values of ``above`` win. A range is replaced, not merged."""
    if not isinstance(below, dict) or not isinstance(above, dict) or "type" in above:
        return copy.deepcopy(above)
    keys = [*below, *(key for key in above if key not in below)]
    return {key: _merged(below.get(key), above[key]) if key in above else copy.deepcopy(below[key]) for key in keys}


def _inherited(document: dict[str, Any]) -> dict[str, Any]:
    """The same with shared `train` and `hpo` settings copied into each model, whose own settings win."""
    for part, names in SHARED.items():
        shared = document.get(part)
        for name in names:
            if isinstance(shared, dict) and isinstance(own := document.setdefault(name, {}), dict):
                fitting = {key: _fitting(name, f"{part}.{key}", value) for key, value in shared.items()}
                own[part] = _merged(fitting, own.get(part, {}))
    return document


def _fitting(name: str, key: str, value: Any) -> Any:
    """The part of a shared setting that applies to a model: of a search space, its own hyperparameters."""
    if key != "hpo.search_space" or not isinstance(value, dict):
        return value
    known = Config().model(name).hpo.tunable()
    return {parameter: space for parameter, space in value.items() if parameter in known}


def _sections(value: Any, above: tuple[Any, ...]) -> Any:
    """A copy in which aliases are independent, and a section with nothing below it is an empty map."""
    if isinstance(value, dict):
        return {key: _sections(inner, (*above, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sections(inner, (*above, None)) for inner in value]
    return {} if value is None and above and section_at(above) is not None else value


def _override(document: dict[str, Any], text: str, origins: dict[str, str]) -> str:
    """Apply one --set; returns the problem, or an empty string."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not all(key.split(".")):
        return f"--set {text}: write it as section.key=value"
    try:
        settings = _spread(key, parse(value))
    except ConfigError as error:
        return f"--set {text}: {error.message}"
    problem = ""
    for place, one in settings.items():
        problem = _assign(document, place, one) or problem
        for known in [known for known in origins if f"{known}.".startswith(f"{place}.")]:
            del origins[known]
    origins |= dict.fromkeys([place for place in settings if place.startswith(key)] or settings, _SET)
    return f"--set {text}: {problem}" if problem else ""


def _spread(key: str, value: Any) -> dict[str, Any]:
    """A setting and, if models share it, the same setting of each of them."""
    part, *below = key.split(".")
    names = SHARED.get(part, ())
    if names and not below and isinstance(value, dict):
        return {place: one for name, inner in value.items() for place, one in _spread(f"{key}.{name}", inner).items()}
    if below[:1] == ["search_space"] and len(below) > 1:
        # Each model changes its own search space: their defaults differ.
        names = tuple(name for name in names if below[1] in Config().model(name).hpo.tunable())
        return {f"{name}.{key}": copy.deepcopy(value) for name in names} or {key: value}
    return {key: value} | {f"{name}.{key}": _fitting(name, key, copy.deepcopy(value)) for name in names}


def _default_map(place: Sequence[str]) -> dict[str, Any]:
    """The default of a map that is changed in part: changing one range keeps the others of the search space."""
    field = field_at(place)
    default = field.get_default() if field is not None and section_at(place) is None else None
    if not isinstance(default, Mapping):
        return {}
    return {name: one.model_dump() if isinstance(one, BaseModel) else one for name, one in default.items()}


def _is_typed(problem: str) -> bool:
    """Whether an error is in the command line rather than in a file."""
    return problem.startswith(f"{_SET} ") or re.match(r"\S+ \(--[a-z-]+\): ", problem) is not None


def _assign(document: dict[str, Any], dotted: str, value: Any) -> str:
    """Set a dotted key; returns the problem, or an empty string."""
    *parents, last = dotted.split(".")
    for depth, parent in enumerate(parents, start=1):
        child = document.setdefault(parent, _default_map(parents[:depth]))
        if not isinstance(child, dict):
            return f"`{parent}` is a value, not a section"
        document = child
    document[last] = value
    return ""
