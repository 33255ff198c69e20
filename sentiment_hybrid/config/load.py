"""Defaults < YAML < --set < flags, validated once; every problem is told at once in the words of the YAML file."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML without its traps: a key given twice is an error, and 2e-5 is a number."""


def _no_repeated_keys(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
        if not isinstance(key, str | int | float | bool) and key is not None:
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_repeated_keys)


def load_config(
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Read, merge and validate a configuration.

    Args:
        source: a YAML file, the name of a shipped config (``quickstart``), or None for the defaults.
        overrides: ``a.b=value`` strings, as ``--set`` gives them; the value is YAML.
        flags: dotted key -> value, from command-line options; None values are left out.

    Raises:
        ConfigError: the file cannot be read, or any setting is wrong; ``problems`` lists all of them.
    """
    document, lines = _read(source) if source is not None else ({}, {})
    problems: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            problems.append(f"--set {text}: write it as section.key=value")
            continue
        try:
            _assign(document, key.strip(), yaml.load(value, Loader=_Loader) if value else None)
        except (ValueError, yaml.YAMLError) as error:
            problems.append(f"--set {text}: {error}")
    for key, flag in (flags or {}).items():
        if flag is not None:
            _assign(document, key, flag)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        problems += [_tell(item, lines) for item in error.errors()]
    if problems:
        where = f" in {source}" if source is not None else ""
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(
            f"{count}{where}",
            problems=tuple(problems),
            hint="`senthy config schema` lists every setting with its meaning and bounds.",
        )
    return config


def resolve(source: str | Path) -> Path:
    """The file behind a path or the name of a shipped config. Raises ConfigError when there is neither."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{path} is a directory, not a configuration file")
    names = shipped()
    shipped_file = paths.shipped_configs() / f"{source}.yaml"
    if str(source) in names:
        return shipped_file
    near = difflib.get_close_matches(str(source), names, n=1)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    raise ConfigError(f"no configuration file {source}", hint=f"{hint}Shipped configs: {', '.join(names)}.")


def shipped() -> list[str]:
    """Names of the shipped configs."""
    return sorted(path.stem for path in paths.shipped_configs().glob("*.yaml"))


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that loads to the same Config."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return text


def _read(source: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    path = resolve(source)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        document = yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {getattr(error, 'problem', None) or error}") from error
    if document is None:
        return {}, {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must hold sections such as `data:` and `encoder:`, not a {type(document).__name__}")
    lines: dict[str, int] = {}
    _note_lines(node, "", lines)
    return document, lines


def _note_lines(node: yaml.Node | None, prefix: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            dotted = f"{prefix}{key.value}"
            lines[dotted] = key.start_mark.line + 1
            _note_lines(value, f"{dotted}.", lines)


def _assign(document: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        child = document.setdefault(parent, {})
        if child is None:
            child = document[parent] = {}
        if not isinstance(child, dict):
            raise ValueError(f"{parent} is a value, not a section")
        document = child
    document[last] = value


def _tell(item: Any, lines: Mapping[str, int]) -> str:
    location = _without_union_tags(item["loc"])
    dotted = ".".join(str(part) for part in location)
    line = lines.get(dotted)
    at = f" (line {line})" if line else ""
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        parent = _section_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), list(parent.model_fields) if parent else [], n=1)
        mean = f"; did you mean `{near[0]}`?" if near else ""
        known = f"; known here: {', '.join(parent.model_fields)}" if parent and not near else ""
        return f"{dotted}{at}: no such setting{mean}{known}"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        return f"{dotted}{at}: {message}" if dotted else message
    if kind == "missing":
        return f"{dotted}{at}: is missing"
    if kind == "literal_error" and isinstance(value, str):
        near = difflib.get_close_matches(value, message.replace("'", "").replace(" or ", ", ").split(", "), n=1)
        message += f"; did you mean `{near[0]}`?" if near else ""
    return f"{dotted}{at}: {value!r} is not allowed; it should be {message}"


def _without_union_tags(location: tuple[Any, ...]) -> list[Any]:
    """Pydantic adds the tried type to the location of a union's errors; the YAML file knows no such key."""
    kept: list[Any] = []
    model: type[BaseModel] | None = Config
    for part in location:
        if model is not None and part not in model.model_fields and kept and _looks_like_tag(str(part)):
            continue
        kept.append(part)
        model = _section_at(kept)
    return kept


def _looks_like_tag(part: str) -> bool:
    return part in {"int", "float", "str", "bool", "float_", "categorical"} or "[" in part


def _section_at(location: Sequence[Any]) -> type[BaseModel] | None:
    """The section class at a dotted place, or None where there is a plain value."""
    model: type[BaseModel] | None = Config
    for part in location:
        if model is None or part not in model.model_fields:
            return None
        model = _as_section(model.model_fields[part].annotation)
    return model


def _as_section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            if isinstance(argument, type) and issubclass(argument, BaseModel):
                return argument
    return None
