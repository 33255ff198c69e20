"""Defaults < YAML < parameters of a search < --set < flags, validated once; all problems at once, in its own words."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sentiment_hybrid import paths
from sentiment_hybrid.config.describe import field_at, section_at
from sentiment_hybrid.config.problems import tell
from sentiment_hybrid.config.schema import MODEL_NAMES, Config
from sentiment_hybrid.config.syntax import dump, parse, parse_with_lines
from sentiment_hybrid.errors import ConfigError

#: Where a setting came from, if not from a line of a file.
_SET, _OPTION = "--set", "option"


def load_config(
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
    params: str | Path | None = None,
    params_for: Sequence[str] = (),
) -> Config:
    """Read, merge and validate a configuration.

    Args:
        source: a YAML file, the name of a shipped config (``quickstart``), or None for the defaults.
        overrides: ``a.b=value`` strings, as ``--set`` gives them; the value is YAML.
        flags: dotted key -> value, from command-line options; None values are left out.
        params: a part of a configuration that is laid over ``source``: the best parameters of a search.
        params_for: models of which ``params`` must hold at least one.

    Raises:
        ConfigError: a file cannot be read, or any setting is wrong; ``problems`` lists all of them.
    """
    document, lines = read(source) if source is not None else ({}, {})
    origins = {key: f"line {line}" for key, line in lines.items()}
    if params is not None:
        over, lines = _read_params(params, params_for)
        document = _laid_over(document, over)
        origins |= {key: f"{params}, line {line}" for key, line in lines.items()}
    problems = [problem for text in overrides if (problem := _override(document, text, origins))]
    for key, value in (flags or {}).items():
        if value is not None and not _assign(document, key, value):
            origins[key] = _OPTION
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        problems += tell(error, document, origins)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        by_file = source is not None and not all(_is_typed(problem) for problem in problems)
        raise ConfigError(
            f"{count} in {source}" if by_file else f"{count} in the settings",
            problems=tuple(problems),
            hint="`senthy config schema` lists every setting with its meaning and bounds.",
        )
    return config


def resolve(source: str | Path) -> Path:
    """The file behind a path or the name of a shipped config. Raises ConfigError when there is neither."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    names = shipped()
    if str(source) in names:
        return paths.shipped_configs() / f"{source}.yaml"
    if path.is_dir():
        raise ConfigError(f"{path} is a directory, not a configuration file")
    if path.stem == "seed":
        raise ConfigError("the shipped config `seed` is now called `predecessor`", hint="Use --config predecessor.")
    near = difflib.get_close_matches(str(source), names, n=1)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    raise ConfigError(f"no configuration file {source}", hint=f"{hint}Shipped configs: {', '.join(names)}.")


def shipped() -> list[str]:
    """Names of the shipped configs."""
    return sorted(path.stem for path in paths.shipped_configs().glob("*.yaml"))


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that loads to the same Config."""
    return dump(config.model_dump(mode="json"))


def read(source: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A configuration file as plain data, and dotted key -> line. Raises ConfigError."""
    path = resolve(source)
    try:
        # Windows editors like to begin a file with a byte order mark.
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
            f"{path} holds a {type(document).__name__}, not sections",
            hint="A configuration begins with lines such as `data:`; `senthy config init` writes one to start from.",
        )
    sections: dict[str, Any] = _sections(document, ())
    return sections, lines


def _read_params(path: str | Path, models: Sequence[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """A part of a configuration. Raises ConfigError when it is about other models than those wanted."""
    document, lines = read(path)
    held = [name for name in MODEL_NAMES if name in document]
    if models and not set(held) & set(models):
        what = f"parameters of {', '.join(held)}" if held else "parameters of no model"
        raise ConfigError(
            f"{path} holds {what}, and nothing for {', '.join(models)}",
            hint=f"Use --model {held[0]}." if held else "`senthy optimize` writes such a file for each model.",
        )
    return document, lines


def _laid_over(below: Any, above: Any) -> Any:
    """Sections merged key by key; where both have a value, that of ``above``."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _laid_over(below.get(key), value) for key, value in above.items()}}


def _sections(value: Any, above: tuple[Any, ...]) -> Any:
    """A copy in which aliases are shared no more, and a section with nothing below it is an empty one."""
    if isinstance(value, dict):
        return {key: _sections(inner, (*above, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sections(inner, (*above, None)) for inner in value]
    return {} if value is None and above and section_at(above) is not None else value


def _override(document: dict[str, Any], text: str, origins: dict[str, str]) -> str:
    """Apply one --set; returns what is wrong with it, or nothing."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not all(key.split(".")):
        return f"--set {text}: write it as section.key=value"
    try:
        problem = _assign(document, key, parse(value))
    except ConfigError as error:
        return f"--set {text}: {error.message}"
    for inside in [known for known in origins if known.startswith(f"{key}.")]:
        del origins[inside]
    origins[key] = _SET
    return f"--set {text}: {problem}" if problem else ""


def _default_map(place: Sequence[str]) -> dict[str, Any]:
    """What a change inside a map begins with: the ranges of a default search space stay where one is changed."""
    field = field_at(place)
    default = field.get_default() if field is not None and section_at(place) is None else None
    return copy.deepcopy(dict(default)) if isinstance(default, Mapping) else {}


def _is_typed(problem: str) -> bool:
    """Whether a problem is about what was typed on the command line, and not about a file."""
    return problem.startswith(f"{_SET} ") or any(f" ({origin}): " in problem for origin in (_SET, _OPTION))


def _assign(document: dict[str, Any], dotted: str, value: Any) -> str:
    """Put a value at a dotted key; returns what stands in the way, or nothing."""
    *parents, last = dotted.split(".")
    for depth, parent in enumerate(parents, start=1):
        child = document.setdefault(parent, _default_map(parents[:depth]))
        if not isinstance(child, dict):
            return f"`{parent}` is a value, not a section"
        document = child
    document[last] = value
    return ""
