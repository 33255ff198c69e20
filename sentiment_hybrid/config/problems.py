"""Pydantic's errors re-told in the words of the YAML file: one line per setting, with what it may be."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from sentiment_hybrid.config.describe import allowed, choices, field_at, section_at, settings

#: Settings of earlier versions: what replaces each.
RETIRED = {
    "joint.further_neutral": "prepare the data with a label neutral, which joint.further_label_map may name",
    "joint.further_balanced": "use joint.train.class_weights, or a file that has as many rows of each label",
    "joint.negations": "put made-up texts into joint.further_source (recipes/mini/negations.py writes such a file)",
    "joint.unknowable": "put such texts, labelled neutral, into joint.further_source (recipes/mini/unknowable.py)",
}


def tell(error: ValidationError, document: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """One line per wrong setting.

    Args:
        error: what pydantic found.
        document: what was validated.
        origins: dotted key -> where it was set (``line 12``, ``--set``).
    """
    found: dict[tuple[str, ...], list[Any]] = {}
    for item in error.errors():
        found.setdefault(_place(item, document), []).append(item)
    told = []
    for place, items in found.items():
        if not _told_deeper(place, items, found):
            dotted = ".".join(place)
            origin = _origin(place, origins)
            told.append(f"{dotted}{f' ({origin})' if origin else ''}: {_problem(place, items)}".removeprefix(": "))
    return told


def _place(item: Any, document: Any) -> tuple[str, ...]:
    """Where an error lies in the file; pydantic also names the tried type of a union, which the file does not know."""
    kept: list[str] = []
    location = item["loc"]
    for number, part in enumerate(location):
        last = number == len(location) - 1
        if _holds(document, part):
            document = document[part]
        elif not (last and item["type"] == "missing"):
            continue
        kept.append(str(part))
    return tuple(kept)


def _holds(document: Any, part: Any) -> bool:
    if isinstance(document, Mapping):
        return part in document
    return isinstance(document, list) and isinstance(part, int) and part < len(document)


def _told_deeper(place: tuple[str, ...], items: Sequence[Any], found: Mapping[tuple[str, ...], Any]) -> bool:
    """Whether this only says that the other types of a union did not fit either."""
    if any(item["type"] in {"value_error", "extra_forbidden"} for item in items):
        return False
    return any(other[: len(place)] == place and len(other) > len(place) for other in found)


def _origin(place: tuple[str, ...], origins: Mapping[str, str]) -> str:
    dotted = ".".join(place)
    if dotted not in origins:
        # A map that --set began has no line of its own, only what was set inside it.
        inside = [origin for key, origin in origins.items() if key.startswith(f"{dotted}.")]
        if inside:
            return inside[0]
    for length in range(len(place), 0, -1):
        origin = origins.get(".".join(place[:length]))
        if origin:
            return origin
    return ""


def _problem(place: tuple[str, ...], items: Sequence[Any]) -> str:
    by_type = {item["type"]: item for item in items}
    value = items[0]["input"]
    if by_type.keys() & {"extra_forbidden", "invalid_key"}:
        return f"no such setting; {_near_key(place)}"
    if "value_error" in by_type:
        return "; ".join(str(item["ctx"]["error"]) for item in items if item["type"] == "value_error")
    if "missing" in by_type:
        return "is missing"
    section = section_at(place)
    if section is not None:
        below = ", ".join(section.model_fields)
        return f"is a section, not {shown(value)}; its settings stand below it, indented: {below}"
    field = field_at(place)
    if field is not None:
        return f"{shown(value)} is not allowed; it should be {allowed(field)}{_near_choice(field.annotation, value)}"
    return _inside_value(items[0])


def _inside_value(item: Any) -> str:
    """An error inside a map or list, where no setting has a description of its own."""
    context, value = item.get("ctx", {}), item["input"]
    if item["type"] == "union_tag_not_found":
        return "`type` is missing; it should be float, int or categorical"
    if item["type"] == "union_tag_invalid":
        kinds = str(context["expected_tags"]).replace("'", "").split(", ")
        near = difflib.get_close_matches(str(context["tag"]), kinds, n=1)
        mean = f"; did you mean `{near[0]}`?" if near else ""
        return f"type {context['tag']} is not known; it should be {', '.join(kinds[:-1])} or {kinds[-1]}{mean}"
    if item["type"] in {"model_type", "model_attributes_type"}:
        return f"{shown(value)} is no range; write it as {{type: float, low: 0.1, high: 0.5}}"
    if item["type"] == "too_short":
        return f"is too short: it needs at least {context['min_length']}"
    message = (
        item["msg"]
        .removeprefix("Input should be ")
        .replace("a valid boolean, unable to interpret input", "true or false")
        .replace("valid string", "text")
        .replace("valid integer", "whole number")
    )
    return f"{shown(value)} is not allowed; it should be {message.replace('valid ', '')}"


def _near_choice(annotation: Any, value: Any) -> str:
    near = difflib.get_close_matches(str(value), choices(annotation), n=1)
    if near and not isinstance(value, Mapping | list):
        return f"; did you mean `{near[0]}`?"
    quotable = (
        isinstance(value, int | float) and not isinstance(value, bool) and str in {annotation, *_members(annotation)}
    )
    return " (in quotes, if it is one)" if quotable else ""


def _members(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


def _near_key(place: tuple[str, ...]) -> str:
    """What an unknown key may have been meant for: a name beside it, or the same name elsewhere."""
    if instead := RETIRED.get(".".join(place)):
        return instead
    *above, name = place
    section = section_at(above)
    here = list(section.model_fields) if section is not None else _range_keys()
    if name in here:
        return "this type of range has none"
    near = difflib.get_close_matches(name, here, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    # A setting of the right name in another place: first below the same model, then anywhere.
    elsewhere = [setting.key for setting in settings() if setting.key.rpartition(".")[2] == name]
    elsewhere.sort(key=lambda key: (key.split(".")[0] != place[0], key.split(".")[-2:-1] != list(place[-2:-1])))
    if elsewhere:
        return f"did you mean `{elsewhere[0]}`?"
    return f"known here: {', '.join(here)}"


def _range_keys() -> list[str]:
    return ["type", "low", "high", "log", "step", "choices"]


def shown(value: Any) -> str:
    """A value as it would stand in the file, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping | BaseModel):
        return "a map"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
