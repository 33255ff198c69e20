"""Describes settings: allowed values in words, for errors and documentation, and as JSON Schema for editors."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sentiment_hybrid.config.schema import MODEL_NAMES, SHARED, Config, ConfigFile
from sentiment_hybrid.config.sections import plain_types
from sentiment_hybrid.config.syntax import dump

_SIMPLE = {
    str: "text",
    bool: "true or false",
    Path: "a path",
    type(None): "null",
    int: "a whole number",
    float: "a number",
}
_PLACEHOLDERS = {str: "TEXT", Path: "PATH", int: "INTEGER", float: "NUMBER"}

_PAGE = """# Configuration settings

<!-- Written by `senthy config schema --markdown`; a test fails when it is out of date. -->

Every setting with its default. [Data and configuration](data.md#the-configuration-file) explains the file.

`train` and `hpo` apply to every model. What differs for one model goes into its own section: `lstm.train.epochs` or
`han.hpo.n_trials`. `joint` has a section `train`, too. Ranges of a search space are merged in the same way, and each
model uses those of the hyperparameters that it has.
"""


@dataclass(frozen=True)
class Setting:
    """A setting as `senthy config schema` lists it."""

    key: str
    allowed: str
    default: str
    meaning: str
    placeholder: str

    @property
    def shared_key(self) -> str:
        """The shared setting of which this is one model's own; empty if it is not."""
        section, _, shared = self.key.partition(".")
        return shared if section in SHARED.get(shared.partition(".")[0], ()) else ""


def settings(section: type[BaseModel] = ConfigFile, prefix: str = "") -> Iterator[Setting]:
    """Every setting with its dotted key, in the order of the schema."""
    defaults = section().model_dump(mode="json")
    for name in section.model_fields if prefix else _sections():
        field = section.model_fields[name]
        inner = section_of(field.annotation)
        if inner is not None:
            yield from settings(inner, f"{prefix}{name}.")
        else:
            key, value = f"{prefix}{name}", _inline(defaults[name])
            yield Setting(key, allowed(field), value, field.description or "", _placeholder(field.annotation))


def _sections() -> list[str]:
    """The sections of a file, with shared sections before the models."""
    names = list(Config.model_fields)
    first = names.index(MODEL_NAMES[0])
    return [*names[:first], *SHARED, *names[first:]]


def listed() -> list[Setting]:
    """Every setting once: a model's copy of a shared setting only if its default differs."""
    default = {setting.key: setting.default for setting in settings()}
    return [one for one in settings() if not one.shared_key or one.default != default[one.shared_key]]


def markdown() -> str:
    """The documentation of every setting: a table for each section."""
    page, every = _PAGE, listed()
    for name in _sections():
        meaning = inspect.getdoc(ConfigFile.model_fields[name].annotation)
        page += f"\n## {name}\n\n{meaning}\n\n| setting | allowed | default | meaning |\n|---|---|---|---|\n"
        for one in (one for one in every if one.key.startswith(f"{name}.")):
            page += f"| `{one.key}` | {one.allowed} | `{one.default}` | {one.meaning} |\n"
    return page


def _inline(value: Any) -> str:
    if value and isinstance(value, dict | list):
        return ", ".join(value)
    return dump(value).removesuffix("\n").removesuffix("...").strip()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ConfigFile.model_json_schema(),
        "title": "senthy configuration",
    }


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class behind an annotation; None for a plain value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def field_at(location: Sequence[Any]) -> FieldInfo | None:
    """The field at a dotted place of the configuration; None inside a value, or if there is none."""
    section: type[BaseModel] | None = ConfigFile
    field: FieldInfo | None = None
    for part in location:
        field = section.model_fields.get(str(part)) if section is not None else None
        if field is None:
            return None
        section = section_of(field.annotation)
    return field


def section_at(location: Sequence[Any]) -> type[BaseModel] | None:
    """The section class at a dotted place; None for a value, or for nothing."""
    if not location:
        return ConfigFile
    field = field_at(location)
    return section_of(field.annotation) if field is not None else None


def allowed(field: FieldInfo) -> str:
    """The allowed values of a setting: `a whole number from 1 to 4,096, or null`."""
    return _words(field.annotation, field.metadata)


def choices(annotation: Any) -> list[str]:
    """The literal values in an annotation, at any depth."""
    if typing.get_origin(annotation) is Literal:
        return [str(value) for value in typing.get_args(annotation)]
    return [word for inner in typing.get_args(annotation) for word in choices(inner)]


def _placeholder(annotation: Any) -> str:
    types = plain_types(annotation)
    names = [name for kind, name in _PLACEHOLDERS.items() if kind in types]
    return "|".join([*names, *choices(annotation)])


def _words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _words(inside[0], [*inside[1:], *metadata])
    if origin is Literal:
        return _either([str(value) for value in inside])
    if origin in (typing.Union, types.UnionType):
        if all(section_of(one) is not None for one in inside):
            return f"a range ({_either([_example(one) for one in inside])})"
        # `null` reads best at the end.
        ordered = sorted(inside, key=lambda one: one is type(None))
        return _either([_words(one, metadata) for one in ordered])
    if origin is dict:
        return f"a map of {_words(inside[0])} to {_words(inside[1])}"
    if origin is tuple:
        return f"a list of {_words(inside[0])}"
    if annotation is str and any(getattr(item, "max_length", None) == 1 for item in metadata):
        return "one character"
    name = _SIMPLE.get(annotation, str(annotation))
    return f"{name}{_bounds(metadata)}" if annotation in (int, float) else name


def _example(space: type[BaseModel]) -> str:
    kind = choices(space.model_fields["type"].annotation)[0]
    needed = [name for name, field in space.model_fields.items() if name != "type" and field.is_required()]
    return "{" + ", ".join([f"type: {kind}", *needed]) + "}"


def _either(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    comma = "," if len(words) > 2 or " " in words[0] else ""
    return f"{', '.join(words[:-1])}{comma} or {words[-1]}"


def _bounds(metadata: Sequence[Any]) -> str:
    found: dict[str, float] = {}
    for item in metadata:
        for inner in getattr(item, "metadata", [item]):
            found |= {name: getattr(inner, name) for name in ("ge", "gt", "le", "lt") if hasattr(inner, name)}
    if {"ge", "le"} <= found.keys():
        return f" from {_figure(found['ge'])} to {_figure(found['le'])}"
    named = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
    parts = [f"{named[name]} {_figure(found[name])}" for name in named if name in found]
    return f" {' and '.join(parts)}" if parts else ""


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
