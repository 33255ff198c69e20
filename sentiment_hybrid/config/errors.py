"""Validation errors in terms of the YAML file: one line per setting, with its allowed values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from sentiment_hybrid.config.describe import allowed, choices, field_at, section_at, settings
from sentiment_hybrid.config.schema import SHARED
from sentiment_hybrid.redaction import redact


class Removed(NamedTuple):
    """A setting that no longer exists; older versions wrote it into files with the value that has no effect."""

    no_effect: Any
    instead: str


REMOVED = {
    "joint.further_neutral": Removed([], "prepare data with a label neutral, which joint.further_label_map may map to"),
    "joint.further_balanced": Removed(
        False, "use joint.train.class_weights, or a file with equally many rows of each label"
    ),
    "joint.negations": Removed(
        0.0, "write such texts with recipes/mini/negations.py and add them with joint.further_source"
    ),
    "joint.unknowable": Removed(
        0.0, "write such texts with recipes/mini/unknowable.py and add them with joint.further_source"
    ),
}

_RANGE_KEYS = ["type", "low", "high", "log", "step", "choices"]

_Place = tuple[str, ...]


def explain(error: ValidationError, document: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """One line per wrong setting.

    Args:
        origins: dotted key -> where it was set (``line 12``, ``--set``).
    """
    found: dict[_Place, list[Any]] = {}
    for item in error.errors():
        place = _where_written(_place(item, document), document, origins)
        found.setdefault(place, []).append(item)
    lines = []
    for place, items in found.items():
        if not _explained_deeper(place, items, found):
            origin = _origin(place, origins)
            lines.append(f"{'.'.join(place)}{f' ({origin})' if origin else ''}: {_message(place, items)}")
    return [line.removeprefix(": ") for line in lines]


def _place(item: Any, document: Any) -> _Place:
    """Where an error is in the file; pydantic also names the tried type of a union, which is not in the file."""
    kept: list[str] = []
    *_, end = range(len(item["loc"])) or [0]
    for number, part in enumerate(item["loc"]):
        if _contains(document, part):
            document = document[part]
        elif number != end or item["type"] != "missing":
            continue
        kept.append(str(part))
    return tuple(kept)


def _contains(document: Any, part: Any) -> bool:
    if isinstance(document, Mapping):
        return part in document
    return isinstance(document, list) and isinstance(part, int) and part < len(document)


def _where_written(place: _Place, document: Mapping[str, Any], origins: Mapping[str, str]) -> _Place:
    """An inherited setting of a model is reported where it was written: in the shared section."""
    section, *rest = place or ("",)
    inherits = bool(rest) and rest[0] in document and section in SHARED.get(rest[0], ())
    same = inherits and _value(document, rest) == _value(document, place)
    return tuple(rest) if same and _depth(place, origins) <= _depth(rest, origins) else place


def _value(document: Any, place: Sequence[str]) -> Any:
    for part in place:
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def _depth(place: Sequence[str], origins: Mapping[str, str]) -> int:
    """Length of the longest part of a place that was set somewhere."""
    return next((length for length in range(len(place), 0, -1) if ".".join(place[:length]) in origins), 0)


def _explained_deeper(place: _Place, items: Sequence[Any], found: Mapping[_Place, Any]) -> bool:
    """Whether the errors only concern the other types of a union."""
    if any(item["type"] in {"value_error", "extra_forbidden"} for item in items):
        return False
    return any(other[: len(place)] == place and len(other) > len(place) for other in found)


def _origin(place: _Place, origins: Mapping[str, str]) -> str:
    dotted = ".".join(place)
    if dotted not in origins:
        # A map created by --set has no origin of its own, only its entries have.
        inside = [origin for key, origin in origins.items() if key.startswith(f"{dotted}.")]
        if inside:
            return inside[0]
    return origins.get(".".join(place[: _depth(place, origins)]), "")


def _message(place: _Place, items: Sequence[Any]) -> str:
    by_type = {item["type"]: item for item in items}
    value = items[0]["input"]
    if by_type.keys() & {"extra_forbidden", "invalid_key"}:
        removed = REMOVED.get(".".join(place))
        no_such = f"no such setting{'' if any(place) else ': a key without a name'}"
        return f"was removed; {removed.instead}" if removed else f"{no_such}; {_near_key(place)}"
    if "value_error" in by_type:
        return "; ".join(dict.fromkeys(str(item["ctx"]["error"]) for item in items if item["type"] == "value_error"))
    if "missing" in by_type:
        return "is missing"
    section = section_at(place)
    if section is not None:
        below = ", ".join(section.model_fields)
        return f"is a section, not {_shown(value)}; its settings go below it, indented: {below}"
    field = field_at(place)
    if field is not None:
        return f"{_shown(value)} is not allowed; it should be {allowed(field)}{_near_choice(field.annotation, value)}"
    return _inside_value(items[0])


def _inside_value(item: Any) -> str:
    """An error inside a map or list, where there is no setting with a description."""
    context, value = item.get("ctx", {}), item["input"]
    if item["type"] == "union_tag_not_found":
        return "`type` is missing; it should be float, int or categorical"
    if item["type"] == "union_tag_invalid":
        types = str(context["expected_tags"]).replace("'", "").split(", ")
        near = difflib.get_close_matches(str(context["tag"]), types, n=1)
        mean = f"; did you mean `{near[0]}`?" if near else ""
        return f"type {context['tag']} does not exist; it should be {', '.join(types[:-1])} or {types[-1]}{mean}"
    if item["type"] in {"model_type", "model_attributes_type"}:
        return f"{_shown(value)} is not a range; write it as {{type: float, low: 0.1, high: 0.5}}"
    if item["type"] == "too_short":
        return f"is too short: it needs at least {context['min_length']}"
    message = (
        item["msg"]
        .removeprefix("Input should be ")
        .replace("a valid boolean, unable to interpret input", "true or false")
        .replace("valid string", "text")
        .replace("valid integer", "whole number")
    )
    return f"{_shown(value)} is not allowed; it should be {message.replace('valid ', '')}"


def _near_choice(annotation: Any, value: Any) -> str:
    near = difflib.get_close_matches(str(value), choices(annotation), n=1)
    if near and not isinstance(value, Mapping | list):
        return f"; did you mean `{near[0]}`?"
    text_fits = str in {annotation, *getattr(annotation, "__args__", ())}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return " (put it in quotes)" if text_fits and is_number else ""


def _near_key(place: _Place) -> str:
    """The probable meaning of an unknown key: a similar name, or the same name elsewhere."""
    *above, name = place or ("",)  # an unknown key at the top that is no text has no place
    section = section_at(above)
    here = list(section.model_fields) if section is not None else _RANGE_KEYS
    if name in here:
        return "this type of range does not have it"
    near = difflib.get_close_matches(name, here, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    # A setting of this name in another place: first below the same model, then anywhere.
    elsewhere = [setting.key for setting in settings() if setting.key.rpartition(".")[2] == name]
    elsewhere.sort(key=lambda key: (key.split(".")[0] != place[0], key.split(".")[-2:-1] != list(place[-2:-1])))
    return f"did you mean `{elsewhere[0]}`?" if elsewhere else f"known here: {', '.join(here)}"


def _shown(value: Any) -> str:
    """A value as in the file, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping | BaseModel):
        return "a map"
    if isinstance(value, list | tuple):
        return "a list"
    text = redact(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
